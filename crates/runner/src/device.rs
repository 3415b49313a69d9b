//! Selection of a device, and the reason for it.

use crate::{Error, Result, system_memory};
use phi3_model::{Checkpoint, Decoder, DecoderOptions, Model, Plan, QuantScheme};
use phi3_tensor::Device as _;
use phi3_tensor::cpu::{self, Activations, Cpu, Isa, Repack};
use phi3_tensor::{Backend, DeviceInfo, DeviceKind, KvType};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Device to run on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// A real GPU if there is one, else the CPU; never a software adapter.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU: a real one if there is one, else a software adapter.
    Gpu,
    /// The adapter of this number, as `devices` lists them.
    GpuIndex(usize),
    /// The first adapter whose name contains this text; case is ignored.
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

/// Names of the GPU backend's kernel tiers, the lowest first.
pub const TIERS: [&str; 4] = ["base", "f16", "subgroup", "coop"];

/// Options of a device, and of a model on it.
#[derive(Clone, Debug, Default)]
pub struct DeviceOptions {
    /// Device to run on.
    pub device: Device,
    /// Threads of the CPU backend, and of quantization during loading; as many as the process may use where absent.
    pub threads: Option<usize>,
    /// Instruction set of the CPU backend; the widest that the CPU has where absent.
    pub level: Option<Isa>,
    /// Activations in the CPU backend's products with quantized weights. With f32, the products of the GPU backend are as exact
    /// as single precision, too; otherwise they are in half precision for the rows of a prompt, if the tier supports it.
    pub activations: Activations,
    /// When the CPU backend interleaves quantized weights.
    pub pack: Repack,
    /// Most tokens per pass.
    pub max_rows: Option<usize>,
    /// Largest buffer binding that the GPU backend uses, in bytes, below what the adapter allows.
    pub max_binding: Option<u64>,
    /// Kernel tier of the GPU backend, one of [`TIERS`]; the highest that the adapter supports where absent.
    pub tier: Option<String>,
    /// Timeout of a submission to a GPU; one minute where absent, ten minutes for a driver that computes on the CPU.
    pub timeout: Option<Duration>,
    /// Folder for the results of the GPU backend's kernel checks, by adapter and driver; kernels are not checked where absent.
    /// See [`cache_folder`].
    pub cache: Option<PathBuf>,
    /// Scheme by which plain weights are quantized during loading.
    pub quant: Option<QuantScheme>,
    /// Type of the cached keys and values; where absent, f16, or f32 with f32 activations.
    pub kv: Option<KvType>,
    /// Whether to load even if memory does not seem to suffice.
    pub force: bool,
}

/// The user's cache folder, if the system has one; the value of `PHI3_CACHE` where it is set.
pub fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let of_user = || match () {
        () if cfg!(windows) => folder("LOCALAPPDATA"),
        () if cfg!(target_os = "macos") => folder("HOME").map(|home| home.join("Library/Caches")),
        () => folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache"))),
    };
    folder("PHI3_CACHE").or_else(|| of_user().filter(|path| path.is_absolute()).map(|path| path.join("phi3-run")))
}

/// A loaded model, and the reason for its device.
pub struct LoadedModel {
    /// The model.
    pub model: Box<dyn Model>,
    /// One line for the user: the device and the reason.
    pub reason: String,
    /// Size of its weights on the device, in bytes.
    pub weights: u64,
}

impl DeviceOptions {
    /// Options of the CPU backend.
    fn cpu(&self) -> cpu::Options {
        let Self { threads, level, activations, pack, .. } = *self;
        cpu::Options { threads, isa: level, activations, repack: pack }
    }

    /// Options of the decoder.
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

    /// Memory plan of a checkpoint on the selected device, and that device; nothing is loaded.
    pub fn plan(&self, checkpoint: &Checkpoint) -> Result<(Plan, DeviceInfo)> {
        self.visit(Planning { device_options: self, checkpoint })
    }

    /// Checks that no kernel tier of a GPU is set, for a run on the CPU.
    fn no_tier(&self) -> Result<()> {
        match &self.tier {
            None => Ok(()),
            Some(tier) => Err(Error::Argument {
                argument: "tier",
                expected: "a GPU device, as tiers are kernels of GPUs".into(),
                found: format!("{tier:?} for the CPU"),
            }),
        }
    }

    /// Opens the selected device and runs `visit` with its backend.
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

    /// Loads a checkpoint on the selected device. `progress` is called with the bytes loaded so far.
    pub fn load(&self, checkpoint: &Checkpoint, progress: &mut dyn FnMut(u64)) -> Result<LoadedModel> {
        match &self.device {
            Device::Cpu => self.on_cpu(checkpoint, "as requested", progress),
            Device::Auto => self.on_any(checkpoint, progress),
            #[cfg(feature = "gpu")]
            other => {
                let backend = gpu::open(other, self)?;
                self.place(backend, checkpoint, "as requested", progress)
            }
            #[cfg(not(feature = "gpu"))]
            other => Err(without_gpu(other)),
        }
    }

    fn on_cpu(&self, checkpoint: &Checkpoint, why: &str, progress: &mut dyn FnMut(u64)) -> Result<LoadedModel> {
        self.no_tier()?;
        let mapped = Self { pack: Repack::Never, ..self.clone() };
        if self.pack != Repack::Never && !self.force && self.is_tight(&mapped, checkpoint)? {
            // mapped weights need no memory of their own, and only the experts that are used are read
            let why = format!("{why}; weights stay in the file's mapping, as interleaved ones would fill the memory");
            match mapped.place(Cpu::new(mapped.cpu())?, checkpoint, &why, progress) {
                // the load below reports the error of the requested settings
                Err(Error::TooLarge { .. }) => {}
                other => return other,
            }
        }
        self.place(Cpu::new(self.cpu())?, checkpoint, why, progress)
    }

    /// Returns whether the settings would nearly fill the memory, and the `mapped` ones need less.
    fn is_tight(&self, mapped: &Self, checkpoint: &Checkpoint) -> Result<bool> {
        let mut backend = Cpu::new(self.cpu())?;
        let plan = phi3_model::plan(&mut backend, checkpoint, self.decoder())?;
        if !system_memory::is_tight(&plan, backend.info()) {
            return Ok(false);
        }
        let other = phi3_model::plan(&mut Cpu::new(mapped.cpu())?, checkpoint, mapped.decoder())?;
        Ok(system_memory::needed(&other) < system_memory::needed(&plan))
    }

    /// Loads a checkpoint into a backend, if it fits into memory.
    fn place<B: Backend>(
        &self,
        mut backend: B,
        checkpoint: &Checkpoint,
        why: &str,
        progress: &mut dyn FnMut(u64),
    ) -> Result<LoadedModel> {
        let plan = phi3_model::plan(&mut backend, checkpoint, self.decoder())?;
        system_memory::check(self, checkpoint, &plan, backend.info())?;
        let mut model = Decoder::load(backend, checkpoint, self.decoder(), progress)?;
        // a driver that computes on the processor is slow to compile, and what it runs is short
        if model.device().kind == DeviceKind::Gpu {
            model.prepare()?;
        }
        Ok(LoadedModel { reason: format!("{}: {why}", model.device()), weights: plan.weights, model: Box::new(model) })
    }

    #[cfg(not(feature = "gpu"))]
    fn on_any(&self, checkpoint: &Checkpoint, progress: &mut dyn FnMut(u64)) -> Result<LoadedModel> {
        self.on_cpu(checkpoint, "this build has no GPU backend", progress)
    }

    #[cfg(feature = "gpu")]
    fn on_any(&self, checkpoint: &Checkpoint, progress: &mut dyn FnMut(u64)) -> Result<LoadedModel> {
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
                self.on_cpu(checkpoint, &format!("the model cannot be loaded on the GPU ({error})"), progress)
            }
            other => other,
        }
    }
}

/// An operation on a backend of any type.
pub(crate) trait Visit {
    type Output;
    fn visit<B: Backend>(self, backend: B) -> Result<Self::Output>;
}

struct Planning<'a> {
    device_options: &'a DeviceOptions,
    checkpoint: &'a Checkpoint,
}

impl Visit for Planning<'_> {
    type Output = (Plan, DeviceInfo);

    fn visit<B: Backend>(self, mut backend: B) -> Result<Self::Output> {
        let plan = phi3_model::plan(&mut backend, self.checkpoint, self.device_options.decoder())?;
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
    use super::{Device, DeviceOptions};
    use crate::{Error, Result};
    use phi3_tensor::cpu::Activations;
    use phi3_tensor::gpu::{Gpu, Options, Select, Tier};

    pub(super) fn open(device: &Device, device_options: &DeviceOptions) -> Result<Gpu> {
        let select = match device {
            Device::Auto | Device::Gpu | Device::Cpu => Select::Any,
            Device::GpuIndex(index) => Select::Index(*index),
            Device::Name(name) => Select::Name(name.clone()),
        };
        let software = *device != Device::Auto;
        let tier = device_options.tier.as_deref().map(tier).transpose()?;
        let (max_binding, memory) = (device_options.max_binding, device_options.cache.clone());
        let check = memory.is_some();
        let exact = device_options.activations == Activations::F32;
        let timeout = device_options.timeout;
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
