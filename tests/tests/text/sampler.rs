//! Samplers against transformers' logits processors.

use std::collections::BTreeMap;

use phi3_runner::sampler::{Sampler, SamplerOptions};
use safetensors::SafeTensors;
use serde_json::Value;

use super::data::{json, path};

fn floats(tensors: &SafeTensors, name: &str) -> Vec<f32> {
    let bytes = tensors.tensor(name).unwrap().data();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn options(params: &Value) -> SamplerOptions {
    let number = |name: &str, other: f32| params[name].as_f64().map_or(other, |value| value as f32);
    SamplerOptions {
        temperature: number("temperature", 1.0),
        top_k: params["top_k"].as_u64().unwrap_or(0) as usize,
        top_p: number("top_p", 1.0),
        min_p: number("min_p", 0.0),
        repetition_penalty: number("repetition_penalty", 1.0),
        ..SamplerOptions::default()
    }
}

#[test]
fn all_cases() {
    let bytes = std::fs::read(path("oracle/ops/ops.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let cases: BTreeMap<String, Value> = json("oracle/ops/ops.json");
    let mut count = 0;
    for (name, params) in cases.iter().filter(|(name, _)| name.starts_with("sample_")) {
        count += 1;
        let get = |part: &str| floats(&tensors, &format!("{name}.{part}"));
        let (logits, processed, probs) = (get("logits"), get("processed"), get("probs"));
        let kept = tensors.tensor(&format!("{name}.kept")).unwrap().data();
        let past: Vec<u32> = get("past_ids").into_iter().map(f32::to_bits).collect();
        let rows = tensors.tensor(&format!("{name}.logits")).unwrap().shape()[0];
        let (width, past_width) = (logits.len() / rows, past.len() / rows);
        let sampler = Sampler::new(options(params)).unwrap();
        for row in 0..rows {
            let past = &past[row * past_width..][..past_width];
            let mut found = logits[row * width..][..width].to_vec();
            let probabilities = sampler.probabilities(past, 0, &found).unwrap();
            sampler.process(past, 0, &mut found).unwrap();
            for i in 0..width {
                let at = row * width + i;
                assert_eq!(found[i].is_finite(), kept[at] != 0, "{name}: row {row}, token {i}");
                if kept[at] != 0 {
                    let bound = 4.0 * f32::EPSILON * processed[at].abs();
                    assert!((found[i] - processed[at]).abs() <= bound, "{name}: {} {}", found[i], processed[at]);
                }
                assert!((probabilities[i] - probs[at]).abs() <= 1e-5, "{name}: {} {}", probabilities[i], probs[at]);
            }
        }
    }
    assert_eq!(count, 11);
}
