//! What stands in front of a projection, and what becomes of its result.

use crate::{Kv, Part};

/// What stands in front of a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Nothing.
    Plain,
    /// RMSNorm.
    Normed,
}

impl Input {
    /// Every input, for tests that walk them.
    pub const ALL: [Input; 2] = [Input::Plain, Input::Normed];

    pub(crate) fn part(self) -> Part {
        match self {
            Input::Plain => ("plain", include_str!("../input/plain.wgsl")),
            Input::Normed => ("normed", include_str!("../input/normed.wgsl")),
        }
    }
}

/// Name and text of the finish of queries, keys and values, with one of the texts in `cache/`.
macro_rules! qkv {
    ($store:literal) => {
        (
            concat!("qkv_", $store),
            concat!(
                include_str!("../finish/qkv.wgsl"),
                "\n",
                include_str!(concat!("../cache/store_", $store, ".wgsl"))
            ),
        )
    };
}

/// What becomes of a projection's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Finish {
    /// It replaces the output.
    Replace,
    /// It is added to the output.
    Add,
    /// Gates and ups, alternating, become `silu(gate) * up`.
    SiluGate,
    /// Queries and keys are rotated; keys and values go to the cache. If that is a quantised one, [`Op::Quantise`](crate::Op::Quantise) brings
    /// them there.
    Qkv(Kv),
}

impl Finish {
    /// Every finish, for tests that walk them.
    pub const ALL: [Finish; 6] = [
        Finish::Replace,
        Finish::Add,
        Finish::SiluGate,
        Finish::Qkv(Kv::F32),
        Finish::Qkv(Kv::F16),
        Finish::Qkv(Kv::Q8_0),
    ];

    pub(crate) fn part(self) -> Part {
        match self {
            Finish::Replace => ("replace", include_str!("../finish/replace.wgsl")),
            Finish::Add => ("add", include_str!("../finish/add.wgsl")),
            Finish::SiluGate => ("silu_gate", include_str!("../finish/silu_gate.wgsl")),
            Finish::Qkv(Kv::F32) => qkv!("f32"),
            Finish::Qkv(Kv::F16) => qkv!("f16"),
            Finish::Qkv(Kv::Q8_0) => qkv!("staged"),
        }
    }
}
