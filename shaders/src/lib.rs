//! The WGSL kernels of the engine, as text.
//!
//! A kernel is composed from a kernel text (`kernels/`) and, where it multiplies by weights, a format text (`formats/`:
//! how eight weights are unpacked), an input text (`input/`: whether RMSNorm stands in front), a bias text (`bias/`: whether one
//! is added), an activation text (`activation/`) and an epilogue text (`epilogue/`: where the result goes). What writes or reads keys and values also has a cache text (`cache/`: how they
//! are held); attention has a mask text (`mask/`: which positions are seen) and an ending text (`ending/`: whether a part is computed or the whole). How the threads of a workgroup
//! add up what they have is the business of the texts in `reduce/`, which differ between tiers. Bindings have one number each in every text, see [`binding`].

/// Numbers of the bindings.
pub mod binding {
    /// Parameters: a uniform struct `Params`, the epilogue's own parameters as its last field.
    pub const PARAMS: u32 = 0;
    /// Input activations, or queries.
    pub const INPUT: u32 = 1;
    /// A weight; of a block-quantized one, the plane of quants.
    pub const WEIGHT: u32 = 2;
    /// What the blocks of a quantized weight share: the plane of scales.
    pub const SCALES: u32 = 3;
    /// Gain of a norm; or bias of a projection, in front of which no norm stands then.
    pub const GAIN: u32 = 4;
    /// Output activations, or queries.
    pub const OUTPUT: u32 = 5;
    /// Keys of a layer; or keys and values of a pass, before they are quantized.
    pub const KEYS: u32 = 6;
    /// Values of a layer.
    pub const VALUES: u32 = 7;
    /// Batch table: `[rows][token, position, slot to write, start of its pages]`, then rotations, outputs and pages.
    pub const BATCH: u32 = 8;
    /// Tokens that the device chose.
    pub const CHOSEN: u32 = 9;
    /// What each row of activations in half precision was divided by.
    pub const ROW_SCALES: u32 = 10;
    /// Bias of a norm.
    pub const NORM_BIAS: u32 = 11;
    /// Routes of a pass to experts.
    pub const ROUTES: u32 = 12;
    /// How many numbers there are.
    pub const COUNT: usize = 13;
}

mod attention;
mod epilogue;
mod format;
mod kernel;
mod op;
mod product;
mod tier;

use std::collections::HashSet;

pub use attention::{Attention, Mask};
pub use epilogue::{Activation, Epilogue, Input, Sink, Store};
pub use format::{Format, Kv};
pub use kernel::{Access, Binding, Kernel};
pub use op::Op;
pub use product::{CHAINS, Precision, Product, RowMap, Units};
pub use tier::Tier;

/// Changes with every text of this crate, the composing one included: what was found out of kernels holds for one revision.
pub const REVISION: &str = env!("PHI3_SHADERS_REVISION");

/// Workgroups along x of a folded grid; more go to y.
pub const FOLD: u32 = 32768;

/// Positions in a page of the key/value cache.
pub const PAGE: u32 = 16;

/// Numbers of a head that share a scale in a quantized cache; a head's last block may have fewer.
pub const KV_BLOCK: usize = 32;

/// The widest head that attention takes.
pub const MAX_HEAD_DIM: usize = 256;

/// Stands for the token of row 0 that the pass before chose, in a batch table; those of other rows follow.
pub const CHOSEN: u32 = 1 << 31;

/// What is chosen where a logit is not finite.
pub const NO_TOKEN: u32 = u32::MAX;

/// Experts that a row goes to.
pub const TOP_EXPERTS: u32 = 2;

/// Stands for a route that is not there.
pub const NO_ROUTE: u32 = u32::MAX;

/// Bytes of the parameters' binding: no `Params` is larger.
pub const PARAMS_SIZE: u64 = 64;

/// Bytes of workgroup memory that attention by matrix units may take; no other kernel takes more than WebGPU's default.
pub const UNITS_MEMORY: u32 = 32768;

/// Every kernel, with the least tier that has it.
pub fn all() -> Vec<(Tier, Kernel)> {
    let (mut all, mut names) = (Vec::new(), HashSet::new());
    for tier in Tier::ALL {
        for op in Op::all(tier) {
            let kernel = op.kernel(tier);
            if names.insert(kernel.name.clone()) {
                all.push((tier, kernel));
            }
        }
    }
    all
}

/// Name and text of a part of a kernel.
type Part = (&'static str, &'static str);
