//! Answers of the demo model.
#![cfg(feature = "demo")]

use phi3_runner::constraint::ConstraintError;
use phi3_runner::text::Message;
use phi3_runner::{Completion, Device, Engine, Error, FinishReason, GenerateOptions, Grammar, SamplerOptions};
use serde_json::{Value, json};

fn engine() -> Engine {
    Engine::builder().device(Device::Cpu).build().unwrap()
}

fn options(grammar: Grammar, temperature: f32, seed: u64) -> GenerateOptions {
    let sampler = Some(SamplerOptions { temperature, seed, ..SamplerOptions::default() });
    GenerateOptions { sampler, max_tokens: Some(200), grammar: Some(grammar), ..Default::default() }
}

fn ask(engine: &Engine, options: &GenerateOptions) -> Result<Completion, Error> {
    engine.chat(&[Message::user("Tell me a story about a brave fox.")], options)?.collect_all()
}

#[test]
fn answers_match_at_every_temperature() {
    let engine = engine();
    let value = json!({
        "type": "object",
        "properties": {"animal": {"enum": ["fox", "owl"]}, "age": {"type": "integer", "minimum": 1, "maximum": 99}, "words": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3}},
        "required": ["animal", "age", "words"],
        "additionalProperties": false,
    });
    let validator = jsonschema::validator_for(&value).unwrap();
    for (temperature, seed) in [(0.0, 0), (1.0, 1), (1.0, 2), (1.0, 3), (2.0, 4)] {
        let options = options(Grammar::JsonSchema(value.clone()), temperature, seed);
        let answer = ask(&engine, &options).unwrap();
        assert_eq!(answer.summary.finish_reason, FinishReason::Stop, "{answer:?}");
        let found: Value = serde_json::from_str(&answer.text).unwrap();
        assert!(validator.is_valid(&found), "{}", answer.text);
        assert_eq!(ask(&engine, &options).unwrap().ids, answer.ids);
    }
    let yes_or_no = options(Grammar::Regex("yes|no".into()), 1.0, 7);
    let answer = ask(&engine, &yes_or_no).unwrap();
    assert!(["yes", "no"].contains(&answer.text.as_str()), "{answer:?}");
    // the stop token is the last
    let last = *answer.ids.last().unwrap();
    assert!(engine.generation_config().eos_token_id.contains(&last) || engine.tokenizer().unwrap().is_special(last));
}

#[test]
fn samplers_see_the_allowed_tokens_only() {
    let engine = engine();
    let grammar = Grammar::Regex("[0-9]{30}".into());
    let sampler = SamplerOptions { temperature: 1.0, top_k: 1, repetition_penalty: 1.3, ..SamplerOptions::default() };
    let options = GenerateOptions { sampler: Some(sampler), ..options(grammar, 1.0, 0) };
    let answer = ask(&engine, &options).unwrap();
    assert!(answer.text.len() == 30 && answer.text.bytes().all(|byte| byte.is_ascii_digit()), "{answer:?}");
    let short = GenerateOptions { max_tokens: Some(3), ..options };
    let cut = ask(&engine, &short).unwrap();
    assert_eq!(cut.summary.finish_reason, FinishReason::Length);
    assert!(answer.text.starts_with(&cut.text));
}

#[test]
fn a_grammar_is_refused_before_anything_is_computed() {
    let engine = engine();
    let refused = options(Grammar::JsonSchema(json!({"uniqueItems": true})), 0.0, 0);
    let error = ask(&engine, &refused).unwrap_err();
    assert!(
        matches!(&error, Error::Constraint(ConstraintError::Refused { reason, .. }) if reason.contains("uniqueItems"))
    );
    let endless = GenerateOptions { ignore_eos: true, ..options(Grammar::JsonObject, 0.0, 0) };
    let error = ask(&engine, &endless).unwrap_err();
    assert!(matches!(error, Error::Constraint(ConstraintError::NoStopToken)), "{error}");
    // without a grammar, the engine answers as before
    assert!(!ask(&engine, &GenerateOptions { max_tokens: Some(5), ..Default::default() }).unwrap().text.is_empty());
}
