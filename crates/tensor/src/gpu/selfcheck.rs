//! Self-check of a device's kernels: every shader source, on small cases that the CPU also computes.
//!
//! The self-check finds drivers that compile a kernel wrongly. The allowed difference is wide, because the results of a wrong
//! kernel are far off.

pub(crate) mod inputs;

use super::adapter;
use super::machine::Gpu;
use super::memory::Memory;
use crate::cpu::{self, Cpu};
use crate::{DType, Error, KvType, Result, ops};
use phi3_shaders::Tier;
use std::time::Duration;

/// Longest time of a submission of the check; a GPU needs milliseconds.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// Largest allowed difference of a result, relative to one plus the largest result. Rounding is below it.
const WRONG: f32 = 1e-2;

impl Gpu {
    /// Selects the best tier, from the current one down, whose kernels pass the self-check. A forced tier is not replaced.
    /// Findings of earlier starts, about the same kernels on the same driver, are reused. `faults` has the faults of better
    /// tiers; those of the tiers that fail are added. A tier on which the device is lost fails too; then no lower tier can be
    /// tried on this device.
    pub(crate) fn select_tier(
        &mut self,
        mut memory: Option<Memory>,
        forced: bool,
        faults: &mut Vec<String>,
    ) -> Result<()> {
        let (features, matrix, best) = (self.device.raw.features(), self.adapter.coop_matrix, self.tier());
        let can_run = |tier: &Tier| *tier <= best && adapter::can_run(*tier, features, matrix);
        for tier in Tier::ALL.into_iter().rev().filter(can_run) {
            self.recorder.pipelines.set_tier(tier);
            let known = memory.as_ref().and_then(|memory| memory.find(tier)).map(|fault| fault.map(str::to_owned));
            let fault = match known {
                Some(fault) => fault,
                None => {
                    let found = self_check(self);
                    let fault = match self.device.driver.lost() {
                        Some(lost) => Some(lost),
                        None => {
                            // an error that is not a fault of the kernels is no finding
                            let found = found?;
                            self.device.check()?;
                            found
                        }
                    };
                    if let Some(memory) = &mut memory {
                        memory.keep(tier, fault.clone());
                    }
                    fault
                }
            };
            match fault {
                None => {
                    self.describe(faults);
                    return Ok(());
                }
                Some(fault) => faults.push(format!("{} kernels compute wrongly: {fault}", tier.name())),
            }
            if forced || self.device.driver.lost().is_some() {
                break;
            }
        }
        Err(Error::Device { device: self.info.name.clone(), message: faults.join("; ") })
    }

    /// The best tier below the current one.
    pub(crate) fn next_lower(&self) -> Option<Tier> {
        let (features, matrix, tier) = (self.device.raw.features(), self.adapter.coop_matrix, self.tier());
        Tier::ALL.into_iter().rev().find(|lower| *lower < tier && adapter::can_run(*lower, features, matrix))
    }
}

/// Fault of the kernels of the current tier, if there is any.
pub(crate) fn self_check(gpu: &mut Gpu) -> Result<Option<String>> {
    let options = cpu::Options {
        threads: Some(1),
        activations: cpu::Activations::F32,
        repack: cpu::Repack::Never,
        ..cpu::Options::default()
    };
    let mut cpu = Cpu::new(options)?;
    let asked = (gpu.exact, gpu.enough);
    for (turn, dtype) in DType::ALL.into_iter().enumerate() {
        let want = ops::self_check(&mut cpu, dtype)?;
        // every kernel of the tier for many rows, but only the first for most types
        let ways = match gpu.tier() {
            _ if turn >= KvType::ALL.len() => 1,
            Tier::Base => 1,
            Tier::F16 | Tier::Subgroup => 2,
            Tier::Coop => 3,
        };
        for way in [(false, u32::MAX), (true, u32::MAX), (false, 0)].into_iter().take(ways) {
            (gpu.exact, gpu.enough) = way;
            let got = ops::self_check(gpu, dtype);
            (gpu.exact, gpu.enough) = asked;
            let got = match got {
                Ok(got) => got,
                // a kernel that a driver cannot compile is a fault too
                Err(Error::Device { message, .. }) => return Ok(Some(message)),
                Err(error) => return Err(error),
            };
            for ((name, want), (_, got)) in want.iter().zip(&got) {
                let size = want.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                let off = |(want, got): (&f32, &f32)| !got.is_finite() || (want - got).abs() > WRONG * (1.0 + size);
                if let Some(at) = want.iter().zip(got).position(off) {
                    return Ok(Some(format!("{dtype} {name} is {}, not {}", got[at], want[at])));
                }
            }
        }
    }
    ops::sample::self_check::fault(gpu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::gpu::{Options, Select};
    use std::path::Path;

    /// A GPU whose driver replaces a word of the shader sources by another.
    fn wrong(wrong: (&'static str, &'static str), every_tier: bool) -> Option<Gpu> {
        let options = Options { software: true, ..Options::default() };
        let mut gpu = match Gpu::open(&Select::Any, &options) {
            Ok(gpu) => gpu,
            Err(error) => {
                println!("skipped: {error}");
                return None;
            }
        };
        gpu.recorder.pipelines.wrong = Some(wrong);
        gpu.recorder.pipelines.every_tier_is_wrong = every_tier;
        if gpu.tier() == Tier::Base && !every_tier {
            println!("skipped: {} has no tier above base", gpu.info());
            return None;
        }
        Some(gpu)
    }

    fn memory(folder: &Path, gpu: &Gpu) -> Option<Memory> {
        Some(Memory::open(folder, &gpu.adapter))
    }

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("phi3-selfcheck-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }

    /// If the check of the best tier loses the device, or never ends, the next lower tier is taken; at once, and at the next
    /// start by the kept finding.
    #[test]
    fn a_tier_on_which_the_device_is_lost_makes_way_and_stays_away() {
        let Some(best) = wrong(("", ""), false).map(|gpu| gpu.tier()) else { return };
        let lost: fn(&mut Gpu) = |gpu| gpu.device.raw.destroy();
        let hung: fn(&mut Gpu) = |gpu| gpu.device.driver.set_timeout(Duration::ZERO);
        for (says, lose) in [("device lost", lost), ("a kernel did not end within 0 s", hung)] {
            let folder = folder("lost");
            let options = Options { software: true, check: true, memory: Some(folder.clone()), ..Options::default() };
            let open = |tier: Option<Tier>| {
                let lose_best = |gpu: &mut Gpu| {
                    if gpu.tier() == best {
                        lose(gpu)
                    }
                };
                Gpu::open_and(&Select::Any, &Options { tier, ..options.clone() }, lose_best)
            };
            let gpu = open(None).unwrap();
            let line = gpu.info().to_string();
            assert!(gpu.tier() < best && gpu.counters().dispatches > 100, "{line}");
            assert!(line.contains(&format!("{} kernels compute wrongly: {says}", best.name())), "{line}");
            let again = Gpu::open(&Select::Any, &options).unwrap();
            assert_eq!((again.tier(), again.info().to_string()), (gpu.tier(), line));
            std::fs::remove_dir_all(&folder).unwrap();

            // a forced tier is not replaced
            let error = open(Some(best)).err().unwrap();
            assert!(matches!(error, Error::Device { .. }) && error.to_string().contains(says), "{error}");
            std::fs::remove_dir_all(folder).unwrap();
        }
    }

    #[test]
    fn a_device_that_is_lost_on_every_tier_is_an_error() {
        let options = Options { software: true, check: true, ..Options::default() };
        match Gpu::open_and(&Select::Any, &options, |gpu| gpu.device.raw.destroy()) {
            Ok(gpu) => panic!("{}", gpu.info()),
            Err(error @ Error::NoAdapter { .. }) => println!("skipped: {error}"),
            Err(error) => assert!(error.to_string().contains("base kernels compute wrongly: device lost"), "{error}"),
        }
    }

    const WRONG_ADD: (&str, &str) = ("subgroupAdd(", "subgroupMax(");

    #[test]
    fn a_right_driver_is_checked_once() {
        let folder = folder("right");
        let options = || Options { software: true, check: true, memory: Some(folder.clone()), ..Options::default() };
        let Ok(first) = Gpu::open(&Select::Any, &options()) else {
            println!("skipped: no adapter");
            return;
        };
        assert!(first.counters().dispatches > 100, "{:?}", first.counters());
        let again = Gpu::open(&Select::Any, &options()).unwrap();
        assert_eq!((again.counters().dispatches, again.tier()), (0, first.tier()));
        assert_eq!(again.info().to_string(), first.info().to_string());
        // a file with other contents is ignored
        let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        for text in ["", "another adapter\nsubgroup right\nbase right\n", "\u{1F980}"] {
            std::fs::write(&file, text).unwrap();
            assert!(Gpu::open(&Select::Any, &options()).unwrap().counters().dispatches > 100, "{text:?}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_wrong_tier_makes_way_and_stays_away() {
        let folder = folder("wrong");
        for checked in [true, false] {
            let Some(mut gpu) = wrong(WRONG_ADD, false) else { return };
            let before = gpu.counters().dispatches;
            let memory = memory(&folder, &gpu);
            gpu.select_tier(memory, false, &mut Vec::new()).unwrap();
            assert!(gpu.tier() < Tier::Subgroup);
            assert_eq!(gpu.counters().dispatches > before, checked);
            let line = gpu.info().to_string();
            assert!(line.contains("subgroup kernels compute wrongly: "), "{line}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_tier_that_was_asked_for_is_refused_where_it_is_wrong() {
        let Some(mut gpu) = wrong(WRONG_ADD, false) else { return };
        let error = gpu.select_tier(None, true, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains(&format!("{} kernels compute wrongly: ", gpu.tier().name())), "{error}");
    }

    /// Faults that only attention with cooperative matrices has are found, where kernels without a fault pass.
    #[test]
    fn wrong_attention_by_matrix_units_makes_way() {
        for words in [("", ""), ("own = position0 + mine", "own = position0 + mine + 1u")] {
            let Some(mut gpu) = wrong(words, false) else { return };
            if gpu.tier() < Tier::Coop {
                println!("skipped: {} has no matrix units", gpu.info());
                return;
            }
            gpu.select_tier(None, false, &mut Vec::new()).unwrap();
            let is_right = words.0.is_empty();
            assert_eq!(gpu.tier(), if is_right { Tier::Coop } else { Tier::Subgroup }, "{words:?}: {}", gpu.info());
            let line = gpu.info().to_string();
            assert_eq!(line.contains("coop kernels compute wrongly: "), !is_right, "{words:?}: {line}");
        }
        // a forced tier is not replaced, so that lower ones are not checked for each
        for words in [
            ("column = subgroup / 2u", "column = 0u * subgroup"),
            ("scores[at] *= rescales[", "scores[at] *= 1.0 + rescales["),
            ("f16(prob)", "f16(1.0)"),
            // of heads of 128 only, and of a part
            ("DIM4: u32 = DIM / 4u", "DIM4: u32 = DIM / 4u - DIM / 128u"),
            ("own = position0 + mine", "own = position0 + mine - 8u * group.z"),
        ] {
            let Some(mut gpu) = wrong(words, false) else { return };
            let error = gpu.select_tier(None, true, &mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains("coop kernels compute wrongly: "), "{words:?}: {error}");
        }
    }

    #[test]
    fn a_device_on_which_every_tier_is_wrong_is_an_error() {
        for words in
            [("exp(", "exp2("), ("bits > 0x80000000u", "bits < 0x80000000u"), ("inverse_rms(s", "inverse_rms(2.0 * s")]
        {
            let Some(mut gpu) = wrong(words, true) else { return };
            let error = gpu.select_tier(None, false, &mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains("base kernels compute wrongly: ") && error.contains("another device"), "{error}");
        }
    }
}
