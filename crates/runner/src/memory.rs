//! Memory of this computer, and whether a model fits into it.

use crate::{Error, Result, Setup};
use phi3_model::{Checkpoint, Plan, Recipe};
use phi3_tensor::cpu::Repack;
use phi3_tensor::{DeviceInfo, DeviceKind, KvType};
use std::fmt;

/// Types to suggest, finest first.
const SMALLER: [&str; 6] = ["q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k_m"];

/// Bytes that can be had on a device, where the system says: Linux's MemAvailable and the limit of the process's group, for
/// the processor and for drivers that compute on it. wgpu does not tell what a card has.
pub fn available(device: &DeviceInfo) -> Option<u64> {
    let ours = matches!(device.kind, DeviceKind::Cpu | DeviceKind::SoftwareGpu);
    ours.then(of_computer).flatten()
}

/// Bytes that can be had of the computer's own memory, where the system says.
pub(crate) fn of_computer() -> Option<u64> {
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let bytes = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)?;
    Some(group().map_or(bytes, |group| group.min(bytes)))
}

/// What the process's group (cgroup v2) may still take; pages of files count as free.
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

/// What must be in memory of its own: everything but mapped weights, which the system takes back when it is short.
fn needed(plan: &Plan) -> u64 {
    plan.weights - plan.mapped + plan.scratch + plan.cache_per_token
}

/// An error with the numbers where a model cannot fit.
pub(crate) fn check(setup: &Setup, checkpoint: &Checkpoint, plan: &Plan, device: &DeviceInfo) -> Result<()> {
    match available(device) {
        Some(available) if !setup.force => check_against(setup, checkpoint, plan, device, available),
        _ => Ok(()),
    }
}

fn check_against(
    setup: &Setup,
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
        instead: smaller(setup, checkpoint, |_, plan| self::needed(plan) <= available)?,
    })
}

/// Settings that take less memory: those that are to be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Smaller {
    /// When quantized weights are interleaved.
    pub pack: Option<Repack>,
    /// Type of plain weights.
    pub quant: Option<Recipe>,
    /// Type of the cached keys and values.
    pub kv: Option<KvType>,
    /// Tokens of the text.
    pub context: Option<usize>,
}

impl Smaller {
    /// A setup with these settings.
    fn apply(self, setup: &Setup) -> Setup {
        let Self { pack, quant, kv, context: _ } = self;
        let setup = setup.clone();
        Setup { pack: pack.unwrap_or(setup.pack), quant: quant.or(setup.quant), kv: kv.or(setup.kv), ..setup }
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
                Repack::AtLoad => "weights interleaved at load".to_owned(),
                Repack::Never => "weights left in the file's mapping".to_owned(),
            }),
            quant.map(|quant| format!("weights of type {quant}")),
            kv.map(|kv| format!("a cache of type {kv}")),
            context.map(|context| format!("{context} tokens")),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(" with "))
    }
}

/// The first settings that fit: another cache, finer types before coarser ones, or nothing.
fn smaller(setup: &Setup, checkpoint: &Checkpoint, fits: impl Fn(&Setup, &Plan) -> bool) -> Result<Option<Smaller>> {
    let none = Smaller::default();
    let mut tries = vec![];
    if setup.pack == Repack::AtLoad {
        tries.push(Smaller { pack: Some(Repack::Never), ..none });
    }
    tries.extend([KvType::F16, KvType::Q8_0].map(|kv| Smaller { kv: Some(kv), ..none }));
    for quant in SMALLER {
        tries.push(Smaller { quant: Some(quant.parse()?), kv: Some(KvType::F16), ..none });
    }
    for smaller in tries {
        let setup = smaller.apply(setup);
        if fits(&setup, &setup.plan(checkpoint)?.0) {
            return Ok(Some(smaller));
        }
    }
    Ok(None)
}

/// What would fit `tokens` tokens into `available` bytes: another cache, a finer type, else a shorter text.
pub fn instead(setup: &Setup, checkpoint: &Checkpoint, tokens: usize, available: u64) -> Result<Option<Smaller>> {
    let spec = checkpoint.spec();
    let total = |setup: &Setup, plan: &Plan, tokens: usize| plan.total(spec, setup.decoder(), tokens);
    if let Some(found) = smaller(setup, checkpoint, |setup, plan| total(setup, plan, tokens) <= available)? {
        return Ok(Some(found));
    }
    let least = Smaller { quant: Some("q2_k_m".parse()?), kv: Some(KvType::Q8_0), ..Smaller::default() };
    let setup = least.apply(setup);
    let plan = setup.plan(checkpoint)?.0;
    let mut shorter = tokens;
    while shorter > 16 {
        shorter /= 2;
        if total(&setup, &plan, shorter) <= available {
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
    fn what_cannot_fit_is_refused_with_its_numbers() {
        let checkpoint = Source::Demo.checkpoint().unwrap();
        let setup = Setup { device: Device::Cpu, quant: Some("q8_0".parse().unwrap()), ..Setup::default() };
        let (plan, device) = setup.plan(&checkpoint).unwrap();
        let needed = needed(&plan);
        assert!(check_against(&setup, &checkpoint, &plan, &device, needed).is_ok());
        let least = {
            let least = Setup { quant: Some("q4_k_m".parse().unwrap()), kv: Some(KvType::F16), ..setup.clone() };
            super::needed(&least.plan(&checkpoint).unwrap().0)
        };
        let text = check_against(&setup, &checkpoint, &plan, &device, least).unwrap_err().to_string();
        for part in [plan.weights.to_string(), plan.scratch.to_string(), least.to_string(), "would fit".into()] {
            assert!(text.contains(&part), "{text} has no {part}");
        }
        let text = check_against(&setup, &checkpoint, &plan, &device, 1000).unwrap_err().to_string();
        assert!(text.contains("nothing smaller would fit"), "{text}");
    }

    #[test]
    fn mapped_weights_take_nothing_of_their_own() {
        let checkpoint = Source::Demo.checkpoint().unwrap();
        let (plan, device) = Setup { device: Device::Cpu, ..Setup::default() }.plan(&checkpoint).unwrap();
        assert!(plan.mapped > 0 && needed(&plan) < plan.weights + plan.scratch);
        assert_eq!(available(&device).is_some(), cfg!(target_os = "linux"));
    }
}
