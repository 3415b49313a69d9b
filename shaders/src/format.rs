//! Storage formats of weights and of the cache.

use crate::Part;

// an arm for each file of `formats/`, with the shared sources that it uses
include!(concat!(env!("OUT_DIR"), "/formats.rs"));

impl Format {
    /// Whether the scales of the blocks are in a plane of their own.
    pub fn has_scales(self) -> bool {
        self.uses().contains(&"blocks")
    }
}

/// Storage format of keys and values in the cache.
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
