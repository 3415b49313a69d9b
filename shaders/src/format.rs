//! How weights and the cache are stored.

use crate::Part;

/// The list of formats: arm, name of its file in `formats/`, shared texts of that folder before it, documentation.
///
/// Block-quantized formats have their scales in a plane of their own, and the text of `blocks.wgsl` before theirs.
macro_rules! formats {
    (
        plain { $($plain:ident: $plain_file:literal, $plain_doc:literal;)+ }
        quantized { $($name:ident: $file:literal $(after $shared:literal)*, $doc:literal;)+ }
    ) => {
        /// How a weight is stored.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Format {
            $(#[doc = $plain_doc] $plain,)+
            $(#[doc = $doc] $name,)+
        }

        impl Format {
            /// Every format, for tests that walk them.
            pub const ALL: [Format; [$($plain_file,)+ $($file),+].len()] = [$(Format::$plain,)+ $(Format::$name),+];

            /// Whether the scales of its blocks lie in a plane of their own.
            pub fn has_scales(self) -> bool {
                !matches!(self, $(Format::$plain)|+)
            }

            pub(crate) fn part(self) -> Part {
                match self {
                    $(Format::$plain => ($plain_file, include_str!(concat!("../formats/", $plain_file, ".wgsl"))),)+
                    $(Format::$name => (
                        $file,
                        concat!(
                            include_str!("../formats/blocks.wgsl"),
                            $(include_str!(concat!("../formats/", $shared, ".wgsl")),)*
                            include_str!(concat!("../formats/", $file, ".wgsl")),
                        ),
                    ),)+
                }
            }
        }
    };
}

formats! {
    plain {
        F32: "f32", "Single precision.";
        F16: "f16", "Half precision.";
        Bf16: "bf16", "The upper half of a single.";
    }
    quantized {
        Q8_0: "q8_0", "Blocks of 32: 8 bits, a scale.";
        Q4_0: "q4_0", "Blocks of 32: 4 bits, a scale.";
        Q4_1: "q4_1", "Blocks of 32: 4 bits, a scale and a minimum.";
        Q5_0: "q5_0", "Blocks of 32: 5 bits, a scale.";
        Q5_1: "q5_1", "Blocks of 32: 5 bits, a scale and a minimum.";
        Q2K: "q2_k", "Blocks of 256: 2 bits, 16 scales and minima.";
        Q3K: "q3_k", "Blocks of 256: 3 bits, 16 scales.";
        Q4K: "q4_k", "Blocks of 256: 4 bits, 8 scales and minima.";
        Q5K: "q5_k", "Blocks of 256: 5 bits, 8 scales and minima.";
        Q6K: "q6_k", "Blocks of 256: 6 bits, 16 scales.";
        Iq4Nl: "iq4_nl" after "levels", "Blocks of 32: indices of 4 bits into a table, a scale.";
        Iq4Xs: "iq4_xs" after "levels", "Blocks of 256: indices of 4 bits into a table, 8 scales.";
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
