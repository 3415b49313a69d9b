//! The block-quantized types of ggml: the layout of their blocks, decoders and encoders.
//!
//! A type is one file of this folder and one line of `quant_types!`. The file has the type's `Block`, its `QuantBlock` for the
//! integer kernels of the CPU, and its planes for the GPU.
//!
//! Decoders follow the reference (`dequantize_row_*` of ggml's `ggml-quants.c`): every value is a scale times an integer, or that
//! plus a minimum times an integer, rounded once to f32.

mod block;
mod fit;
mod iq4;
pub(crate) mod k;
mod nibbles;

pub(crate) mod iq4_nl;
pub(crate) mod iq4_xs;
pub(crate) mod q2_k;
pub(crate) mod q3_k;
pub(crate) mod q4_0;
pub(crate) mod q4_1;
pub(crate) mod q4_k;
pub(crate) mod q5_0;
pub(crate) mod q5_1;
pub(crate) mod q5_k;
pub(crate) mod q6_k;
pub(crate) mod q8_0;

use crate::DType;

pub(crate) use block::{Block, row};

/// The one list of block-quantized types, in the order of [`DType::ALL`]: the arm of [`DType`], which is also the name of the
/// type's marker; its module; its documentation. `$apply` is the macro that takes `$args` and the list.
macro_rules! quant_types {
    ([$($apply:tt)+] $($args:tt)*) => {
        $($apply)+! {
            [$($args)*]
            Q8_0: q8_0, "Blocks of 32: 8 bits, a scale.";
            Q4_0: q4_0, "Blocks of 32: 4 bits, a scale.";
            Q4_1: q4_1, "Blocks of 32: 4 bits, a scale and a minimum.";
            Q5_0: q5_0, "Blocks of 32: 5 bits, a scale.";
            Q5_1: q5_1, "Blocks of 32: 5 bits, a scale and a minimum.";
            Q2K: q2_k, "Blocks of 256: 2 bits, 16 scales and minima of 4 bits.";
            Q3K: q3_k, "Blocks of 256: 3 bits, 16 scales of 6 bits.";
            Q4K: q4_k, "Blocks of 256: 4 bits, 8 scales and minima of 6 bits.";
            Q5K: q5_k, "Blocks of 256: 5 bits, 8 scales and minima of 6 bits.";
            Q6K: q6_k, "Blocks of 256: 6 bits, 16 scales of 8 bits.";
            Iq4Nl: iq4_nl, "Blocks of 32: indices of 4 bits into a table, a scale.";
            Iq4Xs: iq4_xs, "Blocks of 256: indices of 4 bits into a table, 8 scales of 6 bits.";
        }
    };
}
pub(crate) use quant_types;

/// `with_quant_type!(dtype, Q => a, else { arms })`: `a` with the marker type Q of a quantized `dtype`, the arms of a `match` for
/// the others.
macro_rules! with_quant_type {
    ($dtype:expr, $quant:ident => $body:expr, else { $($plain:tt)+ }) => {
        $crate::quant::quant_types!([$crate::quant::match_quant_type] [$dtype] [$quant] [$body] [$($plain)+])
    };
}
macro_rules! match_quant_type {
    ([[$dtype:expr] [$quant:ident] [$body:expr] [$($plain:tt)+]] $($type:ident: $module:ident, $doc:literal;)+) => {
        match $dtype {
            $($crate::DType::$type => {
                type $quant = $crate::quant::$module::$type;
                $body
            })+
            $($plain)+
        }
    };
}
pub(crate) use {match_quant_type, with_quant_type};

/// The bytes of `values` in `dtype`; `None` where the values are no whole number of blocks.
///
/// F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 give ggml's bytes. The K and IQ4 types are fitted to a small square error in ggml's
/// formats; ggml's own encoder weights the errors.
pub fn quantize(dtype: DType, values: &[f32]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(dtype.bytes(values.len())?);
    with_quant_type!(dtype, Q => values.chunks_exact(Q::LEN).for_each(|x| Q::encode(x, &mut out)), else {
        DType::F32 => values.iter().for_each(|v| out.extend(v.to_le_bytes())),
        DType::F16 => values.iter().for_each(|&v| out.extend(half::f16::from_f32(v).to_le_bytes())),
        DType::Bf16 => values.iter().for_each(|&v| out.extend(half::bf16::from_f32(v).to_le_bytes())),
    });
    Some(out)
}

/// The bytes of `values` as Q4_0 blocks by the rule of the published `cpu-int4-rtn-block-32` models: round to nearest by
/// the stored scale, one scale for 32 weights. `None` where the values are no whole number of blocks.
///
/// The rule is ONNX Runtime's for symmetric `MatMulNBits` weights (`range2scale` and `MlasBlockwiseQuantizer` of its
/// `q4_dq.cpp`); the scale is a half here, where those files may hold a single.
pub fn quantize_int4_rtn(values: &[f32]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(DType::Q4_0.bytes(values.len())?);
    values.chunks_exact(32).for_each(|x| q4_0::encode_int4_rtn(x, &mut out));
    Some(out)
}
