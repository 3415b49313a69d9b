//! Texts that are held back, and answers that end early.

use super::*;
use crate::Device;
use crate::text::Message;
use phi3_model::{Model, ModelSpec, Probe, Sequence, SequenceRows};
use phi3_tensor::{DeviceInfo, Sampling};

fn engine() -> Engine {
    Engine::builder().device(Device::Cpu).build().unwrap()
}

fn greedy(stop: &[&str]) -> GenerateOptions {
    let stop = stop.iter().map(|text| (*text).to_owned()).collect();
    GenerateOptions { sampler: Some(SamplerOptions::default()), max_tokens: Some(20), stop, ..Default::default() }
}

fn question() -> [Message; 1] {
    [Message::user("Tell me a story about a brave fox.")]
}

/// The text of an answer's first `tokens` tokens.
fn beginning(engine: &mut Engine, tokens: usize) -> String {
    let options = GenerateOptions { max_tokens: Some(tokens), ..greedy(&[]) };
    engine.chat(&question(), &options).unwrap().collect_all().unwrap().text
}

#[test]
fn an_interrupted_answer_gives_out_what_a_stop_text_held_back() {
    let mut engine = engine();
    let text = beginning(&mut engine, 5);
    let cancel = Arc::new(AtomicBool::new(false));
    // the whole text might begin it
    let options = GenerateOptions { cancel: Some(cancel.clone()), ..greedy(&[&format!("{text}\0")]) };
    let (mut given, mut tokens) = (String::new(), 0);
    let mut generation = engine.chat(&question(), &options).unwrap();
    let summary = loop {
        match generation.next().unwrap().unwrap() {
            Event::Token { text, .. } => {
                tokens += 1;
                assert_eq!(text, "");
                cancel.store(tokens == 5, Ordering::Relaxed);
            }
            Event::Text { text } => given += &text,
            Event::Done(summary) => break summary,
            Event::RopeSwitch { .. } => {}
        }
    };
    assert!(generation.next().is_none());
    assert_eq!((summary.finish_reason, summary.usage.completion_tokens), (FinishReason::Interrupted, 5));
    assert_eq!(given, text);
    let at_the_limit = GenerateOptions { max_tokens: Some(5), cancel: None, ..options };
    assert_eq!(engine.chat(&question(), &at_the_limit).unwrap().collect_all().unwrap().text, text);
}

/// A model that fails after some passes.
struct Failing {
    model: Box<dyn Model>,
    passes: usize,
}

impl Model for Failing {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }
    fn device(&self) -> &DeviceInfo {
        self.model.device()
    }
    fn max_rows(&self) -> usize {
        self.model.max_rows()
    }
    fn sequence(&self) -> Sequence {
        self.model.sequence()
    }
    fn owns(&self, sequence: &Sequence) -> bool {
        self.model.owns(sequence)
    }
    fn cache_bytes(&self) -> u64 {
        self.model.cache_bytes()
    }
    fn prepare(&mut self, sequence: &Sequence, tokens: usize) -> phi3_model::Result<()> {
        self.model.prepare(sequence, tokens)
    }
    fn forward(
        &mut self,
        parts: &mut [SequenceRows<'_>],
        logits: &mut Vec<f32>,
        probe: Option<&mut Probe<'_>>,
    ) -> phi3_model::Result<()> {
        let failure = || phi3_model::Error::Sequence { call: "forward", found: "no more passes", hint: "none" };
        self.passes = self.passes.checked_sub(1).ok_or_else(failure)?;
        self.model.forward(parts, logits, probe)
    }
    fn encode_image(
        &mut self,
        input: &phi3_model::TowerInput<'_>,
        probe: Option<&mut Probe<'_>>,
    ) -> phi3_model::Result<std::sync::Arc<phi3_model::Features>> {
        self.model.encode_image(input, probe)
    }
    fn pipeline_depth(&self) -> usize {
        0
    }
    fn in_flight(&self) -> usize {
        0
    }
    fn submit(&mut self, sequence: &mut Sequence, token: Option<u32>, sampling: Sampling) -> phi3_model::Result<()> {
        self.model.submit(sequence, token, sampling)
    }
    fn wait(&mut self, sequence: &mut Sequence) -> phi3_model::Result<u32> {
        self.model.wait(sequence)
    }
    fn discard(&mut self) -> phi3_model::Result<()> {
        self.model.discard()
    }
}

#[test]
fn an_answer_that_fails_gives_out_what_a_stop_text_held_back() {
    let mut engine = engine();
    let text = beginning(&mut engine, 4);
    engine.model = Box::new(Failing { model: self::engine().model, passes: 4 });
    engine.sequence = engine.model.sequence();
    let mut events: Vec<_> = engine.chat(&question(), &greedy(&[&format!("{text}\0")])).unwrap().collect();
    assert!(events.pop().is_some_and(|last| matches!(last, Err(Error::Model(_)))));
    let text_of = |event: &Result<Event>| match event {
        Ok(Event::Text { text } | Event::Token { text, .. }) => text.clone(),
        _ => String::new(),
    };
    assert_eq!(events.iter().map(text_of).collect::<String>(), text);
    assert!(matches!(events.last(), Some(Ok(Event::Text { .. }))));
}
