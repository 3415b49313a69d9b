//! Adapters: their list, and the choice of one.

use crate::{Error, Result};
use phi3_shaders::{CoopMatrix, Tier};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Features that timestamps between kernels need.
pub(crate) const TIMESTAMP_FEATURES: wgpu::Features =
    wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES);

/// Selection of an adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Select {
    /// The best: discrete before integrated before virtual before software.
    #[default]
    Any,
    /// The one with this [`AdapterInfo::index`].
    Index(usize),
    /// The best of those whose name contains this text, in upper or lower case.
    Name(String),
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Select::Any => f.write_str("at all"),
            Select::Index(index) => write!(f, "with index {index}"),
            Select::Name(name) => write!(f, "with \"{name}\" in its name"),
        }
    }
}

/// Options for opening an adapter.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether a driver that computes on the processor may be taken where there is no GPU.
    pub software: bool,
    /// Cap of one storage binding in bytes, below the device's own: for tests of smaller devices.
    pub max_binding: Option<u64>,
    /// Cap of one piece of a weight matrix in bytes; matrices are split into pieces of rows.
    pub max_piece: Option<u64>,
    /// Whether the driver's validation layers run, where they are installed.
    pub validation: bool,
    /// Whether kernels also check every index on the device.
    pub checked: bool,
    /// Tier of the kernels; `None` is the best that the adapter can run.
    pub tier: Option<Tier>,
    /// Whether products are as exact as single precision where half precision would be faster.
    pub exact: bool,
    /// Whether kernels are checked on small cases before they are used. A tier that fails is replaced by the next lower one.
    pub check: bool,
    /// Folder for the findings of checks; `None` keeps no findings.
    pub memory: Option<PathBuf>,
    /// Time limit of a submission, after which the device is given up ([`Error::Timeout`]). A pass of much work is several
    /// submissions, so this bounds a hung driver and not a long prompt. `None` is a minute, or ten on a driver that computes on
    /// the processor; `Duration::MAX` is no limit.
    pub timeout: Option<Duration>,
}

/// Kind of an adapter, in the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdapterKind {
    /// A card with memory of its own.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A GPU of a virtual machine.
    Virtual,
    /// Not stated by the driver.
    Other,
    /// A driver that computes on the processor.
    Software,
}

impl AdapterKind {
    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            AdapterKind::Discrete => "discrete",
            AdapterKind::Integrated => "integrated",
            AdapterKind::Virtual => "virtual",
            AdapterKind::Other => "other",
            AdapterKind::Software => "software",
        }
    }
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Properties of an adapter before it is opened.
#[derive(Clone, Debug)]
pub struct AdapterInfo {
    /// Index in the list of [`adapters`].
    pub index: usize,
    /// Name as the driver reports it.
    pub name: String,
    /// Interface: vulkan, metal or dx12.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// Kind.
    pub kind: AdapterKind,
    /// Whether shaders can compute in half precision.
    pub f16: bool,
    /// Smallest and largest subgroup, where shaders can use subgroups.
    pub subgroup: Option<(u32, u32)>,
    /// Whether shaders can use matrix units.
    pub matrix_units: bool,
    /// The best cooperative matrices with kernels, if any.
    pub coop_matrix: Option<CoopMatrix>,
    /// Largest buffer in bytes.
    pub max_buffer: u64,
    /// Largest storage binding in bytes.
    pub max_binding: u64,
    /// The best tier of kernels that the adapter can run; `None` where it lacks features that all tiers need.
    pub tier: Option<&'static str>,
}

/// Every adapter of Vulkan, Metal and Direct3D 12. A device with several of these interfaces is listed once.
///
/// # Errors
///
/// [`Error::NoAdapter`] where there is none, with the driver to install as a hint.
pub fn adapters() -> Result<Vec<AdapterInfo>> {
    let all: Vec<AdapterInfo> = found(false).into_iter().map(|found| found.info).collect();
    if all.is_empty() { Err(none(&Select::Any)) } else { Ok(all) }
}

/// An adapter and its properties.
pub(crate) struct Found {
    pub(crate) raw: wgpu::Adapter,
    pub(crate) info: AdapterInfo,
    pub(crate) tier: Option<Tier>,
}

impl Found {
    fn of(raw: wgpu::Adapter, index: usize) -> Self {
        let info = raw.get_info();
        let (features, limits) = (raw.features(), raw.limits());
        let core = wgpu::Limits::default().check_limits(&limits)
            && raw.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::compliant());
        let products = raw.cooperative_matrix_properties();
        let coop_matrix = coop_matrix(&info, &products);
        let best = Tier::ALL.into_iter().rev().find(|tier| can_run(*tier, features, coop_matrix));
        let tier = best.filter(|_| core);
        Found {
            tier,
            info: AdapterInfo {
                index,
                name: info.name,
                backend: info.backend.to_str().to_lowercase(),
                driver: [info.driver.as_str(), info.driver_info.as_str()].join(" ").trim().to_string(),
                kind: match info.device_type {
                    wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
                    wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
                    wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
                    wgpu::DeviceType::Other => AdapterKind::Other,
                    wgpu::DeviceType::Cpu => AdapterKind::Software,
                },
                f16: features.contains(wgpu::Features::SHADER_F16),
                subgroup: features
                    .contains(wgpu::Features::SUBGROUP)
                    .then_some((info.subgroup_min_size, info.subgroup_max_size)),
                matrix_units: !products.is_empty(),
                coop_matrix,
                max_buffer: limits.max_buffer_size,
                max_binding: limits.max_storage_buffer_binding_size,
                tier: tier.map(Tier::name),
            },
            raw,
        }
    }
}

/// Features that a tier's kernels need, and their name for messages.
pub(crate) fn needs(tier: Tier) -> (wgpu::Features, &'static str) {
    match tier {
        Tier::Base => (wgpu::Features::empty(), "nothing"),
        Tier::F16 => (wgpu::Features::SHADER_F16, "arithmetic in half precision"),
        Tier::Subgroup => (wgpu::Features::SUBGROUP, "subgroup operations"),
        Tier::Coop => (
            wgpu::Features::SHADER_F16
                .union(wgpu::Features::SUBGROUP)
                .union(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
            "matrix units for halves, with subgroups of one size",
        ),
    }
}

/// Whether an adapter has the features of a tier's kernels.
pub(crate) fn can_run(tier: Tier, features: wgpu::Features, matrix: Option<CoopMatrix>) -> bool {
    features.contains(needs(tier).0) && (tier != Tier::Coop || matrix.is_some())
}

/// The best cooperative matrices with kernels, by the properties that an adapter reports.
fn coop_matrix(info: &wgpu::AdapterInfo, products: &[wgpu::CooperativeMatrixProperties]) -> Option<CoopMatrix> {
    let subgroup = match info.backend {
        // wgpu reports 4 to 64 for every device
        wgpu::Backend::Metal if info.name.starts_with("Apple") => (32, 32),
        _ => (info.subgroup_min_size, info.subgroup_max_size),
    };
    let has = |matrix: &CoopMatrix| {
        subgroup == (matrix.subgroup_size, matrix.subgroup_size)
            && products.iter().any(|found| {
                (found.m_size, found.n_size, found.k_size) == (matrix.side, matrix.side, matrix.side)
                    && found.ab_type == wgpu::CooperativeScalarType::F16
                    && found.cr_type == wgpu::CooperativeScalarType::F32
            })
    };
    CoopMatrix::ALL.into_iter().rfind(has)
}

/// The adapter to open, and the tier to run.
pub(crate) fn choose(select: &Select, options: &Options) -> Result<(wgpu::Adapter, AdapterInfo, Tier)> {
    let matching = |info: &AdapterInfo| match select {
        Select::Any => true,
        Select::Index(index) => info.index == *index,
        Select::Name(name) => info.name.to_lowercase().contains(&name.to_lowercase()),
    };
    let (mut software, mut limited) = (false, false);
    let mut best: Option<(wgpu::Adapter, AdapterInfo, Tier)> = None;
    for Found { raw, info, tier } in found(options.validation) {
        if !matching(&info) {
            continue;
        }
        let Some(tier) = tier else {
            limited = true;
            continue;
        };
        if info.kind == AdapterKind::Software && !options.software {
            software = true;
            continue;
        }
        if best.as_ref().is_none_or(|(_, other, _)| info.kind < other.kind) {
            best = Some((raw, info, tier));
        }
    }
    let (raw, info, best_tier) = best.ok_or_else(|| {
        let mut error = none(select);
        if let Error::NoAdapter { hint, .. } = &mut error {
            if software {
                *hint = "there is only a software adapter, which must be allowed explicitly".into();
            } else if limited {
                *hint = "the adapter has less than the WebGPU core limits; a newer driver may help".into();
            }
        }
        error
    })?;
    let tier = options.tier.unwrap_or(best_tier);
    if !can_run(tier, raw.features(), info.coop_matrix) {
        let (_, missing) = needs(tier);
        let (tier, has) = (tier.name(), best_tier.name());
        return Err(Error::Tier { device: info.name, tier, missing, has });
    }
    Ok((raw, info, tier))
}

fn none(select: &Select) -> Error {
    let names: Vec<String> = match select {
        Select::Any => Vec::new(),
        _ => found(false).iter().map(|found| format!("{} ({})", found.info.index, found.info.name)).collect(),
    };
    if !names.is_empty() {
        return Error::NoAdapter { wanted: select.to_string(), hint: format!("there are {}", names.join(", ")) };
    }
    let hint = if cfg!(target_os = "linux") {
        "install the Vulkan driver of the GPU (Debian: mesa-vulkan-drivers, which also has a software adapter; NVIDIA: \
         the driver's libraries and its ICD file), and check that /dev/dri is accessible"
    } else {
        "install the current driver of the GPU"
    };
    Error::NoAdapter { wanted: select.to_string(), hint: hint.into() }
}

fn found(validation: bool) -> Vec<Found> {
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        flags: if validation { wgpu::InstanceFlags::debugging() } else { wgpu::InstanceFlags::empty() },
        memory_budget_thresholds: Default::default(),
        backend_options: Default::default(),
        display: None,
    });
    let mut found: Vec<Found> = Vec::new();
    let mut seen: Vec<wgpu::AdapterInfo> = Vec::new();
    for raw in pollster::block_on(instance.enumerate_adapters(backends)) {
        let info = raw.get_info();
        let twin = |other: &wgpu::AdapterInfo| {
            other.backend != info.backend && (other.vendor, other.device) == (info.vendor, info.device)
        };
        if seen.iter().any(twin) {
            continue;
        }
        found.push(Found::of(raw, found.len()));
        seen.push(info);
    }
    found
}

/// wgpu's adapter that computes nothing, with the kernels of most GPUs.
#[cfg(feature = "noop")]
pub(crate) fn noop() -> Result<(wgpu::Adapter, AdapterInfo, Tier)> {
    let backends = wgpu::Backends::NOOP;
    let noop = wgpu::NoopBackendOptions::enabled();
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        backend_options: wgpu::BackendOptions { noop, ..Default::default() },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let raw = pollster::block_on(instance.enumerate_adapters(backends)).pop();
    let Found { raw, info, .. } = raw.map(|raw| Found::of(raw, 0)).ok_or_else(|| none(&Select::Any))?;
    Ok((raw, info, Tier::Subgroup))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrix_units_need_subgroups_of_one_size() {
        let product = |side, cr_type| wgpu::CooperativeMatrixProperties {
            m_size: side,
            n_size: side,
            k_size: side,
            ab_type: wgpu::CooperativeScalarType::F16,
            cr_type,
            saturating_accumulation: false,
        };
        let single = wgpu::CooperativeScalarType::F32;
        let products = [product(8, single), product(16, wgpu::CooperativeScalarType::F16)];
        let found = |backend, name: &str, (smallest, largest), products: &[_]| {
            let mut info = wgpu::AdapterInfo::new(wgpu::DeviceType::DiscreteGpu, backend);
            info.name = name.into();
            (info.subgroup_min_size, info.subgroup_max_size) = (smallest, largest);
            coop_matrix(&info, products)
        };
        let (vulkan, metal) = (wgpu::Backend::Vulkan, wgpu::Backend::Metal);
        assert_eq!(found(vulkan, "any", (32, 32), &products), Some(CoopMatrix { side: 8, subgroup_size: 32 }));
        assert_eq!(
            found(vulkan, "any", (32, 32), &[product(8, single), product(16, single)]).map(|matrix| matrix.side),
            Some(16)
        );
        assert_eq!(found(vulkan, "any", (32, 64), &products), None);
        assert_eq!(found(vulkan, "any", (32, 32), &products[1..]), None);
        assert_eq!(found(metal, "Apple M1", (4, 64), &products), Some(CoopMatrix { side: 8, subgroup_size: 32 }));
        assert_eq!(found(metal, "Apple M1", (4, 64), &[]), None);
        assert_eq!(found(metal, "AMD Radeon Pro", (4, 64), &products), None);
    }
}
