//! The rules of the scheduler, one by one, in virtual time.

use super::device::*;
use crate::FinishReason;
use crate::scheduler::*;
use phi3_model::{Outputs, PageTable, RopePolicy, RopeSet};
use std::collections::VecDeque;
use std::time::Duration;

/// A scheduler, a device, and all that happened.
struct Run {
    scheduler: Scheduler,
    device: FakeDevice,
    now: Duration,
    flights: VecDeque<(Pass, Tokens)>,
    events: Vec<(RequestId, Event)>,
    /// Rows of completed passes: of requests that decode, and others.
    rows: Vec<(usize, usize)>,
}

impl Run {
    fn new(options: SchedulerOptions, pages: usize) -> Self {
        let device = FakeDevice::new(options.window);
        Self {
            scheduler: Scheduler::new(options, PageTable::with_budget(pages)),
            device,
            now: Duration::ZERO,
            flights: VecDeque::new(),
            events: Vec::new(),
            rows: Vec::new(),
        }
    }

    fn submit(&mut self, request: NewRequest) -> RequestId {
        self.scheduler.submit(request, self.now).unwrap()
    }

    /// Plans and completes one pass; false where nothing is left to do.
    fn step(&mut self) -> bool {
        while let Some(pass) = self.scheduler.plan(self.now, &mut self.events) {
            let tokens = self.device.execute(&pass);
            self.flights.push_back((pass, tokens));
        }
        let Some((pass, tokens)) = self.flights.pop_front() else { return false };
        let rows = |phase| pass.segments.iter().filter(|s| s.phase == phase).map(|s| s.rows.len()).sum::<usize>();
        let counts = (rows(Phase::Decode), rows(Phase::Prompt));
        let elapsed = cost(counts.0, counts.1);
        self.now += elapsed;
        self.rows.push(counts);
        self.scheduler.complete(pass.id, &tokens, elapsed, &mut self.events);
        true
    }

    fn finish(&mut self) {
        while self.step() {}
        assert!(self.scheduler.is_empty() && self.scheduler.pages().used() == 0);
    }

    fn of(&self, id: RequestId) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |(other, _)| *other == id).map(|(_, event)| event)
    }

    fn tokens(&self, id: RequestId) -> Vec<u32> {
        self.of(id).filter_map(|event| if let Event::Token { id, .. } = event { Some(*id) } else { None }).collect()
    }

    fn finish_reason(&self, id: RequestId) -> Option<FinishReason> {
        self.of(id).find_map(|event| if let Event::Finished(reason) = event { Some(*reason) } else { None })
    }

    fn cached(&self, id: RequestId) -> Option<usize> {
        self.of(id).find_map(|event| if let Event::Started { cached, .. } = event { Some(*cached) } else { None })
    }

    /// Steps until a request has a token; returns the time since `since`.
    fn first_token(&mut self, id: RequestId, since: Duration) -> Duration {
        while self.tokens(id).is_empty() {
            assert!(self.step());
        }
        self.now - since
    }
}

fn text(seed: u32, length: usize) -> impl Iterator<Item = u32> {
    let mut random = Random(u64::from(seed));
    (0..length).map(move |_| random.below(60) as u32)
}

#[test]
fn long_prompts_stall_nobody() {
    for readers in [1, 7] {
        let mut run = Run::new(options(), 400);
        for seed in 0..readers {
            run.submit(request(text(seed, 5), 300));
        }
        for _ in 0..20 {
            run.step();
        }
        let before = run.rows.len();
        let long = run.submit(request(text(9, 700), 4));
        run.first_token(long, Duration::ZERO);
        let passes = &run.rows[before..];
        for (decodes, prompts) in passes {
            assert_eq!(*decodes, readers as usize);
            assert!(cost(*decodes, *prompts) <= 3 * cost(*decodes, 0), "{decodes} and {prompts} rows");
        }
        // decode rows alone are measured now and then
        assert!(passes.iter().filter(|(_, prompts)| *prompts == 0).count() <= 2 + passes.len() / 32);
        // and the prompt has the time that the factor gives
        let mean = 700.0 / passes.len() as f64;
        assert!(mean > 5.0, "{mean} rows a pass");
    }
}

#[test]
fn a_stall_factor_gives_prompts_more_time() {
    let mut run = Run::new(SchedulerOptions { stall_factor: 8.0, ..options() }, 400);
    run.submit(request(text(1, 5), 300));
    (0..10).for_each(|_| assert!(run.step()));
    let before = run.rows.len();
    let long = run.submit(request(text(2, 700), 1));
    run.first_token(long, Duration::ZERO);
    assert!(run.rows.len() - before < 25, "{:?}", &run.rows[before..]);
}

#[test]
fn one_key_does_not_starve_another() {
    let by = |key: &str, seed| NewRequest { key: key.into(), ..request(text(seed, 60), 8) };
    let alone = {
        let mut run = Run::new(options(), 2000);
        let id = run.submit(by("b", 1));
        run.first_token(id, Duration::ZERO)
    };
    let mut run = Run::new(SchedulerOptions { max_running: 32, ..options() }, 2000);
    let mut seed = 2;
    let mut times = Vec::new();
    for _ in 0..20 {
        let (id, since) = (run.submit(by("b", seed)), run.now);
        let mut first = None;
        while run.finish_reason(id).is_none() {
            // the other key has always 31 requests
            let open = run.scheduler.len() - 1;
            for _ in open..31 {
                seed += 1;
                run.submit(by("a", seed));
            }
            assert!(run.step());
            if first.is_none() && !run.tokens(id).is_empty() {
                first = Some(run.now - since);
            }
        }
        seed += 1;
        times.extend(first);
    }
    times.sort();
    assert!(times.len() == 20 && times[10] <= 3 * alone, "{times:?} instead of {alone:?}");
}

#[test]
fn long_prompts_are_not_starved_by_short_ones() {
    let mut run = Run::new(options(), 2000);
    let long = run.submit(request(text(1, 900), 1));
    let mut seed = 10;
    while run.tokens(long).is_empty() {
        // more short prompts than there is time for
        while run.scheduler.waiting() < 4 {
            seed += 1;
            run.submit(request(text(seed, 60), 1));
        }
        assert!(run.step());
    }
    // half of the rows are its own after two seconds
    let bound = Duration::from_secs(4) + 3 * cost(0, 900);
    assert!(run.now < bound, "{:?}", run.now);
    let ends = run.events.iter().filter(|(_, event)| matches!(event, Event::Finished(_))).count();
    assert!(ends > 5, "short prompts go on beside it");
}

#[test]
fn large_prompts_are_not_starved_of_pages() {
    let mut run = Run::new(options(), 40);
    let mut seed = 10;
    for _ in 0..8 {
        seed += 1;
        run.submit(request(text(seed, 40), 30));
    }
    run.step();
    let large = run.submit(request(text(1, 500), 1));
    while run.tokens(large).is_empty() {
        while run.scheduler.waiting() < 4 {
            seed += 1;
            run.submit(request(text(seed, 40), 30));
        }
        assert!(run.step());
    }
    // after two seconds it is the next that starts; the others end within 30 passes of their own
    let started =
        run.of(large).find_map(|event| if let Event::Started { waited, .. } = event { Some(*waited) } else { None });
    let bound = Duration::from_secs(2) + 60 * cost(8, 7);
    assert!(started.is_some_and(|waited| waited < bound), "{started:?}, not {bound:?}");
}

#[test]
fn equal_prompts_are_computed_once() {
    for depth in [1, 3] {
        let mut run = Run::new(SchedulerOptions { pipeline_depth: depth, ..options() }, 400);
        let ids: Vec<_> = (0..8).map(|_| run.submit(request(text(3, 500), 6))).collect();
        run.finish();
        let rows: usize = run.rows.iter().map(|(_, prompts)| prompts).sum();
        assert!(rows < 500 + 8 * 2, "{rows} rows");
        assert_eq!(run.cached(ids[7]), Some(499));
        assert!(ids.iter().all(|id| run.tokens(*id) == run.tokens(ids[0])));
        assert_eq!(run.scheduler.stats().prefix_hits, 7 * 499);
    }
}

#[test]
fn a_chat_goes_on_where_it_ended() {
    let mut run = Run::new(options(), 100);
    let first = run.submit(request(text(4, 50), 9));
    run.finish();
    let answered: Vec<u32> = text(4, 50).chain(run.tokens(first)).collect();
    let second = run.submit(request(answered.iter().copied().chain([3, 1, 2]), 3));
    run.finish();
    // the last token of an answer is not computed
    assert_eq!(run.cached(second), Some(answered.len() - 1));
    // other factors, and a request for all logits, share nothing
    let long = run.submit(NewRequest { rope: RopePolicy::Long, ..request(answered.clone(), 1) });
    let all = run.submit(NewRequest { outputs: Outputs::All, ..request(answered, 1) });
    run.finish();
    assert_eq!((run.cached(long), run.cached(all)), (Some(0), Some(0)));
}

#[test]
fn cancelling_frees_pages_at_once() {
    let mut run = Run::new(SchedulerOptions { pipeline_depth: 4, ..options() }, 100);
    let ids: Vec<_> = (0..4).map(|i| run.submit(request(text(i, 30), 40))).collect();
    run.step();
    run.step();
    assert!(run.scheduler.in_flight() > 0 && run.scheduler.pages().used() > 0);
    for id in &ids {
        run.scheduler.cancel(*id, FinishReason::Interrupted, &mut run.events);
        run.scheduler.cancel(*id, FinishReason::Interrupted, &mut run.events);
    }
    assert_eq!((run.scheduler.len(), run.scheduler.pages().used()), (0, 0));
    let told = run.events.len();
    while run.step() {}
    assert_eq!(run.events.len(), told);
}

#[test]
fn pages_that_go_away_end_what_no_longer_fits() {
    for window in [None, Some(40)] {
        let mut run = Run::new(SchedulerOptions { window, ..options() }, 10);
        let short = request(text(1, 20), 100);
        let id = run.submit(short.clone());
        while run.tokens(id).len() < 50 {
            assert!(run.step());
        }
        let long = run.submit(request(text(2, 60), 4));
        let refused = run.scheduler.shrink_pages(2);
        assert_eq!(refused, [(long, SubmitError::TooLarge { found: 4, limit: 2 })]);
        run.scheduler.cancel(long, FinishReason::Interrupted, &mut run.events);
        // its prompt fits, its answer does not any more
        run.finish();
        assert_eq!((run.tokens(id).len(), run.finish_reason(id)), (50, Some(FinishReason::Length)));
        assert!(answer(&short, &run.scheduler.options).starts_with(&run.tokens(id)));
        // others go on in the pages that are left
        let small = run.submit(request(text(3, 20), 5));
        run.finish();
        assert_eq!(run.tokens(small).len(), 5);
    }
}

#[test]
fn answers_end_where_the_pages_end() {
    let mut run = Run::new(options(), 3);
    let id = run.submit(request(text(1, 20), 100));
    run.finish();
    assert_eq!((run.finish_reason(id), run.tokens(id).len()), (Some(FinishReason::Length), 48 - 20 + 1));
    let too_large = SubmitError::TooLarge { found: 4, limit: 3 };
    assert_eq!(run.scheduler.submit(request(text(1, 49), 1), run.now), Err(too_large));
    let too_long = SubmitError::TooLong { found: 1025, limit: 1024 };
    assert_eq!(run.scheduler.submit(request(text(1, 1025), 1), run.now), Err(too_long));
    assert_eq!(run.scheduler.submit(request([], 1), run.now), Err(SubmitError::Empty));
}

#[test]
fn the_youngest_is_paused_and_goes_on() {
    let mut run = Run::new(options(), 7);
    let ids: Vec<_> = (0..2).map(|i| run.submit(request(text(i, 33), 50))).collect();
    run.finish();
    assert!(run.of(ids[0]).all(|event| *event != Event::Paused));
    assert_eq!(run.of(ids[1]).filter(|event| **event == Event::Paused).count(), 1);
    assert_eq!(run.scheduler.stats().preemptions, 1);
    for (id, seed) in ids.into_iter().zip(0..) {
        assert_eq!(run.tokens(id), answer(&request(text(seed, 33), 50), &options()));
    }
}

#[test]
fn crossing_the_border_is_told() {
    let options = SchedulerOptions { rope: long_rope(40), pipeline_depth: 3, ..options() };
    let mut run = Run::new(options.clone(), 100);
    let id = run.submit(request(text(1, 30), 20));
    run.finish();
    let switches: Vec<_> = run.of(id).filter(|event| matches!(event, Event::RopeSwitch { .. })).collect();
    assert_eq!(switches, [&Event::RopeSwitch { set: RopeSet::Long, tokens: 40 }]);
    assert_eq!(run.tokens(id), answer(&request(text(1, 30), 20), &options));
}

#[test]
fn full_queues_refuse() {
    let limits = SchedulerOptions { max_queued_requests: 3, max_queued_tokens: 100, ..options() };
    let mut run = Run::new(limits, 100);
    let busy = |result: Result<RequestId, SubmitError>| match result {
        Err(SubmitError::Busy(busy)) => Some(busy.limit),
        _ => None,
    };
    assert_eq!(busy(run.scheduler.submit(request(text(1, 300), 1), run.now)), None, "nothing else waits");
    assert_eq!(busy(run.scheduler.submit(request(text(1, 3), 1), run.now)), Some(QueueLimit::Tokens));
    run.finish();
    for seed in 0..3 {
        run.submit(request(text(seed, 3), 1));
    }
    assert_eq!(busy(run.scheduler.submit(request(text(1, 3), 1), run.now)), Some(QueueLimit::Requests));
    assert_eq!(run.scheduler.queued_tokens(), 9);
    run.scheduler.drain();
    assert_eq!(run.scheduler.submit(request(text(1, 3), 1), run.now), Err(SubmitError::Draining));
    run.finish();
}

#[test]
fn several_tokens_of_a_pass_end_at_the_stop_token() {
    let mut scheduler = Scheduler::new(options(), PageTable::with_budget(10));
    let mut events = Vec::new();
    let stop = NewRequest { stop_tokens: [7].into(), pipelined: false, ..request(text(1, 5), 9) };
    let id = scheduler.submit(stop, Duration::ZERO).unwrap();
    let pass = scheduler.plan(Duration::ZERO, &mut events).unwrap();
    scheduler.complete(pass.id, &[(id, vec![1, 2, 3])], Duration::ZERO, &mut events);
    let pass = scheduler.plan(Duration::ZERO, &mut events).unwrap();
    let segment = &pass.segments[0];
    assert_eq!((segment.position, segment.rows.len(), segment.token_index), (5, 3, Some(3)));
    scheduler.complete(pass.id, &[(id, vec![4, 7, 5])], Duration::ZERO, &mut events);
    let tokens = [1, 2, 3, 4, 7].into_iter().enumerate().map(|(index, token)| (id, Event::Token { id: token, index }));
    let told = events.iter().filter(|(_, event)| matches!(event, Event::Token { .. })).cloned();
    assert!(tokens.eq(told));
    assert_eq!(events.last(), Some(&(id, Event::Finished(FinishReason::Stop))));
    assert!(scheduler.is_empty());
}

#[test]
fn a_pass_without_its_token_is_computed_again() {
    let mut scheduler = Scheduler::new(options(), PageTable::with_budget(10));
    let mut events = Vec::new();
    let id = scheduler.submit(request(text(1, 5), 2), Duration::ZERO).unwrap();
    let pass = scheduler.plan(Duration::ZERO, &mut events).unwrap();
    scheduler.complete(pass.id, &[], Duration::ZERO, &mut events);
    let pass = scheduler.plan(Duration::ZERO, &mut events).unwrap();
    let segment = &pass.segments[0];
    assert_eq!((segment.request, segment.position, segment.rows.len(), segment.token_index), (id, 4, 1, Some(0)));
}

#[test]
fn a_prompt_alone_may_be_wanted() {
    let mut run = Run::new(options(), 100);
    let all = run.submit(NewRequest { outputs: Outputs::All, ..request(text(1, 40), 0) });
    let last = run.submit(request(text(2, 40), 0));
    run.finish();
    for id in [all, last] {
        assert_eq!((run.finish_reason(id), run.tokens(id).len()), (Some(FinishReason::Length), 0));
    }
}

#[test]
fn a_page_is_not_published_before_its_copy_is_done() {
    let mut run = Run::new(SchedulerOptions { pipeline_depth: 3, ..options() }, 4);
    run.submit(request(text(1, 5), 1));
    run.finish();
    let like_it = |last| request(text(1, 4).chain([last]), 1);
    let copies = run.submit(like_it(58));
    let copying = run.scheduler.plan(run.now, &mut run.events).unwrap();
    assert_eq!(copying.copies.len(), 1);
    // the page that is copied is evicted, so that its copy is the only one with this content
    run.submit(request(text(2, 32), 9));
    let passes = [(); 2].map(|()| run.scheduler.plan(run.now, &mut run.events).unwrap());
    assert_eq!(run.scheduler.pages().cached(), 0);
    run.scheduler.cancel(copies, FinishReason::Interrupted, &mut run.events);
    run.scheduler.fail(copying.id);
    passes.iter().for_each(|pass| run.scheduler.fail(pass.id));
    let id = run.submit(like_it(59));
    run.finish();
    assert_eq!(run.tokens(id), answer(&like_it(59), &options()));
}
