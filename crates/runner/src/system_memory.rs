//! Memory of this computer, and whether a model fits into it.

use crate::{DeviceOptions, Error, Result};
use phi3_model::{Checkpoint, Plan, QuantScheme};
use phi3_tensor::cpu::Repack;
use phi3_tensor::{DeviceInfo, DeviceKind, KvType};
use std::fmt;

/// Types to suggest, finest first.
const SMALLER: [&str; 6] = ["q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k_m"];

/// Available memory of a device in bytes, where the system reports it: on Linux, the smaller of `MemAvailable` and the remainder
/// of the process's cgroup, for the CPU and for GPU drivers that compute on it. `None` for a GPU: wgpu does not report its memory.
pub fn available(device: &DeviceInfo) -> Option<u64> {
    let ours = matches!(device.kind, DeviceKind::Cpu | DeviceKind::SoftwareGpu);
    ours.then(of_computer).flatten()
}

/// Available host memory in bytes, where the system reports it.
pub(crate) fn of_computer() -> Option<u64> {
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let bytes = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)?;
    Some(group().map_or(bytes, |group| group.min(bytes)))
}

/// Remaining memory of the process's cgroup (v2) in bytes; pages of files count as free.
fn group() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = std::path::Path::new("/sys/fs/cgroup").join(path);
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let stat = read("memory.stat")?;
    let files = stat.lines().find_map(|line| line.strip_prefix("file ")?.parse::<u64>().ok())?;
    Some((number("memory.max")? + files).saturating_sub(number("memory.current")?))
}

/// Bytes that need memory of their own: all but mapped weights, which the system can reclaim.
pub(crate) fn needed(plan: &Plan) -> u64 {
    plan.weights - plan.mapped + plan.scratch + plan.cache_per_token
}

/// Whether a model would fill the available memory: nine tenths of it or more. The rest is for the system's cache of files, other
/// programs and the growing KV cache.
pub(crate) fn is_tight(plan: &Plan, device: &DeviceInfo) -> bool {
    available(device).is_some_and(|available| fills(needed(plan), available))
}

fn fills(needed: u64, available: u64) -> bool {
    needed >= available / 10 * 9
}

/// Checks that a model fits into memory; the error has the sizes.
pub(crate) fn check(
    device_options: &DeviceOptions,
    checkpoint: &Checkpoint,
    plan: &Plan,
    device: &DeviceInfo,
) -> Result<()> {
    match available(device) {
        Some(available) if !device_options.force => check_against(device_options, checkpoint, plan, device, available),
        _ => Ok(()),
    }
}

fn check_against(
    device_options: &DeviceOptions,
    checkpoint: &Checkpoint,
    plan: &Plan,
    device: &DeviceInfo,
    available: u64,
) -> Result<()> {
    if needed(plan) <= available {
        return Ok(());
    }
    Err(Error::TooLarge {
        device: device.to_string(),
        weights: plan.weights - plan.mapped,
        scratch: plan.scratch,
        available,
        instead: smaller(device_options, checkpoint, |_, plan| self::needed(plan) <= available)?,
    })
}

/// Changes of settings that take less memory; absent ones stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Smaller {
    /// When quantized weights are interleaved.
    pub pack: Option<Repack>,
    /// Type of plain weights.
    pub quant: Option<QuantScheme>,
    /// Type of the cached keys and values.
    pub kv: Option<KvType>,
    /// Length of the sequence, in tokens.
    pub context: Option<usize>,
}

impl Smaller {
    /// Device options with these settings.
    fn apply(self, device_options: &DeviceOptions) -> DeviceOptions {
        let Self { pack, quant, kv, context: _ } = self;
        let device_options = device_options.clone();
        DeviceOptions {
            pack: pack.unwrap_or(device_options.pack),
            quant: quant.or(device_options.quant),
            kv: kv.or(device_options.kv),
            ..device_options
        }
    }

    pub(crate) fn hint(found: Option<&Self>) -> String {
        found.map_or_else(|| "nothing smaller would fit either".into(), |smaller| format!("{smaller} would fit"))
    }
}

impl fmt::Display for Smaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pack, quant, kv, context } = self;
        let parts = [
            pack.map(|pack| match pack {
                Repack::InBackground | Repack::AtLoad => "interleaved weights".to_owned(),
                Repack::Never => "weights left in the file's mapping".to_owned(),
            }),
            quant.map(|quant| format!("weights of type {quant}")),
            kv.map(|kv| format!("a cache of type {kv}")),
            context.map(|context| format!("{context} tokens")),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(" with "))
    }
}

/// The first settings that fit: mapped weights, then other types of the KV cache, then weight types from fine to coarse. `None` if
/// nothing fits.
fn smaller(
    device_options: &DeviceOptions,
    checkpoint: &Checkpoint,
    fits: impl Fn(&DeviceOptions, &Plan) -> bool,
) -> Result<Option<Smaller>> {
    let none = Smaller::default();
    let mut tries = vec![];
    if device_options.pack != Repack::Never {
        tries.push(Smaller { pack: Some(Repack::Never), ..none });
    }
    tries.extend([KvType::F16, KvType::Q8_0].map(|kv| Smaller { kv: Some(kv), ..none }));
    for quant in SMALLER {
        tries.push(Smaller { quant: Some(quant.parse()?), kv: Some(KvType::F16), ..none });
    }
    for smaller in tries {
        let device_options = smaller.apply(device_options);
        if fits(&device_options, &device_options.plan(checkpoint)?.0) {
            return Ok(Some(smaller));
        }
    }
    Ok(None)
}

/// Settings that fit `tokens` tokens into `available` bytes: other types of the KV cache or of weights, else a shorter sequence.
pub fn instead(
    device_options: &DeviceOptions,
    checkpoint: &Checkpoint,
    tokens: usize,
    available: u64,
) -> Result<Option<Smaller>> {
    let spec = checkpoint.spec();
    let total =
        |device_options: &DeviceOptions, plan: &Plan, tokens: usize| plan.total(spec, device_options.decoder(), tokens);
    if let Some(found) =
        smaller(device_options, checkpoint, |device_options, plan| total(device_options, plan, tokens) <= available)?
    {
        return Ok(Some(found));
    }
    let least = Smaller { quant: Some("q2_k_m".parse()?), kv: Some(KvType::Q8_0), ..Smaller::default() };
    let device_options = least.apply(device_options);
    let plan = device_options.plan(checkpoint)?.0;
    let mut shorter = tokens;
    while shorter > 16 {
        shorter /= 2;
        if total(&device_options, &plan, shorter) <= available {
            return Ok(Some(Smaller { context: Some(shorter), ..least }));
        }
    }
    Ok(None)
}

#[cfg(all(test, feature = "demo"))]
mod tests {
    use super::*;
    use crate::{Device, Source};

    #[test]
    fn a_model_that_takes_nearly_all_memory_fills_it() {
        // Phi-3.5-MoE in Q4_0 on a machine of 24 GB, and Phi-3-mini on one of 8
        assert!(fills(23_560_000_000, 24_300_000_000));
        assert!(!fills(2_390_000_000, 6_000_000_000));
    }

    #[test]
    fn what_cannot_fit_is_refused_with_its_numbers() {
        let checkpoint = Source::Demo.checkpoint().unwrap();
        let device_options =
            DeviceOptions { device: Device::Cpu, quant: Some("q8_0".parse().unwrap()), ..DeviceOptions::default() };
        let (plan, device) = device_options.plan(&checkpoint).unwrap();
        let needed = needed(&plan);
        assert!(check_against(&device_options, &checkpoint, &plan, &device, needed).is_ok());
        let least = {
            let least = DeviceOptions {
                quant: Some("q4_k_m".parse().unwrap()),
                kv: Some(KvType::F16),
                ..device_options.clone()
            };
            super::needed(&least.plan(&checkpoint).unwrap().0)
        };
        let text = check_against(&device_options, &checkpoint, &plan, &device, least).unwrap_err().to_string();
        for part in [plan.weights.to_string(), plan.scratch.to_string(), least.to_string(), "would fit".into()] {
            assert!(text.contains(&part), "{text} has no {part}");
        }
        let text = check_against(&device_options, &checkpoint, &plan, &device, 1000).unwrap_err().to_string();
        assert!(text.contains("nothing smaller would fit"), "{text}");
    }

    #[test]
    fn mapped_weights_take_nothing_of_their_own() {
        let checkpoint = Source::Demo.checkpoint().unwrap();
        let (plan, device) =
            DeviceOptions { device: Device::Cpu, ..DeviceOptions::default() }.plan(&checkpoint).unwrap();
        assert!(plan.mapped > 0 && needed(&plan) < plan.weights + plan.scratch);
        assert_eq!(available(&device).is_some(), cfg!(target_os = "linux"));
    }
}
