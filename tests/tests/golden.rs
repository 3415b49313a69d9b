use crate::machines::{checkpoints, data, machines_and_tiers, on};
use phi3_model::Checkpoint;
use phi3_runner::verify::{Golden, VerifyOptions, logits, verify};
use phi3_runner::{Device, DeviceOptions, RopePolicy};
use phi3_tensor::cpu::Activations;
use std::path::Path;

/// Minimum number of comparisons of a checkpoint's golden. Those of the family have fewer prompts, and one has a single
/// comparison.
fn least_checks(folder: &Path) -> usize {
    match () {
        () if folder.parent() == Some(&data("oracle/checkpoints")) => 14,
        () if folder.ends_with("phi-3-small-vocab") => 1,
        () => 3,
    }
}

/// Compares with a golden by chunks of each length.
fn check(device_options: &DeviceOptions, folder: &Path, chunks: &[usize]) {
    let tolerance = if device_options.device == Device::Cpu { 1e-4 } else { 2e-4 };
    let mut loaded = device_options.load(&Checkpoint::open(folder).unwrap(), &mut |_| {}).unwrap();
    let golden = Golden::read(folder).unwrap();
    for &chunk in chunks {
        let report = verify(&mut *loaded.model, &golden, VerifyOptions { tolerance, chunk }).unwrap();
        assert!(report.checks.len() >= least_checks(folder), "{report}");
        assert!(report.ok(), "{} on {}, chunk {chunk}\n{report}", folder.display(), loaded.reason);
    }
}

#[test]
fn prompts_whole_and_in_chunks() {
    for device_options in machines_and_tiers() {
        for folder in checkpoints() {
            check(&device_options, &folder, &[usize::MAX, 7]);
        }
    }
}

/// Whether a model has experts. Rounding can change the selected experts and so change logits by whole units, so that
/// rounding bounds do not hold. Other models test the same matrix products.
pub(crate) fn has_experts(checkpoint: &Checkpoint) -> bool {
    checkpoint.spec().most_experts() > 0
}

/// Prompts multiplied in half precision on GPUs that support it. The error is at most 0.4 % of the logits' deviation and 0.04,
/// like llama.cpp's with activations in half precision. The limit is twice that if sums of four products are in half precision
/// too (`matmul_halves.wgsl`): such a sum is twice as large as a product, and so is its rounding error.
#[test]
fn prompts_in_half_precision() {
    for exact in machines_and_tiers().into_iter().filter(|device_options| device_options.device != Device::Cpu) {
        let device_options = DeviceOptions { activations: Activations::Int8, ..exact.clone() };
        for folder in checkpoints() {
            let checkpoint = Checkpoint::open(&folder).unwrap();
            if has_experts(&checkpoint) {
                println!("skipped: {}: rounding changes the experts of a row", folder.display());
                continue;
            }
            let ids: Vec<u32> = (0..40).map(|i| (i * 53 + 7) % checkpoint.spec().vocab_size as u32).collect();
            let of = |device_options: &DeviceOptions| {
                let mut loaded = device_options.load(&checkpoint, &mut |_| {}).unwrap();
                logits(&mut *loaded.model, &ids, usize::MAX, RopePolicy::Exact, None).unwrap()
            };
            let (want, got) = (of(&exact), of(&device_options));
            let mean = want.iter().sum::<f32>() / want.len() as f32;
            let rms = |of: &dyn Fn(usize) -> f32| {
                ((0..want.len()).map(|i| of(i).powi(2)).sum::<f32>() / want.len() as f32).sqrt()
            };
            let deviation = rms(&|i| want[i] - mean);
            let off = rms(&|i| got[i] - want[i]);
            let most = want.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let (name, tier) = (folder.display(), device_options.tier.as_deref().unwrap_or("?"));
            println!("{tier} {name}: rms {:.4} of the deviation, most {most}", off / deviation);
            let times = if tier == "coop" { 1.0 } else { 2.0 };
            assert!(
                off <= 0.004 * times * deviation && most <= 0.04 * times,
                "{tier} {name}: {off} of {deviation}, {most}"
            );
        }
    }
}

#[test]
fn one_thread_and_many() {
    let folder = data("oracle/checkpoints/phi-3-medium-4k");
    for threads in [1, 5] {
        check(&DeviceOptions { threads: Some(threads), ..on(Device::Cpu) }, &folder, &[7]);
    }
}

#[test]
fn a_wrong_golden_is_noticed() {
    let folder = data("oracle/checkpoints/phi-3-mini-4k");
    let other = data("oracle/checkpoints/phi-3-medium-4k");
    let mut loaded = on(Device::Cpu).load(&Checkpoint::open(&folder).unwrap(), &mut |_| {}).unwrap();
    let options = VerifyOptions { tolerance: 1e-4, chunk: usize::MAX };
    let report = verify(&mut *loaded.model, &Golden::read(&other).unwrap(), options).unwrap();
    assert!(!report.ok() && report.to_string().contains("FAILED"));
}

/// The CPU's results are bitwise equal for every chunk size and number of threads.
#[test]
fn the_cpu_gives_the_same_bits_for_every_chunk_and_thread_count() {
    let folder = data("oracle/checkpoints/phi-4");
    let ids: Vec<u32> = (0..90).map(|i| (i * 37 + 11) % 448).collect();
    let mut all = Vec::new();
    for (threads, chunk) in [(1, 90), (2, 90), (2, 7), (3, 1), (2, 33)] {
        let device_options = DeviceOptions { threads: Some(threads), ..on(Device::Cpu) };
        let mut loaded = device_options.load(&Checkpoint::open(&folder).unwrap(), &mut |_| {}).unwrap();
        let policy = phi3_runner::RopePolicy::Exact;
        let logits = phi3_runner::verify::logits(&mut *loaded.model, &ids, chunk, policy, None).unwrap();
        all.push(logits.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    }
    assert!(all.iter().all(|bits| *bits == all[0]));
}
