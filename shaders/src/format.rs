//! How weights and the cache are stored.

use crate::Part;

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// Blocks of 32: 8 bits, a scale.
    Q8_0,
    /// Blocks of 32: 4 bits, a scale.
    Q4_0,
    /// Blocks of 32: 4 bits, a scale and a minimum.
    Q4_1,
    /// Blocks of 32: 5 bits, a scale.
    Q5_0,
    /// Blocks of 32: 5 bits, a scale and a minimum.
    Q5_1,
    /// Blocks of 256: 2 bits, 16 scales and minima.
    Q2K,
    /// Blocks of 256: 3 bits, 16 scales.
    Q3K,
    /// Blocks of 256: 4 bits, 8 scales and minima.
    Q4K,
    /// Blocks of 256: 5 bits, 8 scales and minima.
    Q5K,
    /// Blocks of 256: 6 bits, 16 scales.
    Q6K,
    /// Blocks of 32: 4 bits that choose from a table, a scale.
    Iq4Nl,
    /// Blocks of 256: 4 bits that choose from a table, 8 scales.
    Iq4Xs,
}

/// Name and text of a block-quantised format, after the texts that it shares with others.
macro_rules! quantised {
    ($name:literal $(, $shared:literal)*) => {
        (
            $name,
            concat!(
                include_str!("../formats/blocks.wgsl"),
                $(include_str!(concat!("../formats/", $shared, ".wgsl")),)*
                include_str!(concat!("../formats/", $name, ".wgsl")),
            ),
        )
    };
}

impl Format {
    /// Every format, for tests that walk them.
    pub const ALL: [Format; 15] = [
        Format::F32,
        Format::F16,
        Format::Bf16,
        Format::Q8_0,
        Format::Q4_0,
        Format::Q4_1,
        Format::Q5_0,
        Format::Q5_1,
        Format::Q2K,
        Format::Q3K,
        Format::Q4K,
        Format::Q5K,
        Format::Q6K,
        Format::Iq4Nl,
        Format::Iq4Xs,
    ];

    /// Whether what its blocks share lies in a plane of its own.
    pub fn has_scales(self) -> bool {
        !matches!(self, Format::F32 | Format::F16 | Format::Bf16)
    }

    pub(crate) fn part(self) -> Part {
        match self {
            Format::F32 => ("f32", include_str!("../formats/f32.wgsl")),
            Format::F16 => ("f16", include_str!("../formats/f16.wgsl")),
            Format::Bf16 => ("bf16", include_str!("../formats/bf16.wgsl")),
            Format::Q8_0 => quantised!("q8_0"),
            Format::Q4_0 => quantised!("q4_0"),
            Format::Q4_1 => quantised!("q4_1"),
            Format::Q5_0 => quantised!("q5_0"),
            Format::Q5_1 => quantised!("q5_1"),
            Format::Q2K => quantised!("q2_k"),
            Format::Q3K => quantised!("q3_k"),
            Format::Q4K => quantised!("q4_k"),
            Format::Q5K => quantised!("q5_k"),
            Format::Q6K => quantised!("q6_k"),
            Format::Iq4Nl => quantised!("iq4_nl", "levels"),
            Format::Iq4Xs => quantised!("iq4_xs", "levels"),
        }
    }
}

/// How the cache holds keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kv {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// Signed bytes, and a scale for every [`KV_BLOCK`](crate::KV_BLOCK) of a head.
    Q8_0,
}

impl Kv {
    /// Every type, for tests that walk them.
    pub const ALL: [Kv; 3] = [Kv::F32, Kv::F16, Kv::Q8_0];

    pub(crate) fn load(self) -> Part {
        match self {
            Kv::F32 => ("f32", include_str!("../cache/load_f32.wgsl")),
            Kv::F16 => ("f16", include_str!("../cache/load_f16.wgsl")),
            Kv::Q8_0 => ("q8_0", include_str!("../cache/load_q8_0.wgsl")),
        }
    }
}
