//! Many requests at once, failures of the device, and answers that end early, with the demo model on the CPU.

use super::*;
use crate::generate::{Completion, Event, FinishReason, GenerateOptions};
use crate::scheduler::SubmitError;
use crate::text::Message;
use crate::{Device, Generation, SamplerOptions};
use phi3_model::{Features, PageId, Probe, Segment, TowerInput};
use phi3_tensor::{Readback, Sampled, Samples};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const QUESTIONS: [&str; 8] = [
    "Tell me a story about a brave fox.",
    "What is 47 + 38?",
    "My name is Ada. What is my name?",
    "Who are you?",
    "Tell me a story about a small boat.",
    "What is 12 + 30?",
    "Tell me a story about a clever owl.",
    "Tell me a story about a brave fox.",
];

fn engine() -> Engine {
    Engine::builder().device(Device::Cpu).build().unwrap()
}

fn greedy(stop: &[&str]) -> GenerateOptions {
    let stop = stop.iter().map(|text| (*text).to_owned()).collect();
    GenerateOptions { sampler: Some(SamplerOptions::default()), max_tokens: Some(40), stop, ..Default::default() }
}

fn ask(engine: &Engine, question: &str, options: &GenerateOptions) -> Generation {
    engine.chat(&[Message::user(question)], options).unwrap()
}

fn answer(engine: &Engine, question: &str, options: &GenerateOptions) -> Completion {
    ask(engine, question, options).collect_all().unwrap()
}

/// A request whose events are not taken waits, without its tokens, and goes on when they are.
#[test]
fn unread_answers_wait() {
    let engine = engine();
    let question = QUESTIONS[0];
    let options = GenerateOptions { max_unread: Some(6), ..greedy(&[]) };
    let unread = ask(&engine, question, &options);
    let read = answer(&engine, question, &greedy(&[]));
    std::thread::sleep(Duration::from_millis(200));
    // passes in flight complete
    assert!(unread.pending() <= 6 + 4, "{}", unread.pending());
    assert_eq!(engine.stats().running, 1);
    assert_eq!(unread.collect_all().unwrap().ids, read.ids);
    assert_idle(&engine);
}

/// Ids of each question's answer alone.
fn alone() -> Vec<Vec<u32>> {
    let engine = engine();
    QUESTIONS.iter().map(|question| answer(&engine, question, &greedy(&[])).ids).collect()
}

/// Answers of the questions asked at once.
fn at_once(engine: &Engine, options: &GenerateOptions) -> Vec<Completion> {
    let all: Vec<Generation> = QUESTIONS.iter().map(|question| ask(engine, question, options)).collect();
    all.into_iter().map(|generation| generation.collect_all().unwrap()).collect()
}

fn ids(answers: Vec<Completion>) -> Vec<Vec<u32>> {
    answers.into_iter().map(|answer| answer.ids).collect()
}

/// Waits until nothing runs and no page is in use.
fn assert_idle(engine: &Engine) {
    let start = std::time::Instant::now();
    loop {
        let stats = engine.stats();
        if (stats.running, stats.waiting, stats.used_pages) == (0, 0, 0.0) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{stats:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn answers_at_once_are_the_answers_alone() {
    let want = alone();
    let engine = engine();
    assert_eq!(ids(at_once(&engine, &greedy(&[]))), want);
    // again, from the cache
    let again = at_once(&engine, &greedy(&[]));
    assert!(again.iter().all(|answer| answer.summary.usage.cached_tokens > 0));
    assert_eq!(ids(again), want);
    assert_idle(&engine);
    // with too little cache for all of them, some are paused
    let page = engine.with_model(|model| model.page_bytes()).unwrap();
    let small = Engine::builder().device(Device::Cpu).cache_memory(9 * page).build().unwrap();
    assert_eq!(ids(at_once(&small, &greedy(&[]))), want);
    assert!(small.stats().preemptions > 0, "{:?}", small.stats());
    assert_idle(&small);
}

#[test]
fn a_seed_gives_the_same_answer_in_any_company() {
    let engine = engine();
    // the device has the samplers of the first only
    let of_device = SamplerOptions { temperature: 1.0, top_p: 0.95, ..SamplerOptions::default() };
    let of_host = SamplerOptions { temperature: 1.0, typical_p: 0.9, ..SamplerOptions::default() };
    for sampler in [of_device, of_host] {
        let options =
            |seed| GenerateOptions { sampler: Some(SamplerOptions { seed, ..sampler.clone() }), ..greedy(&[]) };
        let want: Vec<Vec<u32>> = (0..4).map(|seed| answer(&engine, QUESTIONS[0], &options(seed)).ids).collect();
        let together: Vec<Generation> = (0..4).map(|seed| ask(&engine, QUESTIONS[0], &options(seed))).collect();
        let together: Vec<Vec<u32>> = together.into_iter().map(|one| one.collect_all().unwrap().ids).collect();
        assert_eq!(together, want);
        assert_ne!(want[0], want[1]);
    }
}

#[test]
fn requests_that_are_dropped_leave_nothing_behind() {
    let engine = engine();
    let want = alone();
    for taken in [0, 1, 3, 9] {
        let mut all: Vec<Generation> = QUESTIONS.iter().map(|question| ask(&engine, question, &greedy(&[]))).collect();
        for generation in all.iter_mut().step_by(2) {
            generation.take(taken).for_each(drop);
        }
        let kept = all.split_off(7);
        drop(all);
        assert_eq!(ids(kept.into_iter().map(|one| one.collect_all().unwrap()).collect()), want[7..]);
        assert_idle(&engine);
    }
}

#[test]
fn a_full_queue_refuses_at_once() {
    let limit = |options: &mut crate::scheduler::SchedulerOptions| {
        (options.max_running, options.max_queued_requests) = (1, 2);
    };
    let engine = Engine::builder().device(Device::Cpu).scheduling(limit).build().unwrap();
    let accepted: Vec<_> = (0..50).map(|_| engine.chat(&[Message::user("Who are you?")], &greedy(&[]))).collect();
    let refused = accepted.iter().filter(|one| one.is_err()).count();
    assert!(refused > 0 && refused < 50);
    let want = answer(&self::engine(), QUESTIONS[3], &greedy(&[])).ids;
    for one in accepted {
        match one {
            Ok(generation) => assert_eq!(generation.collect_all().unwrap().ids, want),
            Err(error) => assert!(matches!(error, Error::Submit(SubmitError::Busy(_))), "{error}"),
        }
    }
}

#[test]
fn log_probabilities_are_those_of_the_logits() {
    let exact = phi3_tensor::cpu::Activations::F32;
    let device_options = crate::DeviceOptions { device: Device::Cpu, activations: exact, ..Default::default() };
    let engine = Engine::builder().device_options(device_options).build().unwrap();
    let prompt: Vec<u32> = (0..40).map(|i| (i * 53 + 7) % 2000).collect();
    let options = GenerateOptions { logprobs: Some(3), prompt_logprobs: Some(2), ignore_eos: true, ..greedy(&[]) };
    let (mut of_prompt, mut of_answer, mut ids) = (Vec::new(), Vec::new(), prompt.clone());
    for event in engine.continue_ids(&prompt, &options).unwrap() {
        match event.unwrap() {
            Event::PromptLogprobs(logprobs) => of_prompt = logprobs,
            Event::Token { id, logprobs, .. } => {
                ids.push(id);
                of_answer.push(logprobs.unwrap());
            }
            _ => {}
        }
    }
    assert!(of_prompt[0].is_none() && of_prompt.len() == prompt.len() && ids.len() == prompt.len() + 40);
    let rows = ids.clone();
    let exact = crate::RopePolicy::Exact;
    let logits = engine.with_model(move |model| crate::verify::logits(model, &rows, usize::MAX, exact, None));
    let logits = logits.unwrap().unwrap();
    let vocab = engine.spec().vocab_size;
    let got = of_prompt.into_iter().flatten().chain(of_answer);
    for (i, (got, row)) in got.zip(logits.chunks_exact(vocab)).enumerate() {
        let want = crate::verify::log_probability(row, ids[i + 1]);
        assert!((got.token - want).abs() < 1e-3, "token {i}: {} instead of {want}", got.token);
        assert_eq!(got.top.len(), if i + 1 < prompt.len() { 2 } else { 3 });
        assert!(got.top.is_sorted_by(|a, b| a.1 >= b.1) && got.top[0].1 >= got.token);
    }
}

/// The text of an answer's first `tokens` tokens.
fn beginning(engine: &Engine, tokens: usize) -> String {
    answer(engine, QUESTIONS[0], &GenerateOptions { max_tokens: Some(tokens), ..greedy(&[]) }).text
}

#[test]
fn an_interrupted_answer_gives_out_what_a_stop_text_held_back() {
    let engine = engine();
    let text = beginning(&engine, 40);
    let cancel = Arc::new(AtomicBool::new(false));
    // the whole text might begin it
    let options = GenerateOptions { cancel: Some(cancel.clone()), ..greedy(&[&format!("{text}\0")]) };
    let (mut given, mut tokens) = (String::new(), 0);
    let mut generation = ask(&engine, QUESTIONS[0], &options);
    let summary = loop {
        match generation.next().unwrap().unwrap() {
            Event::Token { text, .. } => {
                tokens += 1;
                given += &text;
                cancel.store(tokens >= 5, Ordering::Relaxed);
            }
            Event::Text { text } => given += &text,
            Event::Done(summary) => break summary,
            _ => {}
        }
    };
    assert!(generation.next().is_none());
    assert_eq!(summary.usage.completion_tokens, tokens);
    assert!(tokens >= 5 && text.starts_with(&given) && !given.is_empty(), "{given:?}");
    let at_the_limit = GenerateOptions { max_tokens: Some(5), cancel: None, ..options };
    assert_eq!(answer(&engine, QUESTIONS[0], &at_the_limit).text, beginning(&engine, 5));
}

/// A model whose passes fail, by their number, from 0, and the number of pages that they need.
struct Faulty {
    model: Box<dyn Model>,
    passes: Arc<AtomicUsize>,
    fails: fn(usize, usize) -> Option<phi3_model::Error>,
}

impl Model for Faulty {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }
    fn device(&self) -> &DeviceInfo {
        self.model.device()
    }
    fn max_rows(&self) -> usize {
        self.model.max_rows()
    }
    fn max_outputs(&self) -> usize {
        self.model.max_outputs()
    }
    fn pipeline_depth(&self) -> usize {
        self.model.pipeline_depth()
    }
    fn phases_differ(&self) -> bool {
        self.model.phases_differ()
    }
    fn page_bytes(&self) -> u64 {
        self.model.page_bytes()
    }
    fn max_pages(&self) -> usize {
        self.model.max_pages()
    }
    fn reserve(&mut self, pages: usize) -> phi3_model::Result<()> {
        self.model.reserve(pages)
    }
    fn reserve_slots(&mut self, slots: usize) -> phi3_model::Result<()> {
        self.model.reserve_slots(slots)
    }
    fn copy_pages(&mut self, pairs: &[(PageId, PageId)]) -> phi3_model::Result<()> {
        self.model.copy_pages(pairs)
    }
    fn forward(&mut self, segments: &[Segment<'_>], probe: Option<&mut Probe<'_>>) -> phi3_model::Result<()> {
        let pages = segments.iter().flat_map(|segment| segment.pages).map(|page| *page as usize + 1).max().unwrap_or(0);
        if let Some(error) = (self.fails)(self.passes.fetch_add(1, Ordering::Relaxed), pages) {
            return Err(error);
        }
        self.model.forward(segments, probe)
    }
    fn sample(&mut self, samples: &Samples) -> phi3_model::Result<Readback<Sampled>> {
        self.model.sample(samples)
    }
    fn logits(&mut self, outputs: Range<usize>) -> phi3_model::Result<Readback<Vec<f32>>> {
        self.model.logits(outputs)
    }
    fn encode_image(
        &mut self,
        input: &TowerInput<'_>,
        probe: Option<&mut Probe<'_>>,
    ) -> phi3_model::Result<Arc<Features>> {
        self.model.encode_image(input, probe)
    }
}

/// An engine whose passes fail, `depth` of them in flight, and the number of times that its model was loaded.
fn faulty(depth: usize, fails: fn(usize, usize) -> Option<phi3_model::Error>) -> (Engine, Arc<AtomicUsize>) {
    let (passes, loaded) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = loaded.clone();
    let wrap = move |model| -> Box<dyn Model> {
        count.fetch_add(1, Ordering::Relaxed);
        Box::new(Faulty { model, passes: passes.clone(), fails })
    };
    let scheduling = move |options: &mut crate::scheduler::SchedulerOptions| options.pipeline_depth = depth;
    (Engine::builder().device(Device::Cpu).scheduling(scheduling).wrap_model(wrap).build().unwrap(), loaded)
}

fn lost() -> phi3_model::Error {
    phi3_tensor::Error::Lost { device: "a device".into(), message: "injected".into() }.into()
}

fn refused() -> phi3_model::Error {
    phi3_model::Error::Sequence { call: "forward", found: "no more passes", hint: "none" }
}

#[test]
fn streams_survive_a_lost_device() {
    let (engine, loaded) = faulty(1, |pass, _| matches!(pass, 5 | 12).then(lost));
    assert_eq!(ids(at_once(&engine, &greedy(&[]))), alone());
    assert_eq!(loaded.load(Ordering::Relaxed), 3);
    assert_idle(&engine);
}

#[test]
fn a_device_that_is_always_lost_ends_every_request_with_its_error() {
    let (engine, _) = faulty(1, |pass, _| (pass >= 5).then(lost));
    let all: Vec<Generation> = QUESTIONS.iter().map(|question| ask(&engine, question, &greedy(&[]))).collect();
    let mut texts = all.into_iter().map(|one| one.collect_all().unwrap_err().to_string());
    assert!(texts.all(|text| text.contains("injected")));
    assert_idle(&engine);
}

/// The error of a device with memory for nine pages.
fn full(_: usize, pages: usize) -> Option<phi3_model::Error> {
    let (device, what, detail) = ("a device".to_owned(), "a page".to_owned(), String::new());
    let source = phi3_tensor::Error::OutOfMemory { device, what, bytes: 1, detail };
    (pages > 9).then_some(phi3_model::Error::CacheMemory { needed: pages, found: 9, source })
}

#[test]
fn requests_go_on_in_the_pages_that_there_is_memory_for() {
    let want = alone();
    for depth in [1, 3] {
        let (engine, loaded) = faulty(depth, full);
        assert_eq!(ids(at_once(&engine, &greedy(&[]))), want);
        assert_eq!((loaded.load(Ordering::Relaxed), engine.stats().pages), (1, 9));
        assert_idle(&engine);
    }
    // so does a sampler of the host that has a state
    let mirostat = Some(crate::sampler::MirostatOptions::default());
    let sampling = SamplerOptions { temperature: 1.0, mirostat, seed: 5, ..SamplerOptions::default() };
    let options = GenerateOptions { sampler: Some(sampling), ..greedy(&[]) };
    let (engine, _) = faulty(3, full);
    assert_eq!(ids(at_once(&engine, &options)), ids(at_once(&self::engine(), &options)));
}

#[test]
fn a_prompt_that_there_is_no_memory_for_is_refused() {
    let (engine, _) = faulty(1, full);
    let other = ask(&engine, QUESTIONS[0], &greedy(&[]));
    let long: Vec<u32> = (0..200).map(|i| i % 2000).collect();
    // the first is refused when its pages are reserved, the second at once
    let errors = [
        engine.continue_ids(&long, &greedy(&[])).unwrap().collect_all().unwrap_err(),
        engine.continue_ids(&long, &greedy(&[])).err().unwrap(),
    ];
    for error in errors {
        let is_refused = matches!(error, Error::Submit(SubmitError::TooLarge { found: 13, limit: 9 }));
        assert!(is_refused, "{error}");
    }
    assert_eq!(other.collect_all().unwrap().ids, alone()[0]);
    assert_idle(&engine);
}

#[test]
fn an_answer_that_fails_gives_out_what_a_stop_text_held_back() {
    let (engine, _) = faulty(1, |pass, _| (pass >= 4).then(refused));
    let text = beginning(&self::engine(), 4);
    let mut events: Vec<_> = ask(&engine, QUESTIONS[0], &greedy(&[&format!("{text}\0")])).collect();
    assert!(events.pop().is_some_and(|last| matches!(last, Err(Error::Model(_)))));
    let text_of = |event: &Result<Event>| match event {
        Ok(Event::Text { text } | Event::Token { text, .. }) => text.clone(),
        _ => String::new(),
    };
    assert_eq!(events.iter().map(text_of).collect::<String>(), text);
    assert!(matches!(events.last(), Some(Ok(Event::Text { .. }))));
}

#[test]
fn handles_may_be_dropped_in_any_order() {
    let generation = ask(&engine(), QUESTIONS[1], &greedy(&[]));
    assert_eq!(generation.collect_all().unwrap().summary.finish_reason, FinishReason::Stop);
    let engine = engine();
    let other = engine.clone();
    let thread = std::thread::spawn(move || answer(&other, QUESTIONS[1], &greedy(&[])).ids);
    assert_eq!(answer(&engine, QUESTIONS[1], &greedy(&[])).ids, thread.join().unwrap());
}
