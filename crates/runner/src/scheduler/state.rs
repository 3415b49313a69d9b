//! The scheduler's state, and what changes it outside of passes.

use super::costs::Costs;
use super::error::{Busy, QueueLimit, SubmitError};
use super::keys::Keys;
use super::pass::{Event, NewRequest, PassId, RequestId, Slot, Time};
use super::request::Request;
use crate::generate::FinishReason;
use phi3_model::{ModelSpec, PageId, PageTable, Rope};
use phi3_tensor::{Batch, PAGE};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Options of a scheduler.
#[derive(Clone, Debug)]
pub struct SchedulerOptions {
    /// Most rows of a pass.
    pub max_rows: usize,
    /// Most running requests, which is the number of slots; at most `max_rows`.
    pub max_running: usize,
    /// Most passes in flight.
    pub pipeline_depth: usize,
    /// Most waiting requests.
    pub max_queued_requests: usize,
    /// Most inputs of waiting requests. A single request may have more.
    pub max_queued_tokens: usize,
    /// Most time of a pass with decode rows, in multiples of the time without its prompt rows. Below 3, it may be 3 where
    /// [`phases_differ`](field@Self::phases_differ).
    pub stall_factor: f64,
    /// Whether the weights are read twice in a pass of decode rows and prompt rows, so that few prompt rows take as long as many.
    pub phases_differ: bool,
    /// Waiting time after which a request has a share of the prompt rows, however long its prompt is.
    pub max_wait: Duration,
    /// The model's rotary embedding.
    pub rope: Rope,
    /// The model's sliding window.
    pub window: Option<usize>,
    /// The model's positions.
    pub max_position_embeddings: usize,
}

impl SchedulerOptions {
    /// The defaults for a model whose passes take `max_rows` rows.
    pub fn new(spec: &ModelSpec, max_rows: usize) -> Self {
        Self {
            max_rows,
            max_running: 64.min(max_rows),
            pipeline_depth: 1,
            max_queued_requests: 256,
            max_queued_tokens: 1 << 20,
            stall_factor: 2.0,
            phases_differ: true,
            max_wait: Duration::from_secs(2),
            rope: spec.rope.clone(),
            window: spec.window(),
            max_position_embeddings: spec.max_position_embeddings,
        }
    }
}

/// Figures of a scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SchedulerStats {
    /// Requests that have a slot.
    pub running: usize,
    /// Requests that wait: new ones, and paused ones.
    pub waiting: usize,
    /// Inputs of waiting requests.
    pub queued_tokens: usize,
    /// Pages of the KV cache; fewer than at the start if the device had no memory for all of them.
    pub pages: usize,
    /// Share of the pages that running requests use, from 0 to 1.
    pub used_pages: f64,
    /// Times that a request was paused, since the start.
    pub preemptions: u64,
    /// Inputs of requests that were looked up in the prefix cache, since the start.
    pub prefix_queries: u64,
    /// Inputs that were found there.
    pub prefix_hits: u64,
}

/// A pass in flight.
pub(super) struct Flight {
    pub(super) id: PassId,
    /// Targets of its copies.
    pub(super) copied: Vec<PageId>,
    pub(super) parts: Vec<Part>,
    /// Decode rows of requests whose other rows are computed.
    pub(super) decodes: usize,
    /// All other rows.
    pub(super) rows: usize,
}

/// Rows of a request in a pass in flight.
pub(super) struct Part {
    pub(super) request: RequestId,
    /// The request's epoch when they were planned.
    pub(super) epoch: u64,
    /// Position after the last row.
    pub(super) end: usize,
    /// Whether they are of the prompt.
    pub(super) prompt: bool,
    /// Whether the logits of all rows are given.
    pub(super) echo: bool,
    pub(super) token_index: Option<usize>,
}

/// Scheduler of requests; see the [module](super).
pub struct Scheduler {
    pub(super) options: SchedulerOptions,
    pub(super) pages: PageTable,
    /// All requests that have not ended, in the order of arrival.
    pub(super) requests: BTreeMap<RequestId, Request>,
    /// Requests with a slot, in the order of their admission.
    pub(super) running: Vec<RequestId>,
    /// Slots that no request has.
    pub(super) slots: Vec<Slot>,
    pub(super) keys: Keys,
    pub(super) costs: Costs,
    /// Passes in flight, in order.
    pub(super) flights: VecDeque<Flight>,
    pub(super) planned_passes: u64,
    submitted: u64,
    draining: bool,
    pub(super) preemptions: u64,
    pub(super) prefix_queries: u64,
    pub(super) prefix_hits: u64,
}

impl Scheduler {
    /// A scheduler without requests. It owns the table of pages.
    pub fn new(options: SchedulerOptions, pages: PageTable) -> Self {
        let max_rows = options.max_rows.max(1);
        let max_running = options.max_running.clamp(1, max_rows);
        let options = SchedulerOptions { max_rows, max_running, ..options };
        Self {
            slots: (0..max_running as u32).rev().map(Slot).collect(),
            costs: Costs::new(options.phases_differ),
            options,
            pages,
            requests: BTreeMap::new(),
            running: Vec::new(),
            keys: Keys::default(),
            flights: VecDeque::new(),
            planned_passes: 0,
            submitted: 0,
            draining: false,
            preemptions: 0,
            prefix_queries: 0,
            prefix_hits: 0,
        }
    }

    /// Takes a request, which waits until [`plan`](Self::plan) admits it.
    ///
    /// # Errors
    ///
    /// [`SubmitError::Busy`] where too many wait, and the other refusals, which do not depend on load.
    pub fn submit(&mut self, request: NewRequest, now: Time) -> Result<RequestId, SubmitError> {
        let tokens = request.inputs.len();
        let positions = self.options.max_position_embeddings;
        if self.draining {
            return Err(SubmitError::Draining);
        }
        if tokens == 0 {
            return Err(SubmitError::Empty);
        }
        if tokens > positions {
            return Err(SubmitError::TooLong { found: tokens, limit: positions });
        }
        self.check_pages(tokens)?;
        if let Some(busy) = self.busy(tokens) {
            return Err(SubmitError::Busy(busy));
        }
        let id = RequestId(self.submitted);
        self.submitted += 1;
        self.keys.enter(&request.key);
        self.requests.insert(id, Request::new(request, positions, now));
        Ok(id)
    }

    /// Why a request of `tokens` inputs would be refused now, because too many wait.
    pub fn busy(&self, tokens: usize) -> Option<Busy> {
        let queued = self.queued_tokens();
        let limit = if self.waiting() >= self.options.max_queued_requests {
            QueueLimit::Requests
        } else if queued > 0 && queued + tokens > self.options.max_queued_tokens {
            QueueLimit::Tokens
        } else {
            return None;
        };
        Some(Busy { retry_after: self.costs.time_of(queued).unwrap_or(Duration::from_secs(1)), limit })
    }

    /// Ends a request at once, also while passes hold rows of it: their results are ignored. Nothing happens if it has ended.
    pub fn cancel(&mut self, id: RequestId, reason: FinishReason, events: &mut Vec<(RequestId, Event)>) {
        self.finish(id, reason, events);
    }

    /// Sets whether a request gets no rows of new tokens for now.
    pub fn hold(&mut self, id: RequestId, held: bool) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.held = held;
        }
    }

    /// Refuses requests from now on. Those taken before are computed to their end.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Lowers the number of pages: the device has memory for `pages`. Requests that hold others are computed again. Returns those whose
    /// prompts no longer fit, with the refusal, which the caller ends them with.
    pub fn shrink_pages(&mut self, pages: usize) -> Vec<(RequestId, SubmitError)> {
        let holds_lost =
            |request: &Request| request.pages.iter().any(|&page| page != Batch::NO_PAGE && page as usize >= pages);
        let lost: Vec<RequestId> =
            self.requests.iter().filter(|(_, request)| holds_lost(request)).map(|(id, _)| *id).collect();
        lost.into_iter().for_each(|id| self.stop_running(id));
        self.pages.shrink(pages);
        let refusal = |(id, request): (&RequestId, &Request)| Some((*id, self.check_pages(request.prompt).err()?));
        self.requests.iter().filter_map(refusal).collect()
    }

    /// Forgets all that the device holds, after it was lost: no pass is in flight, nothing is cached, and every request waits with
    /// nothing computed. Known tokens stay.
    pub fn reset(&mut self) {
        self.flights.clear();
        for id in std::mem::take(&mut self.running) {
            self.vacate(id);
        }
        for request in self.requests.values_mut() {
            request.in_flight = 0;
            request.trusted = request.epoch;
        }
        self.pages.clear_cached();
    }

    /// The table of pages.
    pub fn pages(&self) -> &PageTable {
        &self.pages
    }

    /// Number of requests that have not ended.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether all requests have ended.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Number of requests that have a slot.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Number of requests that wait: new ones, and paused ones.
    pub fn waiting(&self) -> usize {
        self.requests.len() - self.running.len()
    }

    /// Number of passes in flight.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Inputs of waiting requests.
    pub fn queued_tokens(&self) -> usize {
        self.requests.values().filter(|request| request.slot.is_none()).map(|request| request.inputs.len()).sum()
    }

    /// Figures for metrics.
    pub fn stats(&self) -> SchedulerStats {
        SchedulerStats {
            running: self.running(),
            waiting: self.waiting(),
            queued_tokens: self.queued_tokens(),
            pages: self.pages.budget(),
            used_pages: self.pages.used() as f64 / self.pages.budget().max(1) as f64,
            preemptions: self.preemptions,
            prefix_queries: self.prefix_queries,
            prefix_hits: self.prefix_hits,
        }
    }

    /// Pages that a running request of `tokens` inputs needs at least.
    pub(super) fn least_pages(&self, tokens: usize) -> usize {
        let all = tokens.div_ceil(PAGE);
        self.options.window.map_or(all, |window| all.min(window.div_ceil(PAGE) + 1))
    }

    /// Refuses a prompt of `tokens` inputs that needs more pages than there are.
    fn check_pages(&self, tokens: usize) -> Result<(), SubmitError> {
        let (found, limit) = (self.least_pages(tokens), self.pages.budget());
        if found > limit { Err(SubmitError::TooLarge { found, limit }) } else { Ok(()) }
    }

    /// Ends a request: publishes what is computed and releases its pages.
    pub(super) fn finish(&mut self, id: RequestId, reason: FinishReason, events: &mut Vec<(RequestId, Event)>) {
        self.publish(id, true);
        self.stop_running(id);
        if let Some(request) = self.requests.remove(&id) {
            self.keys.leave(&request.key);
            events.push((id, Event::Finished(reason)));
        }
    }

    /// Makes a running request wait with nothing computed.
    pub(super) fn stop_running(&mut self, id: RequestId) {
        self.running.retain(|other| *other != id);
        self.vacate(id);
    }

    /// Publishes computed pages of a request, the partial last one too where `all`.
    pub(super) fn publish(&mut self, id: RequestId, all: bool) {
        let Self { requests, pages, flights, .. } = self;
        let copying = |page| flights.iter().any(|flight| flight.copied.contains(&page));
        if let Some(request) = requests.get_mut(&id) {
            request.publish(pages, all, copying);
        }
    }

    /// Takes slot and pages of a request.
    fn vacate(&mut self, id: RequestId) {
        if let Some(request) = self.requests.get_mut(&id) {
            self.slots.extend(request.slot.take());
            request.paused = request.started;
            request.start_over(&mut self.pages);
        }
    }
}
