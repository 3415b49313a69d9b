//! The block-quantised types of ggml: what their bytes mean, and how values become them.
//!
//! A block's meaning is the reference's (`dequantize_row_*` of ggml's `ggml-quants.c`): every value is a scale times a
//! whole number, or that plus a minimum times a whole number, rounded once to f32.

mod affine;
mod decode;
mod decode_k;
mod fit;
mod symmetric;

use crate::DType;

pub(crate) use decode::{Block, Iq4Nl, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, row};
pub(crate) use decode_k::{Iq4Xs, Q2K, Q3K, Q4K, Q5K, Q6K};

/// What the indices of IQ4_NL and IQ4_XS choose from (`kvalues_iq4nl`).
pub(crate) const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Offsets of the halves (scale, minimum) in a block.
pub(crate) fn scales(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::F32 | DType::F16 | DType::Bf16 => &[],
        DType::Q8_0 | DType::Q4_0 | DType::Q5_0 | DType::Iq4Nl | DType::Iq4Xs => &[0],
        DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => &[0, 2],
        DType::Q2K => &[80, 82],
        DType::Q3K => &[108],
        DType::Q6K => &[208],
    }
}

/// What whole blocks of a quantised type mean. Plain types are [`DType::widen`]'s.
pub(crate) fn dequantise(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 | DType::F16 | DType::Bf16 => dtype.widen(bytes, out),
        DType::Q8_0 => row::<Q8_0>(bytes, out),
        DType::Q4_0 => row::<Q4_0>(bytes, out),
        DType::Q4_1 => row::<Q4_1>(bytes, out),
        DType::Q5_0 => row::<Q5_0>(bytes, out),
        DType::Q5_1 => row::<Q5_1>(bytes, out),
        DType::Q2K => row::<Q2K>(bytes, out),
        DType::Q3K => row::<Q3K>(bytes, out),
        DType::Q4K => row::<Q4K>(bytes, out),
        DType::Q5K => row::<Q5K>(bytes, out),
        DType::Q6K => row::<Q6K>(bytes, out),
        DType::Iq4Nl => row::<Iq4Nl>(bytes, out),
        DType::Iq4Xs => row::<Iq4Xs>(bytes, out),
    }
}

/// The bytes of `values` in `dtype`, `None` where they are no whole number of blocks.
///
/// F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 give ggml's bytes; the K and IQ4 types are fitted to the least square
/// error, as ggml's formats allow and its quantiser does with other weights.
pub fn quantise(dtype: DType, values: &[f32]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(dtype.bytes(values.len())?);
    let blocks = values.chunks_exact(dtype.block().0);
    match dtype {
        DType::F32 => values.iter().for_each(|v| out.extend(v.to_le_bytes())),
        DType::F16 => values.iter().for_each(|&v| out.extend(half::f16::from_f32(v).to_le_bytes())),
        DType::Bf16 => values.iter().for_each(|&v| out.extend(half::bf16::from_f32(v).to_le_bytes())),
        DType::Q8_0 => blocks.for_each(|x| symmetric::q8_0(x, &mut out)),
        DType::Q4_0 => blocks.for_each(|x| symmetric::q4_0(x, &mut out)),
        DType::Q4_1 => blocks.for_each(|x| affine::q4_1(x, &mut out)),
        DType::Q5_0 => blocks.for_each(|x| symmetric::q5_0(x, &mut out)),
        DType::Q5_1 => blocks.for_each(|x| affine::q5_1(x, &mut out)),
        DType::Q2K => blocks.for_each(|x| affine::q2_k(x, &mut out)),
        DType::Q3K => blocks.for_each(|x| symmetric::q3_k(x, &mut out)),
        DType::Q4K => blocks.for_each(|x| affine::q4_k(x, &mut out)),
        DType::Q5K => blocks.for_each(|x| affine::q5_k(x, &mut out)),
        DType::Q6K => blocks.for_each(|x| symmetric::q6_k(x, &mut out)),
        DType::Iq4Nl => blocks.for_each(|x| symmetric::iq4_nl(x, &mut out)),
        DType::Iq4Xs => blocks.for_each(|x| symmetric::iq4_xs(x, &mut out)),
    }
    Some(out)
}

/// The bytes of `values` as Q4_0 blocks by the rule of the published `cpu-int4-rtn-block-32` models: round to nearest by
/// the scale as it is stored, one scale for 32 weights. `None` where they are no whole number of blocks.
///
/// The rule is ONNX Runtime's for symmetric `MatMulNBits` weights (`range2scale` and `MlasBlockwiseQuantizer` of its
/// `q4_dq.cpp`); the scale is a half here, where those files may hold a single.
pub fn quantise_int4_rtn(values: &[f32]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(DType::Q4_0.bytes(values.len())?);
    values.chunks_exact(32).for_each(|x| symmetric::int4_rtn(x, &mut out));
    Some(out)
}
