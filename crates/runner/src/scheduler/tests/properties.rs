//! Random requests on a fake device: each has the answer that it has alone, and nothing leaks.

use super::device::*;
use crate::FinishReason;
use crate::scheduler::state::Scheduler;
use crate::scheduler::*;
use phi3_model::RowInput;
use phi3_model::{Outputs, PageTable, RopePolicy};
use phi3_tensor::Batch;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

struct Case {
    options: SchedulerOptions,
    pages: usize,
    requests: usize,
    /// One pass of so many is not executed.
    failures: Option<usize>,
}

struct Followed {
    request: NewRequest,
    tokens: Vec<u32>,
    started: bool,
    finished: Option<FinishReason>,
    /// Prompt rows whose logits were given.
    echoed: Vec<usize>,
}

fn new_request(random: &mut Random) -> NewRequest {
    let length = [1 + random.below(40), 1 + random.below(150)][random.below(2)];
    // few beginnings, so that prefixes are shared and end anywhere in a page
    let (text, common) = (random.below(3) as u32, random.below(length + 1));
    let other = random.next();
    let inputs =
        (0..length).map(|i| if i < common { (i as u32 * 7 + text) % 60 } else { (other >> (i % 50)) as u32 % 60 });
    let policies = [RopePolicy::Exact, RopePolicy::Exact, RopePolicy::Ahead, RopePolicy::Long, RopePolicy::Short];
    NewRequest {
        max_tokens: [random.below(4), random.below(60), random.below(150)][random.below(3)],
        stop_tokens: if random.one_in(2) { [5, 17].into() } else { [].into() },
        rope: policies[random.below(policies.len())],
        salt: random.one_in(4).then(|| "salt".into()),
        key: ["a", "b", "c"][random.below(3)].into(),
        pipelined: random.one_in(2),
        outputs: if random.one_in(6) { Outputs::All } else { Outputs::Last },
        chunk: random.one_in(4).then(|| 1 + random.below(20)),
        ..request(inputs, 0)
    }
}

/// Pages that requests hold are those in use.
fn check_references(scheduler: &Scheduler) {
    let held = scheduler.requests.values().flat_map(|request| &request.pages);
    let held: HashSet<_> = held.filter(|page| **page != Batch::NO_PAGE).collect();
    let pages = scheduler.pages();
    assert_eq!(held.len(), pages.used());
    assert_eq!(pages.used() + pages.cached() + pages.free(), pages.budget());
    assert_eq!(scheduler.running() + scheduler.slots.len(), scheduler.options.max_running);
    for (id, request) in &scheduler.requests {
        assert_eq!(request.slot.is_some(), scheduler.running.contains(id));
        assert!(request.slot.is_some() || request.pages.is_empty());
    }
}

fn run(case: &Case, seed: u64) -> SchedulerStats {
    let mut random = Random(seed);
    let mut scheduler = Scheduler::new(case.options.clone(), PageTable::with_budget(case.pages));
    let mut device = FakeDevice::new(case.options.window);
    let mut followed: BTreeMap<RequestId, Followed> = BTreeMap::new();
    let mut flights: VecDeque<(Pass, Option<Tokens>)> = VecDeque::new();
    let mut events = Vec::new();
    let (mut now, mut submitted, mut steps) = (Duration::ZERO, 0, 0);
    let mut work = Duration::ZERO;
    while submitted < case.requests || !scheduler.is_empty() {
        steps += 1;
        assert!(steps < 400 * case.requests, "no progress: {:?}", scheduler.stats());
        while submitted < case.requests && (scheduler.is_empty() || random.one_in(3)) {
            submitted += 1;
            let request = new_request(&mut random);
            match scheduler.submit(request.clone(), now) {
                Ok(id) => {
                    let new = Followed { request, tokens: vec![], started: false, finished: None, echoed: vec![] };
                    work += cost(0, new.request.inputs.len()) + cost(1, 0) * new.request.max_tokens as u32;
                    followed.insert(id, new);
                }
                Err(error) => assert!(matches!(error, SubmitError::TooLarge { .. }), "{error}"),
            }
        }
        if random.one_in(12) && !scheduler.is_empty() {
            let chosen = random.below(scheduler.len());
            let id = *scheduler.requests.keys().nth(chosen).unwrap();
            scheduler.cancel(id, FinishReason::Interrupted, &mut events);
        }
        while let Some(pass) = scheduler.plan(now, &mut events) {
            for segment in &pass.segments {
                let pipelined = followed[&segment.request].request.pipelined;
                assert!(pipelined || segment.rows.iter().all(|row| matches!(row, RowInput::Input(_))));
            }
            let fails = case.failures.is_some_and(|n| random.one_in(n));
            device.has_failed |= fails;
            let tokens = (!fails).then(|| device.execute(&pass));
            flights.push_back((pass, tokens));
            check_references(&scheduler);
        }
        if let Some((pass, tokens)) = flights.pop_front() {
            let elapsed = cost(1, pass.segments.iter().map(|segment| segment.rows.len()).sum());
            now += elapsed;
            match tokens {
                Some(tokens) => {
                    for segment in pass.segments.iter().filter(|segment| segment.outputs == Outputs::All) {
                        let rows = segment.position..segment.position + segment.rows.len();
                        followed.get_mut(&segment.request).unwrap().echoed.extend(rows);
                    }
                    scheduler.complete(pass.id, &tokens, elapsed, &mut events);
                }
                None => scheduler.fail(pass.id),
            }
        } else if scheduler.is_empty() {
            now += Duration::from_millis(random.below(1000) as u64);
        }
        if case.failures.is_some() && random.one_in(100) {
            scheduler.reset();
            flights.clear();
        }
        if case.failures.is_some() && random.one_in(400) {
            let pages = scheduler.pages().budget().saturating_sub(1);
            for (id, error) in scheduler.shrink_pages(pages) {
                assert!(matches!(error, SubmitError::TooLarge { limit, .. } if limit == pages));
                scheduler.cancel(id, FinishReason::Interrupted, &mut events);
            }
        }
        check_references(&scheduler);
        // nobody waits longer than the work of all takes, one after the other, some of it twice
        let waited = events.iter().filter_map(|(_, event)| match event {
            Event::Started { waited, .. } => Some(*waited),
            _ => None,
        });
        assert!(waited.max().is_none_or(|waited| waited <= 2 * work + case.options.max_wait));
        follow(&mut followed, &mut events);
    }
    assert_eq!((scheduler.pages().used(), scheduler.waiting(), scheduler.running()), (0, 0, 0));
    for (id, followed) in &followed {
        judge(*id, followed, case, scheduler.pages().budget());
    }
    scheduler.stats()
}

fn follow(followed: &mut BTreeMap<RequestId, Followed>, events: &mut Vec<(RequestId, Event)>) {
    for (id, event) in events.drain(..) {
        let followed = followed.get_mut(&id).unwrap();
        assert_eq!(followed.finished, None, "{event:?} after the end");
        match event {
            Event::Started { cached, .. } => {
                assert!(!std::mem::replace(&mut followed.started, true));
                assert!(cached < followed.request.inputs.len());
            }
            Event::Token { id, index } => {
                assert_eq!(index, followed.tokens.len());
                followed.tokens.push(id);
            }
            Event::Computed { done, total } => {
                assert!(0 < done && done <= total && total == followed.request.inputs.len());
            }
            Event::RopeSwitch { tokens, .. } => assert!(tokens > 0),
            Event::Paused => assert!(followed.started),
            Event::Finished(reason) => followed.finished = Some(reason),
        }
    }
}

/// `pages` is the smallest number of pages during the run.
fn judge(id: RequestId, followed: &Followed, case: &Case, pages: usize) {
    let expected = answer(&followed.request, &case.options);
    let found = &followed.tokens;
    assert!(expected.starts_with(found), "{id:?} {:?}: {found:?} instead of {expected:?}", followed.request);
    match followed.finished.expect("every request ends") {
        FinishReason::Stop => assert_eq!(found, &expected),
        // or the pages were full
        FinishReason::Length if found.len() < expected.len() => {
            assert!(case.options.window.is_some() || (followed.request.inputs.len() + found.len()) / 16 >= pages);
        }
        FinishReason::Length | FinishReason::Interrupted => {}
    }
    if followed.request.outputs == Outputs::All && followed.finished != Some(FinishReason::Interrupted) {
        let rows: Vec<usize> = (0..followed.request.inputs.len()).collect();
        let mut echoed = followed.echoed.clone();
        if case.failures.is_some() {
            echoed.sort_unstable();
            echoed.dedup();
        }
        assert_eq!(echoed, rows, "{id:?} {:?}", followed.request);
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for pages in [2, 4, 12, 16, 20, 30, 200] {
        for depth in 1..=4 {
            for (window, border) in [(None, 4000), (None, 48), (Some(24), 4000), (Some(40), 64)] {
                let options = SchedulerOptions {
                    pipeline_depth: depth,
                    max_running: [3, 8][depth % 2],
                    max_rows: [8, 100][depth / 2 % 2],
                    rope: long_rope(border),
                    window,
                    max_position_embeddings: 180,
                    ..options()
                };
                cases.push(Case { options, pages, requests: 60, failures: None });
            }
        }
    }
    cases
}

#[test]
fn answers_are_those_given_alone() {
    let mut total = HashMap::new();
    for (i, case) in cases().into_iter().enumerate() {
        for seed in 0..3 {
            let stats = run(&case, 100 * i as u64 + seed);
            *total.entry("preemptions").or_insert(0) += stats.preemptions;
            *total.entry("hits").or_insert(0) += stats.prefix_hits;
        }
    }
    // the cases are hard enough
    assert!(total["preemptions"] > 100 && total["hits"] > 10_000, "{total:?}");
}

#[test]
fn passes_that_fail_do_no_harm() {
    for (i, case) in cases().into_iter().enumerate() {
        run(&Case { failures: Some(15), requests: 30, ..case }, 1000 + i as u64);
    }
}
