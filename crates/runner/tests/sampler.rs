//! Samplers against transformers' logits processors and llama.cpp's samplers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use phi3_model::gguf::{Metadata, Vocabulary};
use phi3_runner::SamplerOptions;
use phi3_runner::sampler::{DryBreakers, DryOptions, MirostatOptions, Sampler, SamplerKind};
use phi3_runner::text::Tokenizer;
use serde_json::Value;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

fn vectors() -> Value {
    serde_json::from_slice(&std::fs::read(data("sampler/vectors.json")).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn number(value: &Value) -> f32 {
    value.as_f64().map_or_else(|| value.as_str().unwrap().parse().unwrap(), |number| number as f32)
}

fn options(params: &Value) -> SamplerOptions {
    let get = |name: &str, other: f32| params.get(name).map_or(other, number);
    let bias = |row: &Value| (row[0].as_u64().unwrap() as u32, number(&row[1]));
    SamplerOptions {
        temperature: get("temperature", 1.0),
        dynatemp_range: get("dynatemp_range", 0.0),
        dynatemp_exponent: get("dynatemp_exponent", 1.0),
        top_k: params["top_k"].as_u64().unwrap_or(0) as usize,
        top_p: get("top_p", 1.0),
        min_p: get("min_p", 0.0),
        typical_p: get("typical_p", 1.0),
        top_n_sigma: get("top_n_sigma", 0.0),
        xtc_probability: get("xtc_probability", 0.0),
        xtc_threshold: get("xtc_threshold", 0.1),
        repetition_penalty: get("repetition_penalty", 1.0),
        presence_penalty: get("presence_penalty", 0.0),
        frequency_penalty: get("frequency_penalty", 0.0),
        logit_bias: params["logit_bias"].as_array().into_iter().flatten().map(bias).collect(),
        mirostat: params.get("mirostat").map(|m| MirostatOptions { tau: number(&m["tau"]), eta: number(&m["eta"]) }),
        samplers: match params["samplers"].as_str() {
            Some(order) => SamplerKind::order(order).unwrap(),
            None => SamplerKind::ALL.to_vec(),
        },
        ..SamplerOptions::default()
    }
}

/// Compares the tokens that can be chosen and their probabilities.
fn compare(sampler: &Sampler, past: &[u32], logits: &[f32], expected: &Value, name: &str) {
    let found = sampler.probabilities(past, 0, logits).unwrap();
    let mut processed = logits.to_vec();
    sampler.process(past, 0, &mut processed).unwrap();
    let kept: Vec<u32> = (0..).zip(&processed).filter(|(_, logit)| logit.is_finite()).map(|(id, _)| id).collect();
    assert_eq!(kept, ids(&expected["ids"]), "{name}");
    for (id, expected) in kept.iter().zip(floats(&expected["probabilities"])) {
        let found = found[*id as usize];
        assert!((found - expected).abs() <= 1e-5, "{name}: token {id}: {found} for {expected}");
    }
}

#[test]
fn distributions_are_those_of_the_references() {
    let vectors = vectors();
    let past = ids(&vectors["past"]);
    let cases = vectors["cases"].as_array().unwrap();
    for case in cases {
        let name = format!("{} {} {}", case["reference"], case["options"], case["logits"]);
        let logits = floats(&vectors["logits"][case["logits"].as_u64().unwrap() as usize]);
        let sampler = Sampler::new(options(&case["options"])).unwrap();
        compare(&sampler, &past, &logits, case, &name);
    }
    assert!(cases.len() > 60, "{}", cases.len());
}

#[test]
fn mirostat_takes_the_steps_of_the_reference() {
    let vectors = vectors();
    for case in vectors["mirostat"].as_array().unwrap() {
        let logits = floats(&vectors["logits"][case["logits"].as_u64().unwrap() as usize]);
        let mut sampler = Sampler::new(options(&case["options"])).unwrap();
        for (index, step) in case["steps"].as_array().unwrap().iter().enumerate() {
            let name = format!("{} step {index}", case["options"]);
            compare(&sampler, &[], &logits, step, &name);
            sampler.sample(&[], index, &logits).unwrap();
        }
    }
}

#[test]
fn penalties_of_dry_are_those_of_the_reference() {
    let path = data("oracle/gguf/models/phi3-window/Q4_0.gguf");
    let vocabulary = Vocabulary::read(&Metadata::open(&path).unwrap()).unwrap();
    let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
    let vectors = vectors();
    let mut penalised = 0;
    for case in vectors["dry"].as_array().unwrap() {
        let params = &case["options"];
        let texts = params["sequence_breakers"].as_array().unwrap();
        let dry = DryOptions {
            multiplier: number(&params["multiplier"]),
            base: number(&params["base"]),
            allowed_length: params["allowed_length"].as_u64().unwrap() as usize,
            penalty_last_n: params["penalty_last_n"].as_u64().map(|last| last as usize),
            sequence_breakers: texts.iter().map(|text| text.as_str().unwrap().to_owned()).collect(),
        };
        let breakers = Arc::new(DryBreakers::new(&tokenizer, &dry.sequence_breakers).unwrap());
        let sampler = Sampler::with_breakers(SamplerOptions { dry, ..Default::default() }, breakers).unwrap();
        let past = ids(&case["past"]);
        let mut logits = vec![0.0; tokenizer.vocab_size()];
        sampler.process(&past, 0, &mut logits).unwrap();
        let mut expected = vec![0.0; logits.len()];
        for row in case["penalties"].as_array().unwrap() {
            expected[row[0].as_u64().unwrap() as usize] = -number(&row[1]);
            penalised += 1;
        }
        assert_eq!(logits, expected, "{params} {past:?}");
    }
    assert!(penalised > 100, "{penalised}");
}
