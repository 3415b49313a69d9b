//! Sequences, and the KV cache pages of their keys and values.

use crate::Input;
use crate::rope::RopeSet;
use phi3_tensor::{Batch, PAGE};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Identifier of a sequence, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SequenceId(u64);

impl SequenceId {
    fn next() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        Self(MADE.fetch_add(1, Ordering::Relaxed))
    }
}

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

    /// Size that the cache needs, in pages.
    pub(crate) fn made(&self) -> usize {
        self.with(|pages| pages.made as usize)
    }

    /// Pages in use.
    pub(crate) fn used(&self) -> usize {
        self.with(|pages| pages.made as usize - pages.free.len())
    }
}

/// A sequence in the KV cache: its inputs, their pages, and the rope factors of its keys.
///
/// It belongs to the model that made it; other models refuse it.
pub struct Sequence {
    id: SequenceId,
    /// The pool of its model: page numbers are valid in that model's cache only.
    pool: PagePool,
    inputs: Vec<Input>,
    pages: Vec<u32>,
    set: RopeSet,
}

impl Sequence {
    pub(crate) fn new(pool: PagePool) -> Self {
        Self { id: SequenceId::next(), pool, inputs: Vec::new(), pages: Vec::new(), set: RopeSet::default() }
    }

    pub(crate) fn id(&self) -> SequenceId {
        self.id
    }

    /// Whether its pages come from `pool`.
    pub(crate) fn is_of(&self, pool: &PagePool) -> bool {
        Arc::ptr_eq(&self.pool.0, &pool.0)
    }

    /// Tokens and rows of picture features whose keys and values are in the cache. A token sampled on the device and not read back
    /// yet is [`Batch::SAMPLED`] or more.
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

    /// The empty sequence with these factors, for passes over several sequences; [`prefill`](crate::prefill) chooses them
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

    /// Number of inputs before the unresolved tokens at the end.
    fn resolved_len(&self) -> usize {
        self.inputs.len() - self.inputs.iter().rev().take_while(|input| unresolved(input)).count()
    }

    /// Sets the token at a position, if the sequence has an unresolved one there.
    pub(crate) fn resolve_token(&mut self, position: usize, token: u32) {
        if let Some(input) = self.inputs.get_mut(position).filter(|input| unresolved(input)) {
            *input = Input::Token(token);
        }
    }

    /// Appends inputs whose keys and values a pass writes. Frees pages that no token after the resolved ones sees.
    pub(crate) fn append(&mut self, inputs: &[Input], window: Option<usize>) {
        self.inputs.extend_from_slice(inputs);
        let seen = window.map_or(0, |window| (self.resolved_len() + 1).saturating_sub(window));
        for page in &mut self.pages[..seen / PAGE] {
            self.pool.give_back(std::mem::replace(page, Batch::NO_PAGE));
        }
    }
}

/// Whether an input is a sampled token that the host has not read yet.
fn unresolved(input: &Input) -> bool {
    input.token().is_some_and(|token| token >= Batch::SAMPLED)
}

impl Drop for Sequence {
    fn drop(&mut self) {
        self.clear();
    }
}
