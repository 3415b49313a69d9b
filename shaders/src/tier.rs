//! What kernels ask of a device.

use crate::Part;

/// What a kernel asks of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// WebGPU core with its default limits, and no feature.
    Base,
    /// Products of many rows in half precision, summed in single.
    F16,
    /// Reductions by subgroups of any size; products of many rows as the device can.
    Subgroup,
    /// Products of many rows by matrix units.
    Coop,
}

impl Tier {
    /// Every tier, the least first.
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

    /// The tier of a name of [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.name() == name)
    }

    /// Reductions whose result every thread gets.
    pub(crate) fn all(self) -> Part {
        match self {
            Tier::Base | Tier::F16 => ("shared", include_str!("../reduce/all_shared.wgsl")),
            Tier::Subgroup | Tier::Coop => ("subgroup", include_str!("../reduce/all_subgroup.wgsl")),
        }
    }

    /// Sums of several rows at once.
    pub(crate) fn rows(self) -> Part {
        match self {
            Tier::Base | Tier::F16 => ("shared", include_str!("../reduce/rows_shared.wgsl")),
            Tier::Subgroup | Tier::Coop => ("subgroup", include_str!("../reduce/rows_subgroup.wgsl")),
        }
    }
}
