use crate::machines::{machines, on};
use phi3_runner::text::Message;
use phi3_runner::{Device, Engine, FinishReason, GenerateOptions, SamplerOptions};
use serde::Deserialize;

#[derive(Deserialize)]
struct Samples {
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    messages: Option<Vec<Message>>,
    text: String,
    input_ids: Vec<u32>,
    output_ids: Vec<u32>,
    output_text: String,
    stopped: bool,
}

fn greedy(max_tokens: usize) -> GenerateOptions {
    let sampler = Some(SamplerOptions::default());
    GenerateOptions { max_tokens: Some(max_tokens), sampler, ..GenerateOptions::default() }
}

#[test]
fn samples_are_reproduced() {
    let Samples { samples } = serde_json::from_str(phi3_demo::SAMPLES).unwrap();
    assert_eq!(samples.len(), 30);
    for device_options in machines() {
        let engine = Engine::builder().device_options(device_options).build().unwrap();
        for sample in &samples {
            assert_eq!(engine.tokenizer().unwrap().encode(&sample.text, true).unwrap(), sample.input_ids);
            let generation = match &sample.messages {
                Some(messages) => {
                    assert_eq!(engine.render(messages, true).unwrap(), sample.text);
                    engine.chat(messages, &greedy(120))
                }
                None => engine.complete(&sample.text, &greedy(120)),
            };
            let answer = generation.unwrap().collect_all().unwrap();
            assert_eq!(answer.ids, sample.output_ids, "{}", sample.text);
            assert_eq!(answer.text, sample.output_text);
            assert_eq!(answer.summary.finish_reason == FinishReason::Stop, sample.stopped);
        }
    }
}

#[test]
fn a_chat_reuses_what_it_has_computed_and_answers_as_if_it_had_not() {
    for device_options in machines() {
        let engine = Engine::builder().device_options(device_options.clone()).build().unwrap();
        let mut messages = vec![Message::user("My name is Ada.")];
        for question in ["What is my name?", "What is 12 + 30?"] {
            let answer = engine.chat(&messages, &greedy(60)).unwrap().collect_all().unwrap();
            messages.extend([Message::assistant(answer.text), Message::user(question)]);
        }
        let again = engine.chat(&messages, &greedy(60)).unwrap().collect_all().unwrap();
        let usage = again.summary.usage;
        assert!(usage.cached_tokens * 2 > usage.prompt_tokens, "{usage:?}");

        let fresh = Engine::builder().device_options(device_options).build().unwrap();
        let alone = fresh.chat(&messages, &greedy(60)).unwrap().collect_all().unwrap();
        assert_eq!(alone.summary.usage.cached_tokens, 0);
        assert_eq!((alone.ids, alone.text), (again.ids, again.text));
    }
}

#[test]
fn a_seed_repeats_an_answer_and_another_does_not() {
    let engine = Engine::builder().device_options(on(Device::Cpu)).build().unwrap();
    let question = [Message::user("Tell me a story about a brave fox.")];
    let ask = |seed| {
        let sampler = SamplerOptions { seed, ..engine.sampler_defaults() };
        assert_eq!((sampler.temperature, sampler.top_p), (0.8, 0.95));
        let options = GenerateOptions { sampler: Some(sampler), ..greedy(80) };
        let answer = engine.chat(&question, &options).unwrap().collect_all().unwrap();
        assert_eq!(answer.summary.seed, Some(seed));
        answer.ids
    };
    let first = ask(7);
    assert_eq!(first, ask(7));
    assert_ne!(first, ask(8));
}

#[test]
fn an_interrupted_answer_goes_on_where_it_stopped() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let engine = Engine::builder().device_options(on(Device::Cpu)).build().unwrap();
    let question = [Message::user("Tell me a story about a brave fox.")];
    let whole = engine.chat(&question, &greedy(40)).unwrap().collect_all().unwrap();

    // far more tokens than the engine is ahead of its reader
    let options = GenerateOptions { cancel: Some(stop.clone()), ignore_eos: true, ..greedy(1000) };
    let mut ids = Vec::new();
    for event in engine.chat(&question, &options).unwrap() {
        match event.unwrap() {
            phi3_runner::Event::Token { id, .. } => {
                ids.push(id);
                stop.store(ids.len() >= 5, Ordering::Relaxed);
            }
            phi3_runner::Event::Done(summary) => assert_eq!(summary.finish_reason, FinishReason::Interrupted),
            _ => {}
        }
    }
    let both = ids.len().min(whole.ids.len());
    assert!(both >= 5 && ids[..both] == whole.ids[..both]);
    let after = engine.chat(&question, &greedy(40)).unwrap().collect_all().unwrap();
    assert_eq!(after.ids, whole.ids);
}
