//! Types of weights.

use crate::quant;
use std::fmt;

/// The type of a weight as a file stores it.
///
/// The block-quantised types are ggml's (`ggml-common.h`): a row is a whole number of blocks, each with scales of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
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
    /// Blocks of 256: 2 bits, 16 scales and minima of 4 bits.
    Q2K,
    /// Blocks of 256: 3 bits, 16 scales of 6 bits.
    Q3K,
    /// Blocks of 256: 4 bits, 8 scales and minima of 6 bits.
    Q4K,
    /// Blocks of 256: 5 bits, 8 scales and minima of 6 bits.
    Q5K,
    /// Blocks of 256: 6 bits, 16 scales of 8 bits.
    Q6K,
    /// Blocks of 32: 4 bits that choose from a table, a scale.
    Iq4Nl,
    /// Blocks of 256: 4 bits that choose from a table, 8 scales of 6 bits.
    Iq4Xs,
}

impl DType {
    /// Every type, for tests that walk them.
    pub const ALL: [DType; 15] = [
        DType::F32,
        DType::F16,
        DType::Bf16,
        DType::Q8_0,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q2K,
        DType::Q3K,
        DType::Q4K,
        DType::Q5K,
        DType::Q6K,
        DType::Iq4Nl,
        DType::Iq4Xs,
    ];

    /// The types whose elements stand alone.
    pub const PLAIN: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

    /// Elements of a block, and its bytes. A plain type's block is one element.
    pub const fn block(self) -> (usize, usize) {
        match self {
            DType::F32 => (1, 4),
            DType::F16 | DType::Bf16 => (1, 2),
            DType::Q8_0 => (32, 34),
            DType::Q4_0 | DType::Iq4Nl => (32, 18),
            DType::Q4_1 => (32, 20),
            DType::Q5_0 => (32, 22),
            DType::Q5_1 => (32, 24),
            DType::Q2K => (256, 84),
            DType::Q3K => (256, 110),
            DType::Q4K => (256, 144),
            DType::Q5K => (256, 176),
            DType::Q6K => (256, 210),
            DType::Iq4Xs => (256, 136),
        }
    }

    /// Whether elements share scales.
    pub const fn is_quantised(self) -> bool {
        self.block().0 > 1
    }

    /// Bytes of a row of `len` elements, `None` where that is no whole number of blocks or overflows.
    pub fn bytes(self, len: usize) -> Option<usize> {
        let (elements, bytes) = self.block();
        len.is_multiple_of(elements).then_some(len / elements)?.checked_mul(bytes)
    }

    /// Lower-case name, as command lines and tables print it.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::Q8_0 => "q8_0",
            DType::Q4_0 => "q4_0",
            DType::Q4_1 => "q4_1",
            DType::Q5_0 => "q5_0",
            DType::Q5_1 => "q5_1",
            DType::Q2K => "q2_k",
            DType::Q3K => "q3_k",
            DType::Q4K => "q4_k",
            DType::Q5K => "q5_k",
            DType::Q6K => "q6_k",
            DType::Iq4Nl => "iq4_nl",
            DType::Iq4Xs => "iq4_xs",
        }
    }

    /// The number that GGUF files give the type (`enum ggml_type`).
    pub const fn ggml_id(self) -> u32 {
        match self {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::Q4_0 => 2,
            DType::Q4_1 => 3,
            DType::Q5_0 => 6,
            DType::Q5_1 => 7,
            DType::Q8_0 => 8,
            DType::Q2K => 10,
            DType::Q3K => 11,
            DType::Q4K => 12,
            DType::Q5K => 13,
            DType::Q6K => 14,
            DType::Iq4Nl => 20,
            DType::Iq4Xs => 23,
            DType::Bf16 => 30,
        }
    }

    /// The type of a number of [`ggml_id`](Self::ggml_id).
    pub fn from_ggml_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.ggml_id() == id)
    }

    /// Widens elements from little-endian bytes: plain types exactly, quantised ones to what their blocks mean, rounded
    /// once.
    ///
    /// `bytes` holds as many elements as `out`; of a quantised type, whole blocks.
    pub fn widen(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            DType::F32 => {
                for (o, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                    *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
            DType::F16 => {
                for (o, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                    *o = half::f16::from_le_bytes([b[0], b[1]]).to_f32();
                }
            }
            DType::Bf16 => {
                for (o, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                    *o = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
                }
            }
            quantised => quant::dequantise(quantised, bytes, out),
        }
    }

    /// Whether no element is NaN or infinite. Of quantised types only scales and minima can be.
    pub fn all_finite(self, bytes: &[u8]) -> bool {
        let half = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]) & 0x7c00 != 0x7c00;
        match self {
            DType::F32 => bytes.chunks_exact(4).all(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite()),
            DType::F16 => bytes.chunks_exact(2).all(half),
            DType::Bf16 => bytes.chunks_exact(2).all(|b| u16::from_le_bytes([b[0], b[1]]) & 0x7f80 != 0x7f80),
            quantised => {
                let scales = quant::scales(quantised);
                bytes.chunks_exact(quantised.block().1).all(|block| scales.iter().all(|&at| half(&block[at..at + 2])))
            }
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
