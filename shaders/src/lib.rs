//! WGSL sources of the engine's kernels.
//!
//! A kernel is composed from these sources:
//!
//! * `kernels/`: the kernel itself;
//! * products with weights: `formats/` (unpacking of eight weights), `rows/` (rows and the part of the weight for each),
//!   `input/` (RMSNorm of the input, or none), `bias/` (a bias, or none), `activation/` and `epilogue/` (destination of the
//!   result);
//! * kernels that write or read keys and values: `cache/` (storage format of the cache);
//! * attention: `mask/` (positions that a row attends to) and `output/` (final or partial result);
//! * `reduce/`: reductions over the threads of a workgroup, which differ between tiers.
//!
//! A binding has the same number in every source, see [`binding`].

/// Binding numbers.
pub mod binding {
    /// Uniform struct `Params`; the epilogue's own parameters are its last field.
    pub const PARAMS: u32 = 0;
    /// Input activations, or queries.
    pub const INPUT: u32 = 1;
    /// A weight; the quants of a block-quantized weight.
    pub const WEIGHT: u32 = 2;
    /// Scales of a block-quantized weight, with its minima if it has any.
    pub const SCALES: u32 = 3;
    /// Gain of a norm; or bias of a projection without a norm.
    pub const GAIN: u32 = 4;
    /// Output activations, or queries.
    pub const OUTPUT: u32 = 5;
    /// Keys of a layer; or the staged keys and values of a pass, before they are quantized.
    pub const KEYS: u32 = 6;
    /// Values of a layer.
    pub const VALUES: u32 = 7;
    /// Batch table: `[rows][token, position, slot to write, start of its pages]`, then rotations, outputs and pages. Of sampling,
    /// the records of the rows, then masks and edits.
    pub const BATCH: u32 = 8;
    /// Tokens sampled on the device, by slot.
    pub const SAMPLED: u32 = 9;
    /// Scale of each row of activations in half precision, times the inverse RMS of an input norm.
    pub const ROW_SCALES: u32 = 10;
    /// Bias of a norm.
    pub const NORM_BIAS: u32 = 11;
    /// Routes of a pass to experts.
    pub const ROUTES: u32 = 12;
    /// Number of bindings.
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
pub use product::{CHAINS, CoopMatrix, Precision, Product, RowMap};
pub use tier::Tier;

/// Hash of this crate's sources, shaders and Rust. Results of self-checks are valid for one revision only.
pub const REVISION: &str = env!("PHI3_SHADERS_REVISION");

/// Workgroups along x of a folded grid; further ones continue along y.
pub const FOLD: u32 = 32768;

/// Positions in a page of the key/value cache.
pub const PAGE: u32 = 16;

/// Numbers of a head that share a scale in a quantized cache; the last block of a head may have fewer.
pub const KV_BLOCK: usize = 32;

/// Largest head dimension of attention.
pub const MAX_HEAD_DIM: usize = 256;

/// Token id in a batch metadata that refers to slot 0 of the tokens sampled on the device; the ids above refer to the others.
pub const SAMPLED: u32 = 1 << 31;

/// Sampled token if a logit is not finite.
pub const NO_TOKEN: u32 = u32::MAX;

/// Experts per row.
pub const TOP_EXPERTS: u32 = 2;

/// Placeholder for a missing route or expert.
pub const NO_ROUTE: u32 = u32::MAX;

/// Size of the binding of parameters, in bytes: no `Params` is larger.
pub const PARAMS_SIZE: u64 = 80;

/// Largest size of workgroup memory of attention on matrix units, in bytes; other kernels keep to WebGPU's default limit.
pub const COOP_MEMORY: u32 = 32768;

/// Every kernel, with the lowest tier that has it.
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

/// Name and source of a part of a kernel.
type Part = (&'static str, &'static str);
