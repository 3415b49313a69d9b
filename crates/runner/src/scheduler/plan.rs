//! Planning of a pass: decode rows, then rows of prompts.

use super::pass::{Event, Pass, PassId, RequestId, Segment, Time};
use super::request::Rows;
use super::state::{Flight, Part, Scheduler};
use crate::generate::FinishReason;
use phi3_model::{Outputs, PageId, Write};
use phi3_tensor::{PAGE, Phase};

/// A pass that is being planned.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) copies: Vec<(PageId, PageId)>,
    pub(super) segments: Vec<Segment>,
    pub(super) parts: Vec<Part>,
    /// Rows of running requests whose other inputs are computed.
    pub(super) decodes: usize,
    /// All other rows.
    pub(super) rows: usize,
}

impl Draft {
    pub(super) fn holds(&self, id: RequestId) -> bool {
        self.segments.iter().any(|segment| segment.request == id)
    }
}

/// Events are appended here.
pub(super) type Events = Vec<(RequestId, Event)>;

impl Scheduler {
    /// Plans the next pass; `None` where enough passes are in flight, or no row can be computed before one of them completes.
    ///
    /// Every request that waits for its next token gets a row. Rows of prompts follow, as many as
    /// [`stall_factor`](super::SchedulerOptions::stall_factor) leaves time for.
    pub fn plan(&mut self, now: Time, events: &mut Events) -> Option<Pass> {
        if self.flights.len() >= self.options.pipeline_depth.max(1) {
            return None;
        }
        self.switch_ropes(events);
        let mut draft = Draft::default();
        self.plan_decodes(&mut draft, events);
        self.plan_prompts(&mut draft, now, events);
        // several prompts may have taken all pages, each with too few for its next row
        while draft.segments.is_empty() && self.flights.is_empty() && self.running.len() > 1 {
            self.pause_youngest(events);
            for id in self.running.clone() {
                draft.rows += self.plan_known_rows(id, self.options.max_rows - draft.rows, &mut draft);
            }
        }
        self.pages.release(draft.copies.iter().map(|(from, _)| *from));
        if draft.segments.is_empty() {
            return None;
        }
        draft.segments.sort_by_key(|segment| segment.phase);
        let id = PassId(self.planned_passes);
        self.planned_passes += 1;
        self.flights.push_back(Flight {
            id,
            copied: draft.copies.iter().map(|(_, to)| *to).collect(),
            parts: draft.parts,
            decodes: draft.decodes,
            rows: draft.rows,
        });
        Some(Pass { id, copies: draft.copies, segments: draft.segments })
    }

    /// Releases what was computed with other rope factors than the next row needs.
    fn switch_ropes(&mut self, events: &mut Events) {
        for id in self.running.clone() {
            let Some(request) = self.requests.get(&id) else { continue };
            if request.in_flight == 0 && self.is_crossing(id) {
                let (set, tokens) = (request.rope_set(&self.options.rope), request.computed);
                self.stop_running(id);
                events.push((id, Event::RopeSwitch { set, tokens }));
            }
        }
    }

    /// Whether the next row of a running request needs other rope factors.
    pub(super) fn is_crossing(&self, id: RequestId) -> bool {
        self.requests.get(&id).is_some_and(|request| {
            (request.can_decode() || request.can_catch_up()) && request.rope_set(&self.options.rope) != request.set
        })
    }

    fn plan_decodes(&mut self, draft: &mut Draft, events: &mut Events) {
        for id in self.running.clone() {
            let Some(request) = self.requests.get(&id).filter(|request| request.can_decode()) else { continue };
            let end = request.planned + 1;
            if !self.is_crossing(id) && self.make_room(id, end, draft, events) {
                let rows = Rows { phase: Phase::Decode, range: end - 1..end };
                draft.decodes += self.add_rows(id, rows, draft);
            }
        }
    }

    /// Finds a page for the row before `end`, pausing younger requests where there is none. Returns whether there is one now; else the
    /// request is paused, has ended, or waits for its passes in flight.
    fn make_room(&mut self, id: RequestId, end: usize, draft: &mut Draft, events: &mut Events) -> bool {
        while self.writable_end(id, end, draft) < end {
            let Some(request) = self.requests.get(&id) else { return false };
            let is_new = request.planned / PAGE == request.pages.len();
            if is_new && request.held() >= self.pages.budget() || self.running.len() == 1 {
                // the tokens in flight are still its own
                if request.in_flight == 0 {
                    self.finish(id, FinishReason::Length, events);
                }
                return false;
            }
            if self.pause_youngest(events) == Some(id) {
                return false;
            }
        }
        true
    }

    /// Pauses the running request that was admitted last.
    fn pause_youngest(&mut self, events: &mut Events) -> Option<RequestId> {
        let id = *self.running.last()?;
        self.stop_running(id);
        self.preemptions += 1;
        events.push((id, Event::Paused));
        Some(id)
    }

    /// Prepares the pages of the positions from the next row to `end`; returns the position that is reached.
    pub(super) fn writable_end(&mut self, id: RequestId, end: usize, draft: &mut Draft) -> usize {
        let Some(request) = self.requests.get_mut(&id) else { return 0 };
        let mut at = request.planned;
        while at < end {
            let index = at / PAGE;
            match request.pages.get_mut(index) {
                Some(page) => match self.pages.writable(*page, at % PAGE) {
                    Some(Write::InPlace) => {}
                    Some(Write::Copy { from, to }) => {
                        draft.copies.push((from, to));
                        *page = to;
                    }
                    None => break,
                },
                None => match self.pages.allocate(1) {
                    Some(page) => request.pages.extend(page),
                    None => break,
                },
            }
            at = (index + 1) * PAGE;
        }
        at.min(end)
    }

    /// Adds a segment of rows whose pages are writable; returns their number.
    pub(super) fn add_rows(&mut self, id: RequestId, rows: Rows, draft: &mut Draft) -> usize {
        let Some(request) = self.requests.get_mut(&id) else { return 0 };
        let Some(slot) = request.slot else { return 0 };
        let (outputs, token_index) = request.outputs(&rows);
        let Rows { phase, range } = rows;
        draft.segments.push(Segment {
            request: id,
            slot,
            phase,
            position: range.start,
            rows: request.row_inputs(range.clone(), slot),
            pages: request.pages[..range.end.div_ceil(PAGE).min(request.pages.len())].to_vec(),
            rope: request.set,
            outputs,
            token_index,
        });
        draft.parts.push(Part {
            request: id,
            epoch: request.epoch,
            end: range.end,
            prompt: range.end <= request.prompt,
            echo: outputs == Outputs::All,
            token_index,
        });
        request.planned = range.end;
        request.in_flight += 1;
        request.paused = false;
        self.keys.charge(&request.key, range.len());
        range.len()
    }
}
