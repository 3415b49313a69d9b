use phi3_runner::{Device, DeviceOptions};
use phi3_tensor::cpu::Activations;
use phi3_tensor::gpu::{Gpu, Options, Select, Tier};
use std::path::PathBuf;
use std::sync::OnceLock;

/// Setups for the tests: the CPU, and a GPU if there is one (software adapters included). PHI3_ADAPTER selects one of several.
///
/// Without an adapter, the reason is printed; with PHI3_GPU=require, the test fails.
pub(crate) fn machines() -> Vec<DeviceOptions> {
    let mut machines = vec![on(Device::Cpu)];
    machines.extend(gpu());
    machines
}

/// Like [`machines`], with the GPU at every supported kernel tier; unsupported ones are printed. PHI3_TIER restricts the tests
/// to one tier.
pub(crate) fn machines_and_tiers() -> Vec<DeviceOptions> {
    let only = std::env::var("PHI3_TIER").ok();
    let mut machines = if only.is_some() { Vec::new() } else { vec![on(Device::Cpu)] };
    let Some(gpu) = gpu() else { return machines };
    for tier in phi3_runner::TIERS.into_iter().filter(|tier| only.as_ref().is_none_or(|only| only == tier)) {
        let device_options = DeviceOptions { tier: Some(tier.to_owned()), ..gpu.clone() };
        let options = Options { software: true, tier: Tier::from_name(tier), ..Options::default() };
        let select = std::env::var("PHI3_ADAPTER").map_or(Select::Any, Select::Name);
        match Gpu::open(&select, &options) {
            Ok(_) => machines.push(device_options),
            Err(error @ phi3_tensor::Error::Tier { .. }) if only.is_none() => println!("skipped: {error}"),
            Err(error) => panic!("{error}"),
        }
    }
    machines
}

/// The GPU, if there is one.
pub(crate) fn gpu() -> Option<DeviceOptions> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    match MISSING.get_or_init(|| phi3_tensor::gpu::adapters().err().map(|error| error.to_string())) {
        None => Some(on(std::env::var("PHI3_ADAPTER").map_or(Device::Gpu, Device::Name))),
        Some(reason) if std::env::var("PHI3_GPU").as_deref() == Ok("require") => panic!("{reason}"),
        Some(reason) => {
            println!("skipped on the GPU: {reason}");
            None
        }
    }
}

/// The most exact options of a device.
pub(crate) fn on(device: Device) -> DeviceOptions {
    DeviceOptions { device, activations: Activations::F32, ..DeviceOptions::default() }
}

/// A path under `tests/data`.
pub(crate) fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// The oracle's checkpoints.
pub(crate) fn checkpoints() -> Vec<PathBuf> {
    let folders = ["oracle/checkpoints", "oracle/family/checkpoints", "oracle/family/names"];
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(data(folder)).unwrap());
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    assert!(all.len() >= 18, "{}", all.len());
    all
}
