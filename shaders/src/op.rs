//! Operations, and the composition of their kernels from shader sources.

use crate::kernel::Kernel;
use crate::{
    Activation, Attention, CHAINS, CoopMatrix, Epilogue, Format, Input, Kv, Mask, NO_ROUTE, NO_TOKEN, Part, Precision,
    Product, RowMap, SAMPLED, Sink, Store, TOP_EXPERTS, Tier,
};

/// Name and source of a kernel that samples a token.
macro_rules! sampling {
    ($name:literal) => {
        (
            $name,
            concat!(
                include_str!("../kernels/float_key.wgsl"),
                "\n",
                include_str!(concat!("../kernels/", $name, ".wgsl"))
            ),
        )
    };
}

/// Reduction to the largest logit of a workgroup.
const LARGEST: Part = ("", include_str!("../kernels/largest.wgsl"));

/// Operation of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Embedding: rows of a table, by token.
    Embed(Format),
    /// RMSNorm as a kernel of its own.
    RmsNorm,
    /// LayerNorm.
    LayerNorm,
    /// Conversion of activations to half precision, for [`Product::halves`].
    Halve(Input, Precision),
    /// Matrix product of activations and a weight.
    Project {
        /// Kernel.
        product: Product,
        /// Format of the weight.
        format: Format,
        /// Operation before the product.
        input: Input,
        /// Operations after the product.
        epilogue: Epilogue,
        /// Rows, and the part of the weight for each.
        rows: RowMap,
    },
    /// Choice of experts for each row, and lists of the routes of each expert in tiles.
    Route,
    /// Weighted sum of the experts' outputs of each row.
    Combine,
    /// Quantization of a pass's keys and values into a cache of [`Kv::Q8_0`].
    Quantize,
    /// Softmax attention over the cache.
    Attention {
        /// Type of the cache.
        kv: Kv,
        /// Kernel.
        how: Attention,
        /// Positions that a row attends to.
        mask: Mask,
        /// Whether positions are split, and partial results are written for [`Op::CombineSplits`].
        partial: bool,
    },
    /// Combination of the partial results of [`Op::Attention`].
    CombineSplits,
    /// Copy of selected rows.
    Select,
    /// Greedy sampling: token of the largest logit.
    Argmax,
    /// Random sampling of a token.
    Sample,
    /// Edited and masked copy of logits, for sampling.
    EditLogits,
    /// Log-probabilities of the largest logits and of a token.
    Logprobs,
    /// Benchmark of memory bandwidth.
    Copy,
    /// Benchmark of the arithmetic rate in single precision.
    Multiply,
    /// Benchmark of the arithmetic rate of matrix units.
    MultiplyCoop(CoopMatrix),
}

impl Op {
    /// Every operation in every composition for devices of `tier`.
    pub fn all(tier: Tier) -> Vec<Op> {
        let mut all = vec![Op::RmsNorm, Op::LayerNorm, Op::CombineSplits, Op::Quantize, Op::Select, Op::Argmax];
        all.extend([Op::Sample, Op::EditLogits, Op::Logprobs, Op::Copy, Op::Multiply, Op::Route, Op::Combine]);
        if tier >= Tier::Coop {
            all.extend(CoopMatrix::ALL.map(Op::MultiplyCoop));
        }
        for how in Tier::ALL.into_iter().filter(|below| *below <= tier).flat_map(Attention::all) {
            for mask in Mask::ALL.into_iter().filter(|mask| how.takes(*mask)) {
                let of = |kv| [false, true].map(|partial| Op::Attention { kv, how, mask, partial });
                all.extend(Kv::ALL.into_iter().flat_map(of));
            }
        }
        all.extend(Format::ALL.map(Op::Embed));
        if tier >= Tier::F16 {
            all.extend(Input::ALL.into_iter().flat_map(|input| Precision::ALL.map(|exact| Op::Halve(input, exact))));
        }
        for product in Tier::ALL.into_iter().filter(|below| *below <= tier).flat_map(Product::all) {
            for format in Format::ALL {
                for input in Input::ALL {
                    // `Op::Halve` applies the norm
                    if product.halves().is_some() && input == Input::Normed {
                        continue;
                    }
                    let epilogues = Epilogue::all(format, input).into_iter();
                    let fitting = epilogues.filter(|epilogue| epilogue.fits(product, format));
                    let rows = RowMap::Direct;
                    all.extend(fitting.map(|epilogue| Op::Project { product, format, input, epilogue, rows }));
                }
                all.extend(Self::of_experts(product, format));
            }
        }
        all.sort_by_key(|op| format!("{op:?}"));
        all.dedup();
        all
    }

    /// Products of experts: the up projection, where a row is shared by several routes, and the down projection, with one
    /// row per route.
    fn of_experts(product: Product, format: Format) -> Vec<Op> {
        if !matches!(product, Product::Matvec | Product::Matvec4 | Product::Matmul) {
            return Vec::new();
        }
        let up = (Activation::Swiglu, RowMap::Routed { share: TOP_EXPERTS });
        let down = (Activation::Identity, RowMap::Routed { share: 1 });
        let of = |(activation, rows)| {
            let epilogue = Epilogue { bias: false, sink: Sink::Rows(activation, Store::Overwrite) };
            Op::Project { product, format, input: Input::Plain, epilogue, rows }
        };
        [up, down].map(of).to_vec()
    }

    /// This operation, and those that take its place in passes of other numbers of rows and positions.
    pub fn siblings(self) -> Vec<Op> {
        match self {
            Op::Project { product, format, input, epilogue, rows } => {
                let of = |product| Op::Project { product, format, input, epilogue, rows };
                product.siblings(rows).into_iter().map(of).collect()
            }
            Op::Attention { kv, how, mask, .. } => {
                let of = |partial| Op::Attention { kv, how, mask, partial };
                vec![of(false), of(true), Op::CombineSplits]
            }
            other => vec![other],
        }
    }

    /// Kernel of this operation for devices of `tier`.
    pub fn kernel(self, tier: Tier) -> Kernel {
        match self {
            Op::Embed(format) => {
                let embed = ("embed", include_str!("../kernels/embed.wgsl"));
                Kernel::compose(&[embed, format.part()], &[("SAMPLED", SAMPLED)])
            }
            Op::RmsNorm => Kernel::compose(&[("rms_norm", include_str!("../kernels/rms_norm.wgsl")), tier.all()], &[]),
            Op::LayerNorm => {
                Kernel::compose(&[("layer_norm", include_str!("../kernels/layer_norm.wgsl")), tier.all()], &[])
            }
            Op::Halve(input, precision) => {
                let halves = ("halves", include_str!("../kernels/halves.wgsl"));
                let kernel = Kernel::compose(&[halves, input.part(), tier.all()], &precision.constants());
                kernel.named(&format!("{precision:?}").to_lowercase())
            }
            Op::Project { product, format, input, epilogue, rows } => {
                let mut parts = vec![product.part(), format.part(), input.part()];
                parts.extend(epilogue.parts());
                match product {
                    Product::Matvec | Product::Matvec4 | Product::Matvec16 => parts.extend([tier.rows(), rows.part()]),
                    Product::Matmul => parts.push(rows.part()),
                    Product::MatmulHalves | Product::MatmulCoop { .. } => parts.retain(|part| *part != input.part()),
                }
                let constants = [product.constants(), rows.constants()].concat();
                let kernel = Kernel::compose(&parts, &constants);
                match product {
                    Product::MatmulCoop { matrix: CoopMatrix { side, subgroup_size }, high, precision } => {
                        kernel.named(&format!("{side}x{side}.{subgroup_size}.{high}.{precision:?}").to_lowercase())
                    }
                    _ => kernel,
                }
            }
            Op::Route => {
                let constants = [("TOP", TOP_EXPERTS), ("NO_ROUTE", NO_ROUTE)];
                Kernel::compose(&[("route", include_str!("../kernels/route.wgsl"))], &constants)
            }
            Op::Combine => {
                let combine = ("combine", include_str!("../kernels/combine.wgsl"));
                Kernel::compose(&[combine], &[("TOP", TOP_EXPERTS)])
            }
            Op::Quantize => Kernel::compose(&[("quantize", include_str!("../kernels/quantize.wgsl"))], &[]),
            Op::Attention { kv, how, mask, partial } => {
                let output = match partial {
                    true => ("partial", include_str!("../output/partial.wgsl")),
                    false => ("final", include_str!("../output/final.wgsl")),
                };
                how.kernel(kv, mask, output, tier)
            }
            Op::CombineSplits => {
                Kernel::compose(&[("combine_splits", include_str!("../kernels/combine_splits.wgsl"))], &[])
            }
            Op::Select => Kernel::compose(&[("select", include_str!("../kernels/select.wgsl"))], &[]),
            Op::Argmax => Kernel::compose(&[sampling!("argmax"), LARGEST], &[("NO_TOKEN", NO_TOKEN)]),
            Op::Sample => Kernel::compose(&[sampling!("sample")], &[("NO_TOKEN", NO_TOKEN)]),
            Op::EditLogits => Kernel::compose(&[sampling!("edit_logits")], &[("NO_TOKEN", NO_TOKEN)]),
            Op::Logprobs => Kernel::compose(&[sampling!("logprobs"), LARGEST], &[("NO_TOKEN", NO_TOKEN)]),
            Op::Copy => Kernel::compose(&[("copy", include_str!("../kernels/copy.wgsl"))], &[]),
            Op::Multiply => {
                Kernel::compose(&[("multiply", include_str!("../kernels/multiply.wgsl"))], &[("CHAINS", CHAINS)])
            }
            Op::MultiplyCoop(CoopMatrix { side, subgroup_size }) => {
                let constants = [("SIDE", side), ("THREADS", 4 * subgroup_size), ("CHAINS", CHAINS)];
                let kernel = ("multiply_coop", include_str!("../kernels/multiply_coop.wgsl"));
                Kernel::compose(&[kernel], &constants).named(&format!("{side}x{side}.{subgroup_size}"))
            }
        }
    }
}
