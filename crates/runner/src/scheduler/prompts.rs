//! Planning of prompt rows, and admission.

use super::pass::{Event, RequestId, Time};
use super::plan::{Draft, Events};
use super::state::Scheduler;
use crate::generate::FinishReason;
use phi3_model::{CacheRoot, Outputs, Prefix};
use phi3_tensor::PAGE;
use std::collections::{HashMap, VecDeque};

/// What became of a waiting request.
enum Admission {
    /// It runs.
    Admitted,
    /// A running request computes a prefix of it.
    Behind(RequestId),
    /// No slot or too few pages are left.
    Blocked,
}

impl Scheduler {
    /// Adds rows of prompts, and of new tokens that are computed again.
    ///
    /// The key that was served least comes first. Its rows are shared by halves between requests that have waited longer than `max_wait`,
    /// in the order of their arrival, and the others, shortest first.
    pub(super) fn plan_prompts(&mut self, draft: &mut Draft, now: Time, events: &mut Events) {
        let most = self.options.max_rows.saturating_sub(draft.decodes);
        let mut left = match draft.decodes {
            0 => most,
            decodes => self.costs.rows_beside(decodes, self.options.stall_factor).min(most),
        };
        let (mut old, mut new): (Vec<_>, Vec<_>) =
            self.candidates().into_iter().partition(|id| self.has_waited(*id, now));
        // requests that have waited take slots and pages first; what they lack is kept for them, but not from keys served less
        let waiting = old.iter().copied().filter(|id| self.is_waiting(*id)).collect();
        let mut waiting = self.queues(waiting, true);
        let mut blocked = None;
        while blocked.is_none()
            && !self.slots.is_empty()
            && let Some(id) = self.take_first(&mut waiting, true)
        {
            let served = self.served(id);
            blocked = matches!(self.admit(id, now, events), Admission::Blocked).then_some(served);
        }
        let full = self.slots.is_empty();
        let may_start = |id: &RequestId| !full && blocked.is_none_or(|served| self.served(*id) < served);
        new.retain(|id| !self.is_waiting(*id) || may_start(id));

        let least = old.iter().chain(&new).min_by_key(|id| self.served(**id));
        let key = least.and_then(|id| self.requests.get(id)).map(|request| request.key.clone());
        let is_first = |id: &mut RequestId| self.requests.get(id).map(|request| &request.key) == key.as_ref();
        let first_old: Vec<_> = old.extract_if(.., is_first).collect();
        let first_new: Vec<_> = new.extract_if(.., is_first).collect();
        let odd = (self.planned_passes % 2) as usize;
        let share = if first_old.is_empty() || first_new.is_empty() { left } else { (left + odd) / 2 };
        left -= self.plan_some(first_new.clone(), false, share, draft, now, events);
        for (candidates, by_arrival) in [(first_old, true), (first_new, false), (old, true), (new, false)] {
            left -= self.plan_some(candidates, by_arrival, left, draft, now, events);
        }
    }

    /// Requests with inputs to compute.
    fn candidates(&self) -> Vec<RequestId> {
        let is_one = |id: &RequestId| {
            self.requests.get(id).is_some_and(|request| match request.slot {
                Some(_) => request.can_catch_up() && !self.is_crossing(*id),
                // passes in flight may still give tokens of a paused request
                None => request.in_flight == 0,
            })
        };
        self.requests.keys().copied().filter(is_one).collect()
    }

    /// Plans rows of candidates until `most` are planned; returns their number.
    fn plan_some(
        &mut self,
        candidates: Vec<RequestId>,
        by_arrival: bool,
        most: usize,
        draft: &mut Draft,
        now: Time,
        events: &mut Events,
    ) -> usize {
        let mut queues = self.queues(candidates, by_arrival);
        let mut planned = 0;
        let mut blocked = false;
        while planned < most
            && let Some(mut id) = self.take_first(&mut queues, by_arrival)
        {
            if self.is_waiting(id) {
                if blocked || by_arrival && self.slots.is_empty() {
                    continue;
                }
                match self.admit(id, now, events) {
                    Admission::Admitted => {}
                    Admission::Behind(leader) => id = leader,
                    Admission::Blocked => {
                        blocked = by_arrival || self.slots.is_empty();
                        continue;
                    }
                }
            }
            planned += self.plan_known_rows(id, most - planned, draft);
        }
        draft.rows += planned;
        planned
    }

    /// Plans rows of a running request whose inputs are known; returns their number.
    pub(super) fn plan_known_rows(&mut self, id: RequestId, most: usize, draft: &mut Draft) -> usize {
        if most == 0 || draft.holds(id) || self.is_crossing(id) {
            return 0;
        }
        let Some(request) = self.requests.get(&id) else { return 0 };
        let mut rows = request.known_rows(most);
        rows.range.end = self.writable_end(id, rows.range.end, draft);
        if rows.range.is_empty() { 0 } else { self.add_rows(id, rows, draft) }
    }

    /// A queue for each key: by arrival, or paused requests first, then those with the fewest rows.
    fn queues(&self, mut candidates: Vec<RequestId>, by_arrival: bool) -> Vec<VecDeque<RequestId>> {
        candidates.sort_by_cached_key(|id| self.order(*id, by_arrival));
        let mut queues: HashMap<&str, VecDeque<RequestId>> = HashMap::new();
        for id in candidates {
            let key = self.requests.get(&id).map_or("", |request| &request.key);
            queues.entry(key).or_default().push_back(id);
        }
        queues.into_values().collect()
    }

    /// Removes the first candidate of the key that was served least.
    fn take_first(&self, queues: &mut [VecDeque<RequestId>], by_arrival: bool) -> Option<RequestId> {
        let order = |id: RequestId| (self.served(id), self.order(id, by_arrival));
        queues
            .iter_mut()
            .filter_map(|queue| queue.front().copied().map(|id| (order(id), queue)))
            .min_by_key(|(order, _)| *order)
            .and_then(|(_, queue)| queue.pop_front())
    }

    fn order(&self, id: RequestId, by_arrival: bool) -> (bool, usize, RequestId) {
        match self.requests.get(&id).filter(|_| !by_arrival) {
            Some(request) => (!request.paused, request.remaining(), id),
            None => (false, 0, id),
        }
    }

    /// Rows computed for the key of a request.
    fn served(&self, id: RequestId) -> u64 {
        self.requests.get(&id).map_or(0, |request| self.keys.served(&request.key))
    }

    fn is_waiting(&self, id: RequestId) -> bool {
        self.requests.get(&id).is_some_and(|request| request.slot.is_none())
    }

    fn has_waited(&self, id: RequestId, now: Time) -> bool {
        let arrived = self.requests.get(&id).map_or(now, |request| request.arrived);
        now.saturating_sub(arrived) > self.options.max_wait
    }

    /// Gives a waiting request a slot, the cached prefix of its inputs, and pages for the others.
    fn admit(&mut self, id: RequestId, now: Time, events: &mut Events) -> Admission {
        if let Some(leader) = self.leader(id) {
            return Admission::Behind(leader);
        }
        let Some(request) = self.requests.get(&id).filter(|_| !self.slots.is_empty()) else {
            return Admission::Blocked;
        };
        let set = request.rope_set(&self.options.rope);
        let root = self.pages.root(&CacheRoot { rope: set, salt: request.salt.clone() });
        // the last input is computed, since its row gives the next token
        let (known, most) = (request.inputs.len(), request.inputs.len() - 1);
        let cacheable = request.outputs != Outputs::All || request.echoed >= request.prompt;
        let prefix = match cacheable {
            true => self.pages.lookup(root, &request.inputs, most),
            false => Prefix { node: root, pages: Vec::new(), tokens: 0 },
        };
        if cacheable && let Some(leader) = self.find_leader(id, &prefix) {
            self.pages.release(prefix.pages);
            return Admission::Behind(leader);
        }

        let cached = prefix.tokens;
        let all = known.div_ceil(PAGE);
        let target = match self.options.window {
            Some(_) => all.min(cached / PAGE + self.least_pages(known)),
            None => all,
        };
        let mut new = target.saturating_sub(prefix.pages.len());
        // a page for the copy of a partial one, and one for each running request, so that nobody is paused at once
        let reserve = match self.running.len() {
            0 => 0,
            running => running + usize::from(cached % PAGE > 0),
        };
        let fits_alone =
            self.running.is_empty() && self.options.window.is_some() && self.least_pages(known) <= self.pages.budget();
        let Some(request) = self.requests.get_mut(&id) else { return Admission::Blocked };
        request.start_after(prefix);
        request.release_unseen(&mut self.pages, self.options.window);
        let available = self.pages.available().saturating_sub(reserve);
        if fits_alone {
            // its window fits, whatever the whole text needs
            new = new.min(available);
        }
        let pages = if new > available { None } else { self.pages.allocate(new) };
        let Some(pages) = pages else {
            request.start_over(&mut self.pages);
            if self.running.is_empty() {
                // it has grown beyond what there is
                self.finish(id, FinishReason::Length, events);
            }
            return Admission::Blocked;
        };
        request.pages.extend(pages);
        request.set = set;
        request.slot = self.slots.pop();
        request.leader = None;
        self.running.push(id);
        self.prefix_queries += known as u64;
        self.prefix_hits += cached as u64;
        if !std::mem::replace(&mut request.started, true) {
            let waited = now.saturating_sub(request.arrived);
            events.push((id, Event::Started { cached: cached.min(request.prompt), waited }));
        }
        Admission::Admitted
    }

    /// The running request that was found to compute a prefix of a waiting one, while it does so.
    fn leader(&self, id: RequestId) -> Option<RequestId> {
        let (leader, until) = self.requests.get(&id)?.leader?;
        let computes = self.requests.get(&leader).is_some_and(|l| l.slot.is_some() && l.computed < until);
        computes.then_some(leader)
    }

    /// A running request that will compute at least a page more of a waiting request's inputs than is cached.
    fn find_leader(&mut self, id: RequestId, cached: &Prefix) -> Option<RequestId> {
        let request = self.requests.get(&id)?;
        let set = request.rope_set(&self.options.rope);
        let prefix_of = |other: &RequestId| {
            let leader = self.requests.get(other)?;
            let shares = leader.set == set && leader.salt == request.salt && leader.computed < leader.prompt;
            if !shares || request.remaining() <= cached.tokens + PAGE {
                return None;
            }
            let inputs = leader.inputs[..leader.prompt].iter().zip(&request.inputs);
            let same = inputs.take_while(|(a, b)| a == b).count().min(request.inputs.len() - 1);
            (same >= cached.tokens + PAGE && leader.computed < same).then_some((*other, same))
        };
        let found = self.running.iter().filter_map(prefix_of).max_by_key(|(_, same)| *same);
        if let Some(request) = self.requests.get_mut(&id) {
            request.leader = found;
        }
        found.map(|(leader, _)| leader)
    }
}
