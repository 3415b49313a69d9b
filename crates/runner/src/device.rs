//! Choosing a machine, and saying why.

use crate::{Error, Result, memory};
use phi3_model::{Checkpoint, Decoder, DecoderOptions, Model, Plan, Recipe};
use phi3_tensor::cpu::{self, Activations, Cpu, Isa, Repack};
use phi3_tensor::{Backend, DeviceInfo, KvType};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Which machine to run on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// A real GPU where there is one, else the processor; never a software adapter.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// A GPU: a real one where there is one, else a software adapter.
    Gpu,
    /// The adapter of this number, as `devices` lists them.
    GpuIndex(usize),
    /// The first adapter whose name contains this, in any case of letters.
    Name(String),
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "gpu" => Self::Gpu,
            "" => return Err(bad_device(text)),
            lower => match lower.strip_prefix("gpu:") {
                Some(index) => Self::GpuIndex(index.parse().map_err(|_| bad_device(text))?),
                None => Self::Name(text.to_owned()),
            },
        })
    }
}

fn bad_device(found: &str) -> Error {
    let expected = "auto, cpu, gpu, gpu:N, or part of an adapter's name".into();
    Error::Argument { argument: "device", expected, found: format!("{found:?}") }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu => f.write_str("gpu"),
            Self::GpuIndex(index) => write!(f, "gpu:{index}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Names of the GPU backend's tiers of kernels, the least first.
pub const TIERS: [&str; 4] = ["base", "f16", "subgroup", "coop"];

/// How a model is set up on its machine.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Which machine.
    pub device: Device,
    /// Threads of the CPU backend, and of quantizing while a model is loaded; as many as the process may use where absent.
    pub threads: Option<usize>,
    /// Instruction set of the CPU backend; the widest that the processor has where absent.
    pub level: Option<Isa>,
    /// Activations that the CPU backend multiplies quantized weights with. Where they are f32, the GPU backend is as exact
    /// too; else it multiplies many rows in half precision if its tier can.
    pub activations: Activations,
    /// When the CPU backend interleaves quantized weights.
    pub pack: Repack,
    /// Tokens of a pass, at most.
    pub max_rows: Option<usize>,
    /// Largest buffer binding that the GPU backend uses, in bytes, below what the adapter allows.
    pub max_binding: Option<u64>,
    /// Kernels of the GPU backend, one of [`TIERS`]; the best that the adapter can run where absent.
    pub tier: Option<String>,
    /// How long a submission to a GPU may run before the GPU is given up; a minute where absent, ten on a driver that computes on
    /// the processor.
    pub timeout: Option<Duration>,
    /// Folder in which the GPU backend remembers which kernels compute rightly on this adapter and driver; kernels are not
    /// checked where absent. See [`cache_folder`].
    pub cache: Option<PathBuf>,
    /// How plain weights are quantized while they are loaded.
    pub quant: Option<Recipe>,
    /// Type of the cached keys and values; where absent f16, and f32 where activations are.
    pub kv: Option<KvType>,
    /// Whether to load where memory does not seem to suffice.
    pub force: bool,
}

/// The user's folder for what can be found out again, if the system has one: PHI3_CACHE where it is set.
pub fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let of_user = || match () {
        () if cfg!(windows) => folder("LOCALAPPDATA"),
        () if cfg!(target_os = "macos") => folder("HOME").map(|home| home.join("Library/Caches")),
        () => folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache"))),
    };
    folder("PHI3_CACHE").or_else(|| of_user().filter(|path| path.is_absolute()).map(|path| path.join("phi3-run")))
}

/// A loaded model, and why it is on this machine.
pub struct Placed {
    /// The model.
    pub model: Box<dyn Model>,
    /// One line for the user: the machine and the reason.
    pub reason: String,
    /// Bytes of its weights, as the machine has them.
    pub weights: u64,
}

impl Setup {
    /// How the CPU backend is set up.
    fn cpu(&self) -> cpu::Options {
        let Self { threads, level, activations, pack, .. } = *self;
        cpu::Options { threads, isa: level, activations, repack: pack }
    }

    /// How the decoder is set up.
    pub fn decoder(&self) -> DecoderOptions {
        let max_rows = self.max_rows.unwrap_or(DecoderOptions::default().max_rows);
        DecoderOptions { max_rows, quant: self.quant, kv: self.kv_type(), threads: self.threads }
    }

    /// Type of the cached keys and values.
    pub fn kv_type(&self) -> KvType {
        self.kv.unwrap_or(match self.activations {
            Activations::F32 => KvType::F32,
            Activations::Int8 => KvType::F16,
        })
    }

    /// What a checkpoint will take on the machine asked for, and that machine; nothing is loaded.
    pub fn plan(&self, checkpoint: &Checkpoint) -> Result<(Plan, DeviceInfo)> {
        self.visit(Planning { setup: self, checkpoint })
    }

    /// An error where kernels of a GPU were asked for: this is to run on the processor.
    fn no_tier(&self) -> Result<()> {
        match &self.tier {
            None => Ok(()),
            Some(tier) => Err(Error::Argument {
                argument: "tier",
                expected: "a GPU, whose kernels it names".into(),
                found: format!("{tier:?} for the CPU"),
            }),
        }
    }

    /// Does something with the machine asked for, whichever it is.
    pub(crate) fn visit<V: Visit>(&self, visit: V) -> Result<V::Output> {
        #[cfg(feature = "gpu")]
        if self.device != Device::Cpu {
            match gpu::open(&self.device, self) {
                Ok(gpu) => return visit.visit(gpu),
                Err(error) if self.device != Device::Auto => return Err(error),
                Err(_) => {}
            }
        }
        #[cfg(not(feature = "gpu"))]
        if !matches!(self.device, Device::Cpu | Device::Auto) {
            return Err(without_gpu(&self.device));
        }
        self.no_tier()?;
        visit.visit(Cpu::new(self.cpu())?)
    }

    /// Loads a checkpoint on the machine asked for. `progress` is told the bytes that are there so far.
    pub fn load(&self, checkpoint: &Checkpoint, progress: &mut dyn FnMut(u64)) -> Result<Placed> {
        match &self.device {
            Device::Cpu => self.on_cpu(checkpoint, "as asked", progress),
            Device::Auto => self.on_any(checkpoint, progress),
            #[cfg(feature = "gpu")]
            other => {
                let backend = gpu::open(other, self)?;
                self.place(backend, checkpoint, "as asked", progress)
            }
            #[cfg(not(feature = "gpu"))]
            other => Err(without_gpu(other)),
        }
    }

    fn on_cpu(&self, checkpoint: &Checkpoint, why: &str, progress: &mut dyn FnMut(u64)) -> Result<Placed> {
        self.no_tier()?;
        let large = match self.place(Cpu::new(self.cpu())?, checkpoint, why, progress) {
            Err(error @ Error::TooLarge { .. }) if self.pack == Repack::AtLoad => error,
            other => return other,
        };
        // weights that stay in the mapping need no memory of their own: of experts, only those that are used are read
        let mapped = Self { pack: Repack::Never, ..self.clone() };
        let why = format!("{why}; weights stay in the file's mapping, as interleaved ones would not fit into memory");
        match mapped.place(Cpu::new(mapped.cpu())?, checkpoint, &why, progress) {
            Err(Error::TooLarge { .. }) => Err(large),
            other => other,
        }
    }

    /// Loads what fits.
    fn place<B: Backend>(
        &self,
        mut backend: B,
        checkpoint: &Checkpoint,
        why: &str,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Placed> {
        let plan = phi3_model::plan(&mut backend, checkpoint, self.decoder())?;
        memory::check(self, checkpoint, &plan, backend.info())?;
        let model = Decoder::load(backend, checkpoint, self.decoder(), progress)?;
        Ok(Placed { reason: format!("{}: {why}", model.device()), weights: plan.weights, model: Box::new(model) })
    }

    #[cfg(not(feature = "gpu"))]
    fn on_any(&self, checkpoint: &Checkpoint, progress: &mut dyn FnMut(u64)) -> Result<Placed> {
        self.on_cpu(checkpoint, "this build has no GPU backend", progress)
    }

    #[cfg(feature = "gpu")]
    fn on_any(&self, checkpoint: &Checkpoint, progress: &mut dyn FnMut(u64)) -> Result<Placed> {
        let backend = match gpu::open(&Device::Auto, self) {
            Ok(backend) => backend,
            Err(Error::Model(phi3_model::Error::Device(phi3_tensor::Error::NoAdapter { .. }))) => {
                return self.on_cpu(checkpoint, "no real GPU was found", progress);
            }
            Err(error @ Error::Model(phi3_model::Error::Device(phi3_tensor::Error::Tier { .. }))) => return Err(error),
            Err(error) => return self.on_cpu(checkpoint, &format!("the GPU cannot be used ({error})"), progress),
        };
        match self.place(backend, checkpoint, "the best GPU found", progress) {
            Err(Error::Model(phi3_model::Error::Device(error))) => {
                self.on_cpu(checkpoint, &format!("the GPU cannot take the model ({error})"), progress)
            }
            other => other,
        }
    }
}

/// What can be done with any machine.
pub(crate) trait Visit {
    type Output;
    fn visit<B: Backend>(self, backend: B) -> Result<Self::Output>;
}

struct Planning<'a> {
    setup: &'a Setup,
    checkpoint: &'a Checkpoint,
}

impl Visit for Planning<'_> {
    type Output = (Plan, DeviceInfo);

    fn visit<B: Backend>(self, mut backend: B) -> Result<Self::Output> {
        let plan = phi3_model::plan(&mut backend, self.checkpoint, self.setup.decoder())?;
        Ok((plan, backend.info().clone()))
    }
}

#[cfg(not(feature = "gpu"))]
fn without_gpu(device: &Device) -> Error {
    phi3_tensor::Error::NoAdapter {
        wanted: format!("for {device}"),
        hint: "this build has no GPU backend: build with the feature `gpu`, or take the CPU".into(),
    }
    .into()
}

#[cfg(feature = "gpu")]
mod gpu {
    use super::TIERS;
    use super::{Device, Setup};
    use crate::{Error, Result};
    use phi3_tensor::cpu::Activations;
    use phi3_tensor::gpu::{Gpu, Options, Select, Tier};

    pub(super) fn open(device: &Device, setup: &Setup) -> Result<Gpu> {
        let select = match device {
            Device::Auto | Device::Gpu | Device::Cpu => Select::Any,
            Device::GpuIndex(index) => Select::Index(*index),
            Device::Name(name) => Select::Name(name.clone()),
        };
        let software = *device != Device::Auto;
        let tier = setup.tier.as_deref().map(tier).transpose()?;
        let (max_binding, memory) = (setup.max_binding, setup.cache.clone());
        let check = memory.is_some();
        let exact = setup.activations == Activations::F32;
        let timeout = setup.timeout;
        let options = Options { software, max_binding, tier, exact, check, memory, timeout, ..Options::default() };
        Ok(Gpu::open(&select, &options)?)
    }

    fn tier(name: &str) -> Result<Tier> {
        let wrong = || Error::Argument { argument: "tier", expected: TIERS.join(" or "), found: format!("{name:?}") };
        Tier::from_name(name).ok_or_else(wrong)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn names_are_those_of_the_kernels() {
            assert_eq!(TIERS, Tier::ALL.map(Tier::name));
            assert_eq!(tier("subgroup").ok(), Some(Tier::Subgroup));
            assert!(tier("warp").is_err());
        }
    }
}
