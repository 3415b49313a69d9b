//! Types of weights.

use crate::quant::{self, Block, quant_types, with_quant_type};
use std::fmt;

/// The enum and its list, from the plain types and the list of quantized ones.
macro_rules! dtypes {
    ([] $($type:ident: $module:ident, $doc:literal;)+) => {
        /// The type of a weight as a file stores it.
        ///
        /// The block-quantized types are ggml's (`ggml-common.h`): a row is a whole number of blocks, each with its own scales.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum DType {
            /// IEEE single precision.
            F32,
            /// IEEE half precision.
            F16,
            /// The upper half of a single.
            Bf16,
            $(
                #[doc = $doc]
                $type,
            )+
        }

        impl DType {
            /// Every type, for tests that walk them.
            pub const ALL: [DType; Self::PLAIN.len() + [$(DType::$type),+].len()] =
                [DType::F32, DType::F16, DType::Bf16, $(DType::$type),+];
        }
    };
}

quant_types!([dtypes]);

/// Constants of a type.
struct Constants {
    name: &'static str,
    ggml_id: u32,
    file_type: u32,
    block: (usize, usize),
}

impl Constants {
    const fn of<Q: Block>() -> Self {
        Self { name: Q::NAME, ggml_id: Q::GGML_ID, file_type: Q::FILE_TYPE, block: (Q::LEN, Q::BYTES) }
    }
}

impl DType {
    /// The plain types: elements without blocks and scales.
    pub const PLAIN: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

    const fn constants(self) -> Constants {
        with_quant_type!(self, Q => Constants::of::<Q>(), else {
            DType::F32 => Constants { name: "f32", ggml_id: 0, file_type: 0, block: (1, 4) },
            DType::F16 => Constants { name: "f16", ggml_id: 1, file_type: 1, block: (1, 2) },
            DType::Bf16 => Constants { name: "bf16", ggml_id: 30, file_type: 32, block: (1, 2) },
        })
    }

    /// Elements of a block, and its bytes. A plain type's block is one element.
    pub const fn block(self) -> (usize, usize) {
        self.constants().block
    }

    /// Whether elements share scales.
    pub const fn is_quantized(self) -> bool {
        self.block().0 > 1
    }

    /// Bytes of a row of `len` elements; `None` where the row is no whole number of blocks or the number overflows.
    pub fn bytes(self, len: usize) -> Option<usize> {
        let (elements, bytes) = self.block();
        len.is_multiple_of(elements).then_some(len / elements)?.checked_mul(bytes)
    }

    /// Lower-case name, as command lines and tables print it.
    pub const fn name(self) -> &'static str {
        self.constants().name
    }

    /// Number of the type in GGUF files (`enum ggml_type`).
    pub const fn ggml_id(self) -> u32 {
        self.constants().ggml_id
    }

    /// `general.file_type` of a GGUF file whose matrices are mostly of this type (`enum llama_ftype`).
    pub const fn file_type(self) -> u32 {
        self.constants().file_type
    }

    /// The type with this [`ggml_id`](Self::ggml_id).
    pub fn from_ggml_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.ggml_id() == id)
    }

    /// Offsets of the f16 scales and minima in a block.
    pub(crate) const fn halves(self) -> &'static [usize] {
        with_quant_type!(self, Q => Q::HALVES, else { _ => &[] })
    }

    /// Widens elements from little-endian bytes: plain types exactly, quantized ones to the values of their blocks, rounded once.
    ///
    /// `bytes` holds as many elements as `out`; of a quantized type, whole blocks.
    pub fn widen(self, bytes: &[u8], out: &mut [f32]) {
        with_quant_type!(self, Q => quant::row::<Q>(bytes, out), else {
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
        });
    }

    /// Whether no element is NaN or infinite. Of quantized types only scales and minima can be.
    pub fn all_finite(self, bytes: &[u8]) -> bool {
        let half = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]) & 0x7c00 != 0x7c00;
        match self {
            DType::F32 => bytes.chunks_exact(4).all(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite()),
            DType::F16 => bytes.chunks_exact(2).all(half),
            DType::Bf16 => bytes.chunks_exact(2).all(|b| u16::from_le_bytes([b[0], b[1]]) & 0x7f80 != 0x7f80),
            quantized => {
                let halves = quantized.halves();
                bytes.chunks_exact(quantized.block().1).all(|block| halves.iter().all(|&at| half(&block[at..at + 2])))
            }
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
