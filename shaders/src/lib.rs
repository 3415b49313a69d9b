//! The WGSL kernels of the engine, as text.
//!
//! A kernel is composed from a kernel text (`kernels/`) and, where it multiplies by weights, a format text (`formats/`:
//! how eight weights are unpacked), an input text (`input/`: whether RMSNorm stands in front) and a finish text
//! (`finish/`: what becomes of the result). What writes or reads keys and values also has a cache text (`cache/`: how they
//! are held); attention has an ending text (`ending/`: whether a part is computed or the whole). How the threads of a workgroup
//! add up what they have is the business of the texts in `reduce/`, which differ between tiers. Bindings have one number each in every text, see [`binding`].

/// Numbers of the bindings.
pub mod binding {
    /// Parameters: a uniform struct `Params`, the finish's own parameters as its last field.
    pub const PARAMS: u32 = 0;
    /// Input activations, or queries.
    pub const INPUT: u32 = 1;
    /// A weight; of a block-quantised one, the plane of quants.
    pub const WEIGHT: u32 = 2;
    /// What the blocks of a quantised weight share: the plane of scales.
    pub const SCALES: u32 = 3;
    /// Gain of a norm.
    pub const GAIN: u32 = 4;
    /// Output activations, or queries.
    pub const OUTPUT: u32 = 5;
    /// Keys of a layer; or keys and values of a pass, before they are quantised.
    pub const KEYS: u32 = 6;
    /// Values of a layer.
    pub const VALUES: u32 = 7;
    /// Batch table: `[rows][token, position, slot to write, start of its pages]`, then rotations, outputs and pages.
    pub const BATCH: u32 = 8;
    /// Tokens that the device chose.
    pub const CHOSEN: u32 = 9;
    /// What each row of activations in half precision was divided by.
    pub const ROW_SCALES: u32 = 10;
    /// How many numbers there are.
    pub const COUNT: usize = 11;
}

mod attention;
mod kernel;

use std::collections::HashSet;

pub use attention::Attention;
pub use kernel::{Access, Binding, Kernel};

/// Changes with every text of this crate, the composing one included: what was found out of kernels holds for one revision.
pub const REVISION: &str = env!("PHI3_SHADERS_REVISION");

/// Workgroups along x of a folded grid; more go to y.
pub const FOLD: u32 = 32768;

/// Positions in a page of the key/value cache.
pub const PAGE: u32 = 16;

/// Numbers of a head that share a scale in a quantised cache; a head's last block may have fewer.
pub const KV_BLOCK: usize = 32;

/// The widest head that attention takes.
pub const MAX_HEAD_DIM: usize = 256;

/// Stands for the token of row 0 that the pass before chose, in a batch table; those of other rows follow.
pub const CHOSEN: u32 = 1 << 31;

/// What is chosen where a logit is not finite.
pub const NO_TOKEN: u32 = u32::MAX;

/// Bytes of the parameters' binding: no `Params` is larger.
pub const PARAMS_SIZE: u64 = 64;

/// Bytes of workgroup memory that attention by matrix units may take; no other kernel takes more than WebGPU's default.
pub const UNITS_MEMORY: u32 = 32768;

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
    fn all(self) -> Part {
        match self {
            Tier::Base | Tier::F16 => ("shared", include_str!("../reduce/all_shared.wgsl")),
            Tier::Subgroup | Tier::Coop => ("subgroup", include_str!("../reduce/all_subgroup.wgsl")),
        }
    }

    /// Sums of several rows at once.
    fn rows(self) -> Part {
        match self {
            Tier::Base | Tier::F16 => ("shared", include_str!("../reduce/rows_shared.wgsl")),
            Tier::Subgroup | Tier::Coop => ("subgroup", include_str!("../reduce/rows_subgroup.wgsl")),
        }
    }
}

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

    fn part(self) -> Part {
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

    fn part(self) -> Part {
        match self {
            Input::Plain => ("plain", include_str!("../input/plain.wgsl")),
            Input::Normed => ("normed", include_str!("../input/normed.wgsl")),
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
    /// Signed bytes, and a scale for every [`KV_BLOCK`] of a head.
    Q8_0,
}

impl Kv {
    /// Every type, for tests that walk them.
    pub const ALL: [Kv; 3] = [Kv::F32, Kv::F16, Kv::Q8_0];

    fn load(self) -> Part {
        match self {
            Kv::F32 => ("f32", include_str!("../cache/load_f32.wgsl")),
            Kv::F16 => ("f16", include_str!("../cache/load_f16.wgsl")),
            Kv::Q8_0 => ("q8_0", include_str!("../cache/load_q8_0.wgsl")),
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

/// Name and text of a kernel that chooses tokens.
macro_rules! choice {
    ($name:literal) => {
        (
            $name,
            concat!(include_str!("../kernels/order.wgsl"), "\n", include_str!(concat!("../kernels/", $name, ".wgsl"))),
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
    /// Queries and keys are rotated; keys and values go to the cache. If that is a quantised one, [`Op::Quantise`] brings
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

    fn part(self) -> Part {
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

/// Matrix units of a device: products of square matrices of halves, summed in single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Units {
    /// Rows of a matrix: 8 or 16.
    pub side: u32,
    /// Threads of every subgroup.
    pub lanes: u32,
}

impl Units {
    /// Every kind that there are kernels for; of two with the same lanes, the better last.
    pub const ALL: [Units; 8] = [
        Units { side: 8, lanes: 8 },
        Units { side: 16, lanes: 8 },
        Units { side: 8, lanes: 16 },
        Units { side: 16, lanes: 16 },
        Units { side: 8, lanes: 32 },
        Units { side: 16, lanes: 32 },
        Units { side: 8, lanes: 64 },
        Units { side: 16, lanes: 64 },
    ];
}

/// How exactly activations and weights are multiplied, where they are not in single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As halves.
    Half,
    /// Each as a sum of two halves, which is as good as single precision.
    TwoHalves,
}

impl Precision {
    /// Every precision, for tests that walk them.
    pub const ALL: [Precision; 2] = [Precision::Half, Precision::TwoHalves];

    fn constants(self) -> [(&'static str, u32); 2] {
        match self {
            // a product of four such numbers and weights below 1024 is a half still
            Precision::Half => [("EXACT", 0), ("TOP", 3)],
            Precision::TwoHalves => [("EXACT", 1), ("TOP", 14)],
        }
    }
}

/// How a product of activations and weights is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// One row.
    Matvec,
    /// Few rows.
    Matvec4,
    /// Many rows, by tiles.
    Matmul,
    /// Many rows, by tiles of halves.
    MatmulHalves,
    /// Many rows, by matrix units.
    MatmulUnits {
        /// The units.
        units: Units,
        /// Matrices of a subgroup along either axis.
        high: u32,
        /// How exact.
        precision: Precision,
    },
}

/// Sums that depend on nothing but themselves, in the kernels that measure arithmetic.
pub const CHAINS: u32 = 8;

/// Weights along k in a tile for matrix units.
const DEPTH: u32 = 32;

impl Product {
    /// Every product of a tier above the one before, for tests that walk them.
    pub fn all(tier: Tier) -> Vec<Product> {
        match tier {
            Tier::Base => vec![Product::Matvec, Product::Matvec4, Product::Matmul],
            Tier::F16 => vec![Product::MatmulHalves],
            Tier::Subgroup => vec![Product::Matvec, Product::Matvec4],
            Tier::Coop => Units::ALL
                .into_iter()
                .flat_map(|units| {
                    [(2, Precision::Half), (4, Precision::Half), (2, Precision::TwoHalves)]
                        .map(|(high, precision)| Product::MatmulUnits { units, high, precision })
                })
                .collect(),
        }
    }

    /// Rows and outputs of one workgroup.
    pub const fn tile(self) -> (u32, u32) {
        match self {
            Product::Matvec => (1, 4),
            Product::Matvec4 => (4, 4),
            Product::Matmul | Product::MatmulHalves => (32, 64),
            Product::MatmulUnits { units, high, .. } => (2 * high * units.side, 2 * high * units.side),
        }
    }

    /// Whether activations are what [`Op::Halve`] makes of them, and how exact.
    pub const fn halves(self) -> Option<Precision> {
        match self {
            Product::Matvec | Product::Matvec4 | Product::Matmul => None,
            Product::MatmulHalves => Some(Precision::Half),
            Product::MatmulUnits { precision, .. } => Some(precision),
        }
    }

    fn part(self) -> Part {
        match self {
            Product::Matvec => ("matvec", include_str!("../kernels/matvec.wgsl")),
            Product::Matvec4 => ("matvec4", include_str!("../kernels/matvec.wgsl")),
            Product::Matmul => ("matmul", include_str!("../kernels/matmul.wgsl")),
            Product::MatmulHalves => ("matmul_halves", include_str!("../kernels/matmul_halves.wgsl")),
            Product::MatmulUnits { .. } => ("matmul_units", include_str!("../kernels/matmul_units.wgsl")),
        }
    }

    fn constants(self) -> Vec<(&'static str, u32)> {
        let (rows, outputs) = self.tile();
        let mut constants = vec![("TILE_ROWS", rows), ("TILE_OUTPUTS", outputs)];
        if let Product::MatmulUnits { units, high, precision } = self {
            constants.extend([("SIDE", units.side), ("THREADS", 4 * units.lanes), ("HIGH", high)]);
            constants.extend([("DEPTH", DEPTH), ("STEPS", DEPTH / units.side)]);
            constants.extend(precision.constants());
        }
        constants
    }
}

/// What a kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Rows of a table, by token.
    Embed(Format),
    /// RMSNorm by itself.
    RmsNorm,
    /// Activations in half precision, for products of them.
    Halve(Input, Precision),
    /// Activations times a weight.
    Project {
        /// How.
        product: Product,
        /// The weight's format.
        format: Format,
        /// What stands in front.
        input: Input,
        /// What becomes of the result.
        finish: Finish,
    },
    /// Keys and values of a pass, to a cache of [`Kv::Q8_0`].
    Quantise,
    /// Softmax attention over the cache.
    Attention {
        /// How the cache holds keys and values.
        kv: Kv,
        /// How.
        how: Attention,
        /// Whether it takes some of the positions, for [`Op::Merge`].
        part: bool,
    },
    /// Attention of its parts.
    Merge,
    /// Some rows of others.
    Select,
    /// The token of the largest logit.
    Likeliest,
    /// A token by chance.
    Sample,
    /// What memory can do.
    Copy,
    /// What arithmetic in single precision can do.
    Multiply,
    /// What matrix units can do.
    MultiplyUnits(Units),
}

impl Op {
    /// Every operation in every composition that devices of `tier` run.
    pub fn all(tier: Tier) -> Vec<Op> {
        let mut all = vec![Op::RmsNorm, Op::Merge, Op::Quantise, Op::Select, Op::Likeliest, Op::Sample, Op::Copy];
        all.push(Op::Multiply);
        if tier >= Tier::Coop {
            all.extend(Units::ALL.map(Op::MultiplyUnits));
        }
        for how in Tier::ALL.into_iter().filter(|below| *below <= tier).flat_map(Attention::all) {
            all.extend(Kv::ALL.into_iter().flat_map(|kv| [false, true].map(|part| Op::Attention { kv, how, part })));
        }
        all.extend(Format::ALL.map(Op::Embed));
        if tier >= Tier::F16 {
            all.extend(Input::ALL.into_iter().flat_map(|input| Precision::ALL.map(|exact| Op::Halve(input, exact))));
        }
        for product in Tier::ALL.into_iter().filter(|below| *below <= tier).flat_map(Product::all) {
            for format in Format::ALL {
                for input in Input::ALL {
                    // the norm stands in front of halving
                    if product.halves().is_some() && input == Input::Normed {
                        continue;
                    }
                    all.extend(Finish::ALL.map(|finish| Op::Project { product, format, input, finish }));
                }
            }
        }
        all.sort_by_key(|op| format!("{op:?}"));
        all.dedup();
        all
    }

    /// The kernel of this operation for devices of `tier`.
    pub fn kernel(self, tier: Tier) -> Kernel {
        match self {
            Op::Embed(format) => {
                let embed = ("embed", include_str!("../kernels/embed.wgsl"));
                Kernel::compose(&[embed, format.part()], &[("CHOSEN", CHOSEN)])
            }
            Op::RmsNorm => Kernel::compose(&[("rms_norm", include_str!("../kernels/rms_norm.wgsl")), tier.all()], &[]),
            Op::Halve(input, precision) => {
                let halves = ("halves", include_str!("../kernels/halves.wgsl"));
                let kernel = Kernel::compose(&[halves, input.part(), tier.all()], &precision.constants());
                kernel.named(&format!("{precision:?}").to_lowercase())
            }
            Op::Project { product, format, input, finish } => {
                let mut parts = vec![product.part(), format.part(), input.part(), finish.part()];
                match product {
                    Product::Matvec | Product::Matvec4 => parts.push(tier.rows()),
                    Product::Matmul => {}
                    Product::MatmulHalves | Product::MatmulUnits { .. } => parts.retain(|part| *part != input.part()),
                }
                let kernel = Kernel::compose(&parts, &product.constants());
                match product {
                    Product::MatmulUnits { units: Units { side, lanes }, high, precision } => {
                        kernel.named(&format!("{side}x{side}.{lanes}.{high}.{precision:?}").to_lowercase())
                    }
                    _ => kernel,
                }
            }
            Op::Quantise => Kernel::compose(&[("quantise", include_str!("../kernels/quantise.wgsl"))], &[]),
            Op::Attention { kv, how, part } => {
                let ending = match part {
                    true => ("part", include_str!("../ending/part.wgsl")),
                    false => ("whole", include_str!("../ending/whole.wgsl")),
                };
                how.kernel(kv, ending, tier)
            }
            Op::Merge => Kernel::compose(&[("merge", include_str!("../kernels/merge.wgsl"))], &[]),
            Op::Select => Kernel::compose(&[("select", include_str!("../kernels/select.wgsl"))], &[]),
            Op::Likeliest => Kernel::compose(&[choice!("likeliest")], &[("NO_TOKEN", NO_TOKEN)]),
            Op::Sample => Kernel::compose(&[choice!("sample")], &[("NO_TOKEN", NO_TOKEN)]),
            Op::Copy => Kernel::compose(&[("copy", include_str!("../kernels/copy.wgsl"))], &[]),
            Op::Multiply => {
                Kernel::compose(&[("multiply", include_str!("../kernels/multiply.wgsl"))], &[("CHAINS", CHAINS)])
            }
            Op::MultiplyUnits(Units { side, lanes }) => {
                let constants = [("SIDE", side), ("THREADS", 4 * lanes), ("CHAINS", CHAINS)];
                let kernel = ("multiply_units", include_str!("../kernels/multiply_units.wgsl"));
                Kernel::compose(&[kernel], &constants).named(&format!("{side}x{side}.{lanes}"))
            }
        }
    }
}

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
