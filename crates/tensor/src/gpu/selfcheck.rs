//! Whether a device's kernels compute what they should: every text that kernels are composed of, on a small case that the CPU
//! computes too.
//!
//! It is there for drivers that compile a kernel wrongly, so what it allows is wide: a wrong kernel is far off.

mod cases;

use super::memory::Memory;
use super::{Gpu, adapter};
use crate::cpu::{self, Cpu};
use crate::{Backend, Bytes, Choice, DType, Error, Heads, KvType, Result, Role, Weight};
use cases::{batch, results};
use phi3_shaders::Tier;
use std::time::Duration;

const HIDDEN: usize = 256;
const INNER: usize = 40;
const VOCAB: usize = 24;

/// Heads of each type of cache, so that every width that attention by matrix units has kernels for is among them: the first two
/// fill theirs, as those of real models do.
const HEADS: [Heads; KvType::ALL.len()] = [heads(96, 96), heads(128, 64), heads(60, 16)];

const fn heads(head_dim: usize, rotary_dim: usize) -> Heads {
    Heads { heads: 4, kv_heads: 2, head_dim, rotary_dim }
}

/// Pages of the cache: more positions than attention by matrix units takes at once.
const PAGES: usize = 5;

/// A position from which on attention is split.
const FAR: usize = 700;

/// How long a submission of the check may take, of which a GPU needs milliseconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Difference of a result, in parts of the largest, that no rounding explains.
const WRONG: f32 = 1e-2;

impl Gpu {
    /// Takes the best tier, from the one that it has down, whose kernels compute what they should. A tier that was asked for is
    /// taken or refused. What was found before, by the same kernels on the same driver, is not checked again. `faults` are those
    /// of better tiers, and then of those that were found wrong too. A tier on which the device is lost is as wrong as any other,
    /// but nothing lower can be tried on this device.
    pub(super) fn settle(&mut self, mut memory: Option<Memory>, forced: bool, faults: &mut Vec<String>) -> Result<()> {
        let (features, units, best) = (self.device.raw.features(), self.adapter.units, self.tier());
        let can_run = |tier: &Tier| *tier <= best && adapter::can_run(*tier, features, units);
        for tier in Tier::ALL.into_iter().rev().filter(can_run) {
            self.recorder.pipelines.set_tier(tier);
            let known = memory.as_ref().and_then(|memory| memory.find(tier)).map(|fault| fault.map(str::to_owned));
            let fault = match known {
                Some(fault) => fault,
                None => {
                    let found = fault(self);
                    let fault = match self.device.lost() {
                        Some(lost) => Some(lost),
                        None => {
                            // after an error that says nothing of the kernels nothing is found out
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
            if forced || self.device.lost().is_some() {
                break;
            }
        }
        Err(Error::Device { device: self.info.name.clone(), message: faults.join("; ") })
    }

    /// The best tier below the one that it runs.
    pub(super) fn next_lower(&self) -> Option<Tier> {
        let (features, units, tier) = (self.device.raw.features(), self.adapter.units, self.tier());
        Tier::ALL.into_iter().rev().find(|lower| *lower < tier && adapter::can_run(*lower, features, units))
    }
}

/// What is wrong with the kernels that the device runs now, if anything.
pub(super) fn fault(gpu: &mut Gpu) -> Result<Option<String>> {
    let options = cpu::Options {
        threads: Some(1),
        activations: cpu::Activations::F32,
        repack: cpu::Repack::Never,
        ..cpu::Options::default()
    };
    let mut cpu = Cpu::new(options)?;
    let asked = (gpu.exact, gpu.enough);
    for (turn, dtype) in DType::ALL.into_iter().enumerate() {
        let want = results(&mut cpu, dtype)?;
        // every way to multiply many rows that the tier has, but for most types the first only
        let ways = match gpu.tier() {
            _ if turn >= KvType::ALL.len() => 1,
            Tier::Base => 1,
            Tier::F16 | Tier::Subgroup => 2,
            Tier::Coop => 3,
        };
        for way in [(false, u32::MAX), (true, u32::MAX), (false, 0)].into_iter().take(ways) {
            (gpu.exact, gpu.enough) = way;
            let got = results(gpu, dtype);
            (gpu.exact, gpu.enough) = asked;
            let got = match got {
                Ok(got) => got,
                // a kernel that a driver does not take is as bad as a wrong one
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
    choices(gpu)
}

/// Two ways to choose a token of which one is far likelier than the others.
fn choices(gpu: &mut Gpu) -> Result<Option<String>> {
    let drawn = Choice::Drawn { temperature: 0.5, top_k: 9, top_p: 0.9, min_p: 0.05, draw: 1 << 31 };
    let mut values = vec![-1.0f32; VOCAB * VOCAB];
    (0..VOCAB).for_each(|token| values[token * VOCAB + token * 7 % VOCAB] = 30.0);
    let table = gpu.matrix(&plain("table", VOCAB, VOCAB, &values)?, Role::Embedding)?;
    let mut logits = gpu.rows("logits", 2, VOCAB)?;
    gpu.begin(&batch(&[5, 11], 0, 0)?)?;
    gpu.embed(&table, 1.0, &mut logits)?;
    gpu.choose(&logits, &[Choice::Likeliest, drawn])?;
    let mut tokens = [0; 2];
    gpu.chosen(&mut tokens)?;
    let want = [5, 11].map(|token| token * 7 % VOCAB as u32);
    Ok((tokens != want).then(|| format!("the chosen tokens are {tokens:?}, not {want:?}")))
}

fn plain(name: &str, rows: usize, cols: usize, values: &[f32]) -> Result<Weight> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Weight::new(name, DType::F32, rows, cols, Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Options, Select};
    use std::path::Path;

    /// A GPU whose driver takes a word for another, and the folder of its findings.
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

    /// Where the check of the best tier loses the device, or never ends, the next lower one is taken; now, and by what is
    /// remembered.
    #[test]
    fn a_tier_on_which_the_device_is_lost_makes_way_and_stays_away() {
        let Some(best) = wrong(("", ""), false).map(|gpu| gpu.tier()) else { return };
        let lost: fn(&mut Gpu) = |gpu| gpu.device.raw.destroy();
        let hung: fn(&mut Gpu) = |gpu| gpu.device.patience = Duration::ZERO;
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

            // a tier that was asked for makes way for none
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
        // a file that says something else is none
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
            gpu.settle(memory, false, &mut Vec::new()).unwrap();
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
        let error = gpu.settle(None, true, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains(&format!("{} kernels compute wrongly: ", gpu.tier().name())), "{error}");
    }

    /// What only attention by matrix units does is found out too.
    #[test]
    fn wrong_attention_by_matrix_units_makes_way() {
        for words in [
            ("own = position0 + mine", "own = position0 + mine + 1u"),
            ("column = subgroup / 2u", "column = 0u * subgroup"),
            ("scores[at] *= shrinks[", "scores[at] *= 1.0 + shrinks["),
            ("f16(chance)", "f16(1.0)"),
            // of heads of 128 only, and of a part
            ("DIM4: u32 = DIM / 4u", "DIM4: u32 = DIM / 4u - DIM / 128u"),
            ("own = position0 + mine", "own = position0 + mine - 8u * group.z"),
        ] {
            let Some(mut gpu) = wrong(words, false) else { return };
            if gpu.tier() < Tier::Coop {
                println!("skipped: {} has no matrix units", gpu.info());
                return;
            }
            gpu.settle(None, false, &mut Vec::new()).unwrap();
            assert_eq!(gpu.tier(), Tier::Subgroup, "{words:?}: {}", gpu.info());
            assert!(gpu.info().to_string().contains("coop kernels compute wrongly: "), "{words:?}: {}", gpu.info());
        }
    }

    #[test]
    fn a_device_on_which_every_tier_is_wrong_is_an_error() {
        for words in
            [("exp(", "exp2("), ("bits > 0x80000000u", "bits < 0x80000000u"), ("inverse_rms(s", "inverse_rms(2.0 * s")]
        {
            let Some(mut gpu) = wrong(words, true) else { return };
            let error = gpu.settle(None, false, &mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains("base kernels compute wrongly: ") && error.contains("another device"), "{error}");
        }
    }
}
