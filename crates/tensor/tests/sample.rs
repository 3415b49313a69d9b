//! Tokens that CPU and GPU sample, against the definition in `reference.rs`.
//!
//! Without an adapter the tests print a line and pass, unless PHI3_GPU=require is set.
#![cfg(feature = "gpu")]

use phi3_tensor::cpu::Cpu;
use phi3_tensor::gpu::{Gpu, Options, Select};
use phi3_tensor::ops::*;
use phi3_tensor::parity::Random;
use phi3_tensor::{Batch, Bytes, DType, Epilogue, Error, LogitEdit, Role, Samples, Sampling, Weight};
use std::collections::VecDeque;

fn open() -> Option<Gpu> {
    let select = std::env::var("PHI3_ADAPTER").map_or(Select::Any, Select::Name);
    match Gpu::open(&select, &Options { software: true, ..Options::default() }) {
        Ok(gpu) => Some(gpu),
        Err(error @ Error::NoAdapter { .. }) if std::env::var("PHI3_GPU").as_deref() != Ok("require") => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn batch(tokens: &[u32]) -> Batch {
    let mut batch = Batch::default();
    for (page, token) in tokens.iter().enumerate() {
        batch.push(&[*token], 0, &[page as u32]).unwrap();
    }
    batch
}

/// A matrix in single precision.
fn matrix<B: Device>(b: &mut B, values: &[f32], cols: usize) -> B::Matrix {
    let bytes = Bytes::from(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    let weight = Weight::new("table", DType::F32, values.len() / cols, cols, bytes).unwrap();
    b.matrix(&weight, Role::Plain).unwrap()
}

/// Tokens that a backend samples from rows of logits, which are a table whose rows are embedded.
fn sampled<B: Backend>(b: &mut B, logits: &[Vec<f32>], samplings: &[Sampling]) -> Vec<u32> {
    let vocab = logits[0].len();
    let table = matrix(b, &logits.concat(), vocab);
    let mut x = b.rows("logits", logits.len(), vocab).unwrap();
    b.reserve_slots(logits.len()).unwrap();
    b.begin(&batch(&(0..logits.len() as u32).collect::<Vec<_>>())).unwrap();
    b.embed(&table, 1.0, &mut x).unwrap();
    b.sample(&mut x, &Samples::of(samplings)).unwrap().wait().unwrap().tokens
}

fn cpu() -> Cpu {
    Cpu::new(Default::default()).unwrap()
}

#[test]
fn greedy_takes_the_first_of_the_largest_logits() {
    greedy(&mut cpu());
    open().iter_mut().for_each(greedy);
}

fn greedy<B: Backend>(b: &mut B) {
    let mut random = Random(5);
    for vocab in [1usize, 2, 255, 256, 257, 1000, 4099] {
        let mut rows: Vec<Vec<f32>> = (0..6).map(|_| random.vector(vocab, 9.0)).collect();
        rows[1].fill(-3.0);
        rows[2].iter_mut().for_each(|v| *v = v.round());
        rows[3].fill(f32::MIN);
        rows[4].iter_mut().enumerate().for_each(|(i, v)| *v = if i % 2 == 0 { -0.0 } else { 0.0 });
        rows[5][vocab / 2] = f32::MAX;
        let got = sampled(b, &rows, &[Sampling::Greedy; 6]);
        let want: Vec<u32> = rows.iter().map(|row| Sampling::Greedy.reference(row)).collect();
        assert_eq!(got, want, "vocabulary {vocab}");
    }
}

#[test]
fn no_token_is_sampled_where_a_logit_is_not_finite() {
    not_finite(&mut cpu());
    open().iter_mut().for_each(not_finite);
}

fn not_finite<B: Backend>(b: &mut B) {
    let random = Sampling::Random { temperature: 0.7, top_k: 3, top_p: 0.9, min_p: 0.1, draw: 1 << 30 };
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut rows: Vec<Vec<f32>> = (0..3).map(|_| Random(1).vector(300, 9.0)).collect();
        rows[1][299] = bad;
        for sampling in [Sampling::Greedy, random] {
            let got = sampled(b, &rows, &[sampling; 3]);
            assert_eq!(got[1], Batch::NO_TOKEN, "{bad} {sampling:?}");
            assert!(got[0] < 300 && got[2] < 300, "{got:?}");
        }
    }
}

/// The tokens that exact arithmetic gives for numbers that differ by rounding.
fn allowed(logits: &[f32], sampling: Sampling) -> Vec<u32> {
    let Sampling::Random { temperature, top_k, top_p, min_p, draw } = sampling else {
        return vec![sampling.reference(logits)];
    };
    let near = |value: f32, least: f32| {
        [0.0, -1e-5, 1e-5]
            .map(|step| if value == 0.0 || value == 1.0 { value } else { (value + step).clamp(least, 1.0) })
    };
    let mut tokens = Vec::new();
    for top_p in near(top_p, 1e-9) {
        for min_p in near(min_p, 0.0) {
            for draw in [draw, draw.saturating_sub(40_000), draw.saturating_add(40_000)] {
                tokens.push(Sampling::Random { temperature, top_k, top_p, min_p, draw }.reference(logits));
            }
        }
    }
    tokens
}

#[test]
fn random_tokens_are_as_defined() {
    random_tokens(&mut cpu());
    open().iter_mut().for_each(random_tokens);
}

fn random_tokens<B: Backend>(b: &mut B) {
    let mut random = Random(77);
    let (mut exact, mut all) = (0, 0);
    for vocab in [1usize, 3, 256, 777, 4099] {
        for (temperature, top_k, top_p, min_p) in [
            (1.0, 0, 1.0, 0.0),
            (0.8, 0, 0.95, 0.0),
            (0.8, 40, 1.0, 0.0),
            (1.3, 5, 0.5, 0.0),
            (0.7, 0, 1.0, 0.05),
            (2.5, 100, 0.9, 0.02),
            (1.0, 1, 1.0, 0.0),
            (1.0, 0, 1e-9, 0.0),
            (1.0, 0, 1.0, 1.0),
            (1e-30, 0, 0.9, 0.0),
            (1e30, 0, 1.0, 0.0),
        ] {
            let rows: Vec<Vec<f32>> = (0..8)
                .map(|row| {
                    let mut logits = random.vector(vocab, 8.0);
                    if row % 4 == 3 {
                        // many equal logits
                        logits.iter_mut().for_each(|v| *v = v.round());
                    }
                    logits
                })
                .collect();
            let samplings: Vec<Sampling> = (0..8)
                .map(|row| {
                    let draw = match row {
                        0 => 0,
                        1 => u32::MAX,
                        _ => (random.bits() >> 32) as u32,
                    };
                    Sampling::Random { temperature, top_k, top_p, min_p, draw }
                })
                .collect();
            let got = sampled(b, &rows, &samplings);
            for ((row, sampling), got) in rows.iter().zip(&samplings).zip(got) {
                let allowed = allowed(row, *sampling);
                assert!(allowed.contains(&got), "{got}, expected {allowed:?}: vocabulary {vocab}, {sampling:?}");
                exact += usize::from(allowed[0] == got);
                all += 1;
            }
        }
    }
    println!("{exact} of {all} tokens are those of exact arithmetic");
    assert!(exact * 100 >= all * 98, "{exact} of {all}");
}

/// Draws from a grid give every token in proportion to its probability.
#[test]
fn shares_are_those_of_the_probabilities() {
    shares(&mut cpu());
    open().iter_mut().for_each(shares);
}

fn shares<B: Backend>(b: &mut B) {
    let logits = vec![0.0, 1.0, -1.0, 0.5, 1.0, -20.0, 0.25];
    let draws = 1024u32;
    let mut counts = [0u32; 7];
    for base in (0..draws).step_by(64) {
        let samplings: Vec<Sampling> = (base..base + 64)
            .map(|i| {
                let draw = i * (u32::MAX / draws) + 7;
                Sampling::Random { temperature: 0.9, top_k: 0, top_p: 1.0, min_p: 0.0, draw }
            })
            .collect();
        for token in sampled(b, &vec![logits.clone(); 64], &samplings) {
            counts[token as usize] += 1;
        }
    }
    let weights: Vec<f64> = logits.iter().map(|l| (f64::from(*l) / 0.9).exp()).collect();
    let sum: f64 = weights.iter().sum();
    for (count, weight) in counts.iter().zip(weights) {
        assert!((f64::from(*count) - f64::from(draws) * weight / sum).abs() < 2.0, "{counts:?}");
    }
}

/// A walk in which token i is always followed by token `next[i]`, several passes ahead of the host: the table is one-hot, the
/// head a permutation.
#[test]
fn tokens_stay_on_the_device_while_passes_are_ahead() {
    let Some(mut gpu) = open() else { return };
    let vocab = 40;
    let next: Vec<usize> = (0..vocab).map(|i| (i * 7 + 3) % vocab).collect();
    let one_hot = |column: &dyn Fn(usize) -> usize| {
        let mut values = vec![0.0; vocab * vocab];
        (0..vocab).for_each(|row| values[row * vocab + column(row)] = 1.0);
        values
    };
    let table = matrix(&mut gpu, &one_hot(&|row| row), vocab);
    let before = |row: usize| next.iter().position(|&to| to == row).unwrap();
    let head = matrix(&mut gpu, &one_hot(&before), vocab);
    let mut x = gpu.rows("x", 2, vocab).unwrap();
    let mut logits = gpu.rows("logits", 2, vocab).unwrap();
    assert_eq!(gpu.pipeline_depth(), 4);
    gpu.reserve_slots(2).unwrap();
    let mut steady = gpu.counters();
    let mut launch = |gpu: &mut Gpu, tokens: &[u32]| {
        gpu.begin(&batch(tokens)).unwrap();
        gpu.embed(&table, 1.0, &mut x).unwrap();
        gpu.project(&x, None, &head, Epilogue::OVERWRITE, &mut logits).unwrap();
        gpu.sample(&mut logits, &Samples::greedy(2)).unwrap()
    };
    let mut launched = VecDeque::from([launch(&mut gpu, &[5, 11])]);
    let mut want = [5, 11];
    for step in 0..50 {
        while launched.len() < gpu.pipeline_depth() {
            // the two rows change places, and so do their slots
            let counted = gpu.counters();
            launched.push_back(launch(&mut gpu, &[Batch::SAMPLED + 1, Batch::SAMPLED]));
            assert_eq!(gpu.counters().read_bytes - counted.read_bytes, 8);
        }
        let tokens: [u32; 2] = launched.pop_front().unwrap().wait().unwrap().tokens.try_into().unwrap();
        want = want.map(|token| next[token]);
        assert_eq!(tokens.map(|token| token as usize), want, "step {step}");
        want.reverse();
        if step == 10 {
            steady = gpu.counters();
        }
    }
    let after = gpu.counters();
    assert_eq!(after.submits - steady.submits, 39);
    assert_eq!((after.bind_groups, after.buffers), (steady.bind_groups, steady.buffers));

    // there is no third slot
    gpu.begin(&batch(&[Batch::SAMPLED + 2])).unwrap();
    let mut out = gpu.rows("x", 1, vocab).unwrap();
    let table = matrix(&mut gpu, &vec![0.0; vocab * vocab], vocab);
    assert!(matches!(gpu.embed(&table, 1.0, &mut out), Err(Error::Mismatch { op: "embed", .. })));
}

#[test]
fn what_does_not_exist_is_refused() {
    let mut cpu = cpu();
    let mut logits = cpu.rows("logits", 2, 40).unwrap();
    let refused = |cpu: &mut Cpu, logits: &mut <Cpu as Device>::Rows, samples: &Samples, what: &str| {
        let error = cpu.sample(logits, samples).map(drop).unwrap_err();
        assert!(matches!(error, Error::Mismatch { op: "sample", what: found, .. } if found == what), "{error}");
    };
    refused(&mut cpu, &mut logits, &Samples::greedy(1), "slot");
    cpu.reserve_slots(3).unwrap();
    refused(&mut cpu, &mut logits, &Samples::greedy(3), "row");
    refused(&mut cpu, &mut logits, &Samples::of(&[Sampling::Given(40)]), "token");
    let changed = |change: &dyn Fn(&mut Samples)| {
        let mut samples = Samples::greedy(2);
        change(&mut samples);
        samples
    };
    refused(&mut cpu, &mut logits, &changed(&|s| s.rows[1].mask = Some(0)), "mask");
    refused(&mut cpu, &mut logits, &changed(&|s| s.masks = vec![1]), "words of masks");
    refused(&mut cpu, &mut logits, &changed(&|s| s.rows[0].edits = 0..1), "edits");
    let edit = LogitEdit { token: 40, bias: 0.0, penalty: 1.0, offset: 0.0 };
    refused(&mut cpu, &mut logits, &changed(&|s| (s.edits, s.rows[0].edits) = (vec![edit], 0..1)), "token");
    assert_eq!(cpu.sample(&mut logits, &Samples::greedy(2)).unwrap().wait().unwrap().tokens, [0, 0]);
}
