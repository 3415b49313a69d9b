//! Sequences and the pages that hold their keys and values.

use crate::Input;
use crate::rope::RopeSet;
use phi3_tensor::{Batch, PAGE};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What no two sequences of a process share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SequenceId(u64);

impl SequenceId {
    fn next() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        Self(MADE.fetch_add(1, Ordering::Relaxed))
    }
}

/// Hands out pages of the cache. Pages come back when a sequence is dropped or no longer sees them.
#[derive(Clone, Default)]
pub(crate) struct PagePool(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    free: Vec<u32>,
    /// Pages that were ever handed out: the cache needs room for this many.
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

    /// Pages that the cache needs room for.
    pub(crate) fn made(&self) -> usize {
        self.with(|pages| pages.made as usize)
    }

    /// Pages in use.
    pub(crate) fn used(&self) -> usize {
        self.with(|pages| pages.made as usize - pages.free.len())
    }
}

/// One text in the cache: its inputs, their pages, and the rope factors that its keys were rotated with.
///
/// It belongs to the model that made it; another one refuses it.
pub struct Sequence {
    id: SequenceId,
    /// Of its model: pages of another one's cache would be a stranger's.
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

    /// Whether its pages are those of a pool.
    pub(crate) fn is_of(&self, pool: &PagePool) -> bool {
        Arc::ptr_eq(&self.pool.0, &pool.0)
    }

    /// Tokens and rows of pictures whose keys and values are in the cache. A token that a machine chose and nobody has asked
    /// for is [`Batch::SAMPLED`] or more.
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

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.pages.drain(..).for_each(|page| self.pool.give_back(page));
        self.inputs.clear();
    }

    /// Keeps the first `len` tokens, so that others may follow them. With a sliding window the positions that the next
    /// token would see may be gone; then everything is forgotten. Returns how many tokens are left.
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

    /// Makes room for `count` more tokens.
    pub(crate) fn grow(&mut self, count: usize) {
        while self.pages.len() * PAGE < self.inputs.len() + count {
            self.pages.push(self.pool.take());
        }
    }

    /// The page of each `PAGE` positions.
    pub(crate) fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// How many of the tokens are known.
    fn resolved_len(&self) -> usize {
        self.inputs.len() - self.inputs.iter().rev().take_while(|input| unresolved(input)).count()
    }

    /// Records what the token at a position is, where the sequence has one there that is not known yet.
    pub(crate) fn resolve_token(&mut self, position: usize, token: u32) {
        if let Some(input) = self.inputs.get_mut(position).filter(|input| unresolved(input)) {
            *input = Input::Token(token);
        }
    }

    /// Records inputs whose keys and values a pass has written, and frees pages that no token after the known ones sees.
    pub(crate) fn append(&mut self, inputs: &[Input], window: Option<usize>) {
        self.inputs.extend_from_slice(inputs);
        let seen = window.map_or(0, |window| (self.resolved_len() + 1).saturating_sub(window));
        for page in &mut self.pages[..seen / PAGE] {
            self.pool.give_back(std::mem::replace(page, Batch::NO_PAGE));
        }
    }
}

/// Whether it is a token that only the machine knows.
fn unresolved(input: &Input) -> bool {
    input.token().is_some_and(|token| token >= Batch::SAMPLED)
}

impl Drop for Sequence {
    fn drop(&mut self) {
        self.clear();
    }
}
