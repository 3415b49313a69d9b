//! A request that has not ended: what is known, planned and computed of it.

use super::pass::{NewRequest, RequestId, Slot, Time};
use phi3_model::{Input, Outputs, PageId, PageTable, PrefixNode, Rope, RopePolicy, RopeSet, RowInput};
use phi3_tensor::{Batch, PAGE, Phase};
use std::ops::Range;
use std::sync::Arc;

/// A request that has not ended.
pub(super) struct Request {
    /// Prompt, then the known new tokens.
    pub(super) inputs: Vec<Input>,
    /// Inputs of the prompt.
    pub(super) prompt: usize,
    /// Most new tokens. The last one is not computed and may lie beyond the model's positions.
    pub(super) limit: usize,
    stop_tokens: Arc<[u32]>,
    policy: RopePolicy,
    pub(super) salt: Option<Box<str>>,
    pub(super) key: Box<str>,
    pipelined: bool,
    pub(super) outputs: Outputs,
    chunk: usize,
    pub(super) arrived: Time,
    /// Whether rows were planned at any time.
    pub(super) started: bool,
    /// Whether it gets no rows of new tokens for now.
    pub(super) held: bool,
    /// Whether its pages were released since its last rows.
    pub(super) paused: bool,
    /// The slot of a running request.
    pub(super) slot: Option<Slot>,
    /// Factors of the keys in `pages`; those of the last time while it waits.
    pub(super) set: RopeSet,
    pub(super) pages: Vec<PageId>,
    /// Node after the published full pages; `None` while it waits.
    pub(super) node: Option<PrefixNode>,
    /// Pages before `node`.
    published: usize,
    /// Positions that were planned.
    pub(super) planned: usize,
    /// Positions that completed passes have computed.
    pub(super) computed: usize,
    /// Passes in flight that hold its rows.
    pub(super) in_flight: usize,
    /// Number of times that its pages were released.
    pub(super) epoch: u64,
    /// Tokens of passes of earlier epochs are dropped.
    pub(super) trusted: u64,
    /// Rows of the prompt whose logits were given, of those of [`Outputs::All`].
    pub(super) echoed: usize,
    /// The running request that computes a prefix for it, and the prefix's length.
    pub(super) leader: Option<(RequestId, usize)>,
}

/// Rows that can be planned for a request.
pub(super) struct Rows {
    pub(super) phase: Phase,
    pub(super) range: Range<usize>,
}

impl Request {
    pub(super) fn new(request: NewRequest, max_positions: usize, now: Time) -> Self {
        let prompt = request.inputs.len();
        Self {
            prompt,
            inputs: request.inputs,
            limit: request.max_tokens.min((max_positions + 1).saturating_sub(prompt)),
            stop_tokens: request.stop_tokens,
            policy: request.rope,
            salt: request.salt,
            key: request.key,
            pipelined: request.pipelined,
            outputs: request.outputs,
            chunk: request.chunk.unwrap_or(usize::MAX).max(1),
            arrived: now,
            started: false,
            held: false,
            paused: false,
            slot: None,
            set: RopeSet::default(),
            pages: Vec::new(),
            node: None,
            published: 0,
            planned: 0,
            computed: 0,
            in_flight: 0,
            epoch: 0,
            trusted: 0,
            echoed: 0,
            leader: None,
        }
    }

    pub(super) fn new_tokens(&self) -> usize {
        self.inputs.len() - self.prompt
    }

    /// Known inputs that are not planned.
    pub(super) fn remaining(&self) -> usize {
        self.inputs.len().saturating_sub(self.planned)
    }

    /// The factors for the rows that are planned next.
    pub(super) fn rope_set(&self, rope: &Rope) -> RopeSet {
        let most = self.prompt.saturating_add(self.limit).saturating_sub(1);
        rope.choose(self.policy, self.inputs.len().max(self.planned + 1), most)
    }

    /// Whether the row of the last token, known or sampled in a pass in flight, can be planned.
    pub(super) fn can_decode(&self) -> bool {
        let next = self.planned >= self.prompt && self.planned + 1 - self.prompt < self.limit;
        let known = self.planned + 1 == self.inputs.len();
        let sampled = self.pipelined && self.planned >= self.inputs.len() && self.computed < self.planned;
        self.slot.is_some() && !self.held && next && (known || sampled)
    }

    /// Whether inputs before the last known token's row, or of the prompt, have to be computed.
    pub(super) fn can_catch_up(&self) -> bool {
        self.slot.is_some() && (self.planned < self.prompt || self.planned + 1 < self.inputs.len())
    }

    /// At most `most` rows of known inputs.
    pub(super) fn known_rows(&self, most: usize) -> Rows {
        let start = self.planned;
        let (phase, mut end) = match start < self.prompt {
            true => (Phase::Prompt, self.prompt.min(start.saturating_add(most.min(self.chunk)))),
            false => (Phase::Decode, self.inputs.len().min(start.saturating_add(most))),
        };
        if start < self.echoed {
            end = end.min(self.echoed);
        }
        Rows { phase, range: start..end }
    }

    /// Row inputs of some positions.
    pub(super) fn row_inputs(&self, range: Range<usize>, slot: Slot) -> Vec<RowInput> {
        let input = |at: usize| self.inputs.get(at).cloned().map_or(RowInput::Sampled(slot.0), RowInput::Input);
        range.map(input).collect()
    }

    /// Which logits rows up to `end` give, and the index of the token that is sampled.
    pub(super) fn outputs(&self, rows: &Rows) -> (Outputs, Option<usize>) {
        let last = rows.range.end >= self.inputs.len() && rows.range.end >= self.prompt;
        let token = last.then(|| rows.range.end - self.prompt).filter(|index| *index < self.limit);
        let all = rows.phase == Phase::Prompt && self.outputs == Outputs::All && rows.range.start >= self.echoed;
        match token {
            _ if all => (Outputs::All, token),
            Some(_) => (Outputs::Last, token),
            None => (Outputs::None, None),
        }
    }

    /// Appends a new token. Returns whether it ends the answer.
    pub(super) fn push(&mut self, token: u32) -> Option<crate::FinishReason> {
        self.inputs.push(Input::Token(token));
        if self.stop_tokens.contains(&token) {
            return Some(crate::FinishReason::Stop);
        }
        (self.new_tokens() >= self.limit).then_some(crate::FinishReason::Length)
    }

    /// Pages that it holds.
    pub(super) fn held(&self) -> usize {
        self.pages.iter().filter(|page| **page != Batch::NO_PAGE).count()
    }

    /// Takes a cached prefix of `tokens` inputs.
    pub(super) fn start_after(&mut self, prefix: phi3_model::Prefix) {
        (self.planned, self.computed) = (prefix.tokens, prefix.tokens);
        self.published = prefix.tokens / PAGE;
        self.node = Some(prefix.node);
        self.pages = prefix.pages;
    }

    /// Releases all pages: nothing is computed, and what passes in flight write is not its own.
    pub(super) fn start_over(&mut self, pages: &mut PageTable) {
        pages.release(self.pages.drain(..));
        (self.planned, self.computed, self.published, self.node) = (0, 0, 0, None);
        self.slot = None;
        self.leader = None;
        self.epoch += 1;
    }

    /// Publishes full pages of computed inputs, and the partial last one where `all`. Pages in `copying` wait for a pass in flight.
    pub(super) fn publish(&mut self, pages: &mut PageTable, all: bool, copying: impl Fn(PageId) -> bool) {
        let Some(mut node) = self.node else { return };
        let known = self.computed.min(self.inputs.len());
        while self.published * PAGE < known {
            let range = self.published * PAGE..known.min((self.published + 1) * PAGE);
            let page =
                self.pages.get(self.published).copied().filter(|page| *page != Batch::NO_PAGE && !copying(*page));
            let full = range.len() == PAGE;
            let Some(page) = page.filter(|_| full || all) else { break };
            node = pages.publish(node, page, &self.inputs[range]);
            if !full {
                break;
            }
            self.published += 1;
        }
        self.node = Some(node);
    }

    /// Releases pages that no row after the computed ones sees.
    pub(super) fn release_unseen(&mut self, pages: &mut PageTable, window: Option<usize>) {
        let Some(window) = window else { return };
        let unseen = (self.computed + 1).saturating_sub(window) / PAGE;
        let count = unseen.min(self.pages.len());
        pages.release(self.pages[..count].iter_mut().map(|page| std::mem::replace(page, Batch::NO_PAGE)));
    }
}
