//! Device features that kernels require.

use crate::Part;

/// Device features that a kernel requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// WebGPU core with its default limits, no optional feature.
    Base,
    /// Arithmetic in half precision, for products of many rows.
    F16,
    /// Subgroup operations, any subgroup size. Products of many rows are in half precision if the device supports it.
    Subgroup,
    /// Matrix units, for products and attention of many rows.
    Coop,
}

impl Tier {
    /// Every tier, the lowest first.
    pub const ALL: [Tier; 4] = [Tier::Base, Tier::F16, Tier::Subgroup, Tier::Coop];

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Base => "base",
            Tier::F16 => "f16",
            Tier::Subgroup => "subgroup",
            Tier::Coop => "coop",
        }
    }

    /// Tier by its [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.name() == name)
    }

    /// Name and source of workgroup reductions that return the result to every thread.
    pub(crate) fn all(self) -> Part {
        match self {
            Tier::Base | Tier::F16 => ("shared", include_str!("../reduce/all_shared.wgsl")),
            Tier::Subgroup | Tier::Coop => ("subgroup", include_str!("../reduce/all_subgroup.wgsl")),
        }
    }

    /// Name and source of workgroup sums of several rows at once.
    pub(crate) fn rows(self) -> Part {
        match self {
            Tier::Base | Tier::F16 => ("shared", include_str!("../reduce/rows_shared.wgsl")),
            Tier::Subgroup | Tier::Coop => ("subgroup", include_str!("../reduce/rows_subgroup.wgsl")),
        }
    }
}
