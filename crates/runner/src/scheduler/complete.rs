//! Results of passes.

use super::pass::{Event, PassId, RequestId};
use super::plan::Events;
use super::state::{Part, Scheduler};
use crate::generate::FinishReason;
use std::time::Duration;

impl Scheduler {
    /// Takes the results of a pass: for each segment with a token index, the tokens from that index on. Usually this is one token; with
    /// more, the request goes on after the last. Passes complete in the order of their planning.
    ///
    /// `elapsed` is the time that the device took for the pass.
    pub fn complete(&mut self, pass: PassId, tokens: &[(RequestId, Vec<u32>)], elapsed: Duration, events: &mut Events) {
        let Some(index) = self.flights.iter().position(|flight| flight.id == pass) else { return };
        debug_assert_eq!(index, 0, "passes complete in the order of their planning");
        let Some(flight) = self.flights.remove(index) else { return };
        self.costs.observe(flight.decodes, flight.rows, elapsed);
        for part in flight.parts {
            let sampled = tokens.iter().filter(|(id, _)| *id == part.request).flat_map(|(_, tokens)| tokens);
            self.complete_part(&part, sampled.copied(), events);
        }
    }

    /// Takes note that a pass was not executed. Its requests are computed again from their beginnings, without what later passes
    /// give for them; known tokens stay.
    pub fn fail(&mut self, pass: PassId) {
        let Some(index) = self.flights.iter().position(|flight| flight.id == pass) else { return };
        let Some(flight) = self.flights.remove(index) else { return };
        for part in flight.parts {
            let Some(request) = self.requests.get_mut(&part.request) else { continue };
            request.in_flight = request.in_flight.saturating_sub(1);
            if part.epoch == request.epoch {
                self.stop_running(part.request);
            }
            if let Some(request) = self.requests.get_mut(&part.request) {
                request.trusted = request.epoch;
            }
        }
    }

    fn complete_part(&mut self, part: &Part, tokens: impl Iterator<Item = u32>, events: &mut Events) {
        let id = part.request;
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.in_flight = request.in_flight.saturating_sub(1);
        let current = part.epoch == request.epoch;
        if part.epoch < request.trusted {
            return;
        }
        if current {
            request.computed = request.computed.max(part.end);
        }
        if part.echo {
            request.echoed = request.echoed.max(part.end);
        }
        let prompt = request.prompt;
        if current && part.prompt {
            events.push((id, Event::Computed { done: part.end, total: prompt }));
        }
        let mut finished = (request.limit == 0 && part.end >= prompt).then_some(FinishReason::Length);
        if part.token_index == Some(request.new_tokens()) {
            for token in tokens {
                events.push((id, Event::Token { id: token, index: request.new_tokens() }));
                finished = request.push(token);
                if finished.is_some() {
                    break;
                }
            }
        }
        if request.slot.is_some() && request.in_flight == 0 && request.planned >= request.inputs.len() {
            // no token was given, so that the last row has to be computed again
            request.planned = request.inputs.len() - 1;
            request.computed = request.computed.min(request.planned);
        }
        if let Some(reason) = finished {
            self.finish(id, reason, events);
        } else if current {
            self.publish(id, part.prompt && part.end == prompt);
            if let Some(request) = self.requests.get_mut(&id) {
                request.release_unseen(&mut self.pages, self.options.window);
            }
        }
    }
}
