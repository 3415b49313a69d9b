//! Sequences, and the KV cache pages of their keys and values.

use crate::Input;
use crate::rope::RopeSet;
use phi3_tensor::{Batch, PAGE};
use std::sync::{Arc, Mutex, PoisonError};

/// Allocator of KV cache pages. A sequence gives its pages back when it is dropped, and earlier those that its window has passed.
#[derive(Clone, Default)]
pub(crate) struct PagePool(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    free: Vec<u32>,
    /// Number of pages allocated so far, free ones included: the size that the cache needs.
    made: u32,
}

impl PagePool {
    fn with<T>(&self, f: impl FnOnce(&mut Pages) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self) -> u32 {
        self.with(|pages| {
            pages.free.pop().unwrap_or_else(|| {
                pages.made += 1;
                pages.made - 1
            })
        })
    }

    fn give_back(&self, page: u32) {
        if page != Batch::NO_PAGE {
            self.with(|pages| pages.free.push(page));
        }
    }

    /// Pages in use.
    pub(crate) fn used(&self) -> usize {
        self.with(|pages| pages.made as usize - pages.free.len())
    }
}

/// A sequence in the KV cache: its inputs, their pages, and the rope factors of its keys.
///
/// It belongs to the session that made it; other sessions refuse it.
pub struct Sequence {
    /// The pool of its session.
    pool: PagePool,
    inputs: Vec<Input>,
    pages: Vec<u32>,
    set: RopeSet,
}

impl Sequence {
    pub(crate) fn new(pool: PagePool) -> Self {
        Self { pool, inputs: Vec::new(), pages: Vec::new(), set: RopeSet::default() }
    }

    /// Whether its pages come from `pool`.
    pub(crate) fn is_of(&self, pool: &PagePool) -> bool {
        Arc::ptr_eq(&self.pool.0, &pool.0)
    }

    /// Tokens and rows of picture features whose keys and values are in the cache.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Number of cached inputs: the position of the next one.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// The factors that the cached keys were rotated with.
    pub fn rope_set(&self) -> RopeSet {
        self.set
    }

    /// The empty sequence with these factors, for passes over several sequences; [`prefill`](crate::Session::prefill) chooses them
    /// itself.
    pub fn with_rope(mut self, set: RopeSet) -> Self {
        self.clear();
        self.set = set;
        self
    }

    /// Sets the factors; only an empty sequence may change them.
    pub(crate) fn set_rope(&mut self, set: RopeSet) {
        debug_assert!(self.is_empty() || self.set == set);
        self.set = set;
    }

    /// Drops all inputs and gives their pages back.
    pub fn clear(&mut self) {
        self.pages.drain(..).for_each(|page| self.pool.give_back(page));
        self.inputs.clear();
    }

    /// Keeps the first `len` tokens. With a sliding window, positions that the next token sees may be freed already; the sequence
    /// is cleared then. Returns the number of tokens left.
    pub fn truncate(&mut self, len: usize, window: Option<usize>) -> usize {
        if len < self.inputs.len() {
            let seen = window.map_or(0, |window| (len + 1).saturating_sub(window));
            let needed = seen / PAGE..len.div_ceil(PAGE);
            if self.pages[needed].contains(&Batch::NO_PAGE) {
                self.clear();
            } else {
                self.pages.drain(len.div_ceil(PAGE)..).for_each(|page| self.pool.give_back(page));
                self.inputs.truncate(len);
            }
        }
        self.inputs.len()
    }

    /// Allocates pages for `count` more tokens.
    pub(crate) fn grow(&mut self, count: usize) {
        while self.pages.len() * PAGE < self.inputs.len() + count {
            self.pages.push(self.pool.take());
        }
    }

    /// The page of each `PAGE` positions.
    pub(crate) fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// Appends inputs whose keys and values a pass writes. Frees pages that no later token attends to.
    pub(crate) fn append(&mut self, inputs: &[Input], window: Option<usize>) {
        self.inputs.extend_from_slice(inputs);
        let seen = window.map_or(0, |window| (self.inputs.len() + 1).saturating_sub(window));
        for page in &mut self.pages[..seen / PAGE] {
            self.pool.give_back(std::mem::replace(page, Batch::NO_PAGE));
        }
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        self.clear();
    }
}
