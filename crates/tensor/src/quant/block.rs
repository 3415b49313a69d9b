//! The trait of block-quantized types, and the reads of their decoders.
//!
//! The loops of decoders are plain, so that the compiler vectorizes them for the instruction set of the function that inlines
//! them.

/// A block-quantized type: constants, decoder and encoder of one block.
pub(crate) trait Block: 'static {
    /// Lower-case name, as command lines and tables print it.
    const NAME: &'static str;
    /// Number of the type in GGUF files (`enum ggml_type`).
    const GGML_ID: u32;
    /// `general.file_type` of a GGUF file whose matrices are mostly of this type (`enum llama_ftype`).
    const FILE_TYPE: u32;
    /// Elements of a block.
    const LEN: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Offsets of the f16 scales and minima in a block.
    const HALVES: &'static [usize];

    /// Values of a block. `block` has [`BYTES`](Self::BYTES) bytes, `out` has [`LEN`](Self::LEN) elements.
    fn decode(block: &[u8], out: &mut [f32]);
    /// Appends the block of `x`, which has [`LEN`](Self::LEN) elements.
    fn encode(x: &[f32], out: &mut Vec<u8>);
}

/// Decodes whole blocks.
#[inline(always)]
pub(crate) fn row<B: Block>(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(B::BYTES).zip(out.chunks_exact_mut(B::LEN)) {
        B::decode(block, out);
    }
}

/// N bytes from `at` on.
#[inline(always)]
pub(super) fn part<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    match bytes[at..].first_chunk() {
        Some(part) => part,
        None => unreachable!("a block of {} bytes has none from {at} to {}", bytes.len(), at + N),
    }
}

/// N values from `at` on.
#[inline(always)]
pub(super) fn part_mut<const N: usize>(values: &mut [f32], at: usize) -> &mut [f32; N] {
    let len = values.len();
    match values[at..].first_chunk_mut() {
        Some(part) => part,
        None => unreachable!("a block of {len} values has none from {at} to {}", at + N),
    }
}

/// The half at `at`, widened without a branch or a call: exact for every bit pattern.
#[inline(always)]
pub(super) fn half(bytes: &[u8], at: usize) -> f32 {
    let bits = u32::from(u16::from_le_bytes(*part(bytes, at)));
    let magnitude = bits & 0x7fff;
    // the exponent's bias changes by 112; the product is exact, for subnormal halves too
    let finite = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    let value = if magnitude >= 0x7c00 { magnitude << 13 | 0x7f80_0000 } else { finite.to_bits() };
    f32::from_bits(value | (bits & 0x8000) << 16)
}
