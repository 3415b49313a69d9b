//! Tokens chosen on the GPU while passes are ahead of the host equal those chosen on the host.

use crate::machines::{checkpoints, data, gpu, machines_and_tiers};
use phi3_model::{Checkpoint, Decoder, DecoderOptions, Model, Outputs, RopeSet, RowInput, Segment};
use phi3_runner::text::Message;
use phi3_runner::verify::Golden;
use phi3_runner::{Completion, Engine, Event, FinishReason, GenerateOptions, SamplerOptions};
use phi3_tensor::gpu::{Gpu, Options, Select};
use phi3_tensor::{Phase, Samples};
use std::collections::VecDeque;

fn options(max_tokens: usize, ahead: Option<usize>) -> GenerateOptions {
    let sampler = Some(SamplerOptions::default());
    GenerateOptions { max_tokens: Some(max_tokens), sampler, pipeline_depth: ahead, ..GenerateOptions::default() }
}

fn without_times(answer: Completion) -> (Vec<u32>, String, FinishReason, usize) {
    let Completion { ids, text, summary } = answer;
    (ids, text, summary.finish_reason, summary.usage.completion_tokens)
}

/// Counters of the model: per token, 4 bytes are read back, in one submission of five dispatches per layer and three more.
#[test]
fn four_bytes_a_token_come_back() {
    if gpu().is_none() {
        return;
    }
    let backend = Gpu::open(&Select::Any, &Options { software: true, ..Options::default() }).unwrap();
    let checkpoint = Checkpoint::open(&data("oracle/checkpoints/phi-3-medium-4k")).unwrap();
    let mut model = Decoder::load(backend, &checkpoint, DecoderOptions::default(), &mut |_| {}).unwrap();
    model.reserve_slots(1).unwrap();
    assert_eq!(model.pipeline_depth(), 4);
    let mut steady = model.backend().counters();
    let (mut launched, mut tokens) = (VecDeque::new(), Vec::new());
    for position in 0..30 {
        let input = if position == 0 { RowInput::Input(9u32.into()) } else { RowInput::Sampled(0) };
        let (rope, outputs) = (RopeSet::Short, Outputs::Last);
        model
            .forward(
                &[Segment { inputs: &[input], phase: Phase::Decode, position, pages: &[0, 1], rope, outputs }],
                None,
            )
            .unwrap();
        launched.push_back(model.sample(&Samples::greedy(1)).unwrap());
        if launched.len() == model.pipeline_depth() {
            let before = model.backend().counters();
            tokens.extend(launched.pop_front().unwrap().wait().unwrap().tokens);
            assert_eq!(model.backend().counters().submits, before.submits);
        }
        if position == 9 {
            steady = model.backend().counters();
        }
    }
    let after = model.backend().counters();
    assert_eq!(after.submits - steady.submits, 20);
    assert_eq!(after.dispatches - steady.dispatches, 20 * (5 * 4 + 3));
    assert_eq!(after.read_bytes - steady.read_bytes, 20 * 4);
    assert_eq!(
        (after.bind_groups, after.pipelines, after.buffers),
        (steady.bind_groups, steady.pipelines, steady.buffers)
    );
    assert_eq!(tokens.len(), 27);
}

#[test]
fn the_goldens_greedy_ids_are_those_of_the_device() {
    for device_options in machines_and_tiers() {
        let mut compared = 0;
        for folder in checkpoints() {
            let golden = Golden::read(&folder).unwrap();
            let engine = Engine::builder().model(&folder).device_options(device_options.clone()).build().unwrap();
            for (prompt, want) in golden.greedy() {
                let options = GenerateOptions { ignore_eos: true, ..options(want.len(), None) };
                let answer = engine.continue_ids(prompt, &options).unwrap().collect_all().unwrap();
                assert_eq!(answer.ids, want, "{} on {}", folder.display(), engine.device());
                compared += want.len();
            }
        }
        println!("{compared} ids");
        assert!(compared > 100);
    }
}

/// Chats of several turns with the demo model: ids, text, finish reasons, and cached tokens of the next turn.
#[test]
fn talks_are_the_same_however_far_the_device_is_ahead() {
    let Some(device_options) = gpu() else { return };
    let engine = Engine::builder().device_options(device_options).build().unwrap();
    let talk = |ahead: Option<usize>| {
        let mut messages = vec![Message::user("My name is Ada.")];
        let (mut answers, mut cached) = (Vec::new(), Vec::new());
        for (question, limit) in [("What is my name?", 60), ("What is 12 + 30?", 60), ("Tell me a story.", 25)] {
            // a cache of its own for each talk
            let options = GenerateOptions { cache_salt: Some(format!("{ahead:?}")), ..options(limit, ahead) };
            let answer = engine.chat(&messages, &options).unwrap().collect_all().unwrap();
            messages.extend([Message::assistant(answer.text.clone()), Message::user(question)]);
            cached.push(answer.summary.usage.cached_tokens);
            answers.push(without_times(answer));
        }
        (answers, cached)
    };
    let (answers, cached) = talk(Some(0));
    for ahead in [Some(1), Some(3), None] {
        let again = talk(ahead);
        assert_eq!(again.0, answers, "{ahead:?} ahead");
        // an answer's stop token may be in the cache too
        assert!(again.1.iter().zip(&cached).all(|(a, b)| (*b..=b + 1).contains(a)), "{:?}, {cached:?}", again.1);
    }
}

#[test]
fn a_generation_that_is_dropped_leaves_nothing_behind() {
    let Some(device_options) = gpu() else { return };
    let engine = Engine::builder().device_options(device_options).build().unwrap();
    let question = [Message::user("Tell me a story about a brave fox.")];
    let want = engine.chat(&question, &options(40, Some(0))).unwrap().collect_all().unwrap();
    for taken in [1, 2, 5] {
        let events: Vec<Event> =
            engine.chat(&question, &options(40, None)).unwrap().take(taken).map(Result::unwrap).collect();
        assert_eq!(events.len(), taken);
        let again = engine.chat(&question, &options(40, None)).unwrap().collect_all().unwrap();
        assert_eq!((again.ids, again.text), (want.ids.clone(), want.text.clone()));
    }
}

/// With a window of few pages, discarded tokens have released no page that later tokens need.
#[test]
fn a_window_survives_tokens_in_vain() {
    let Some(device_options) = gpu() else { return };
    let folder = data("oracle/checkpoints/phi-3-mini-4k");
    let engine = Engine::builder().model(&folder).device_options(device_options).build().unwrap();
    let window = engine.spec().window().expect("a checkpoint with a window");
    let prompt: Vec<u32> = (0..window as u32 + 9).map(|i| i * 29 % 300 + 5).collect();
    for count in 1..20 {
        let run = |engine: &Engine, ahead| {
            let options = GenerateOptions { ignore_eos: true, ..options(count, ahead) };
            engine.continue_ids(&prompt, &options).unwrap().collect_all().unwrap().ids
        };
        let host = run(&engine, Some(0));
        let first = run(&engine, None);
        assert_eq!(first, host, "{count} tokens");
        // one more token follows from the cache
        let longer = [&prompt[..], &first].concat();
        let next = engine.continue_ids(&longer, &options(1, None)).unwrap().collect_all().unwrap();
        assert_eq!(next.summary.usage.cached_tokens, longer.len() - 1, "{count} tokens");
    }
}

/// The host's and the device's sampler with the same seed use the same random numbers; the device sums in single precision.
#[test]
fn a_seed_gives_on_the_device_what_it_gives_on_the_host() {
    let Some(device_options) = gpu() else { return };
    let engine = Engine::builder().device_options(device_options).build().unwrap();
    let question = [Message::user("Tell me a story about a brave fox.")];
    let mut answers = Vec::new();
    for seed in 0..6 {
        let sampler =
            SamplerOptions { temperature: 1.0, top_k: 50, top_p: 0.95, min_p: 0.01, seed, ..Default::default() };
        let ask = |ahead| {
            let options = GenerateOptions { sampler: Some(sampler.clone()), ..options(40, ahead) };
            engine.chat(&question, &options).unwrap().collect_all().unwrap().ids
        };
        let (host, device) = (ask(Some(0)), ask(None));
        assert_eq!(device, ask(None), "seed {seed} twice");
        assert_eq!(device, host, "seed {seed}");
        answers.push(device);
    }
    answers.dedup();
    assert_eq!(answers.len(), 6, "seeds differ");
}

/// A repetition penalty needs the text so far: the host gives it to the device as edits of logits.
#[test]
fn a_repetition_penalty_is_the_same_however_far_the_device_is_ahead() {
    let Some(device_options) = gpu() else { return };
    let engine = Engine::builder().device_options(device_options).build().unwrap();
    let ask = |repetition_penalty, ahead| {
        let sampler = Some(SamplerOptions { repetition_penalty, ..SamplerOptions::default() });
        let options = GenerateOptions { sampler, ignore_eos: true, ..options(40, ahead) };
        engine.complete("Once upon a time", &options).unwrap().collect_all().unwrap().ids
    };
    let penalized = ask(5.0, None);
    assert_eq!(penalized, ask(5.0, Some(0)));
    assert_ne!(penalized, ask(1.0, None));
}
