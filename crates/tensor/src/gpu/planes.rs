//! Layout of quantized weights on the GPU: a plane of quants, in groups of eight weights, and a plane of scales and minima.
//!
//! The planes have the bits of the blocks in another order. The shaders in shaders/formats describe the order of each type.

use crate::DType;
use crate::quant::Block;
use crate::quant::with_quant_type;
use phi3_shaders::Format;

/// Period of the planes in blocks: planes hold a multiple of this number of blocks.
pub(super) const BLOCKS: usize = 4;

/// A quantized type on the GPU.
pub(crate) trait Planar: Block {
    /// The shader's format, whose source in shaders/formats reads the planes.
    const FORMAT: Format;
    /// Bytes of a block in the plane of scales; the others are in the plane of quants.
    const SCALES: usize;
    /// Packs a block as block `at` of both planes.
    fn pack(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]);
}

/// The planes of a type.
pub(super) struct Planes {
    /// Bytes of [`BLOCKS`] blocks in the plane of quants.
    pub(super) quants: usize,
    /// Bytes of [`BLOCKS`] blocks in the plane of scales.
    pub(super) scales: usize,
    pack: fn(&[u8], usize, &mut [u8], &mut [u8]),
}

impl Planes {
    /// The planes of a type; `None` for plain types.
    pub(super) fn of(dtype: DType) -> Option<Self> {
        Some(with_quant_type!(dtype, Q => Self::of_type::<Q>(), else { _ => return None }))
    }

    fn of_type<Q: Planar>() -> Self {
        Self { quants: BLOCKS * (Q::BYTES - Q::SCALES), scales: BLOCKS * Q::SCALES, pack: Q::pack }
    }

    /// Packs a block as block `at` of planes that hold a multiple of [`BLOCKS`] blocks.
    pub(super) fn pack(&self, block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
        (self.pack)(block, at, quants, scales);
    }
}

/// The shader's format of a type.
pub(super) fn format(dtype: DType) -> Format {
    with_quant_type!(dtype, Q => Q::FORMAT, else {
        DType::F32 => Format::F32,
        DType::F16 => Format::F16,
        DType::Bf16 => Format::Bf16,
    })
}

/// Packs eight fields of BITS bits: bits `shift ..` of each of eight bytes from `at` on.
pub(crate) fn gather<const BITS: u32>(bytes: &[u8], at: usize, shift: usize) -> u32 {
    let eight = bytes[at..].first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight));
    let mut x = eight >> shift & (0x0101_0101_0101_0101 * ((1 << BITS) - 1));
    for (step, spread) in [(1, 0x0001_0001_0001_0001), (2, 0x0000_0001_0000_0001), (4, 1)] {
        x = (x | x >> (step * (8 - BITS))) & (spread * ((1 << (2 * step * BITS)) - 1));
    }
    x as u32
}

pub(crate) fn put(plane: &mut [u8], at: usize, bytes: &[u8]) {
    plane[at..][..bytes.len()].copy_from_slice(bytes);
}

pub(crate) fn put_word(plane: &mut [u8], word: usize, value: u32) {
    put(plane, 4 * word, &value.to_le_bytes());
}

pub(crate) fn put_half(plane: &mut [u8], half: usize, value: u32) {
    put(plane, 2 * half, &(value as u16).to_le_bytes());
}

/// Four words of the quants of a block of 32, of 4 bits from byte `from` on. In ggml's block quant i + 16 shares a byte with
/// quant i.
pub(crate) fn nibbles(block: &[u8], from: usize, quants: &mut [u8], word: usize) {
    for group in 0..4 {
        put_word(quants, word + group, gather::<4>(block, from + group % 2 * 8, group / 2 * 4));
    }
}

/// Quants of 5 bits of a block of 32. The fifth bits are four bytes at `fifth`, the others follow.
pub(crate) fn five_bits(block: &[u8], fifth: usize, at: usize, quants: &mut [u8]) {
    let start = at / 4 * 20;
    nibbles(block, fifth + 4, quants, start + at % 4 * 4);
    put(quants, 4 * (start + 16 + at % 4), &block[fifth..][..4]);
}

/// Two bits of each of eight quants of a block of 256. Of each 32 bytes from `from` on, the lowest two bits are of 32 quants, the
/// next two bits of the next 32.
pub(crate) fn two_bits(block: &[u8], from: usize, group: usize) -> u32 {
    gather::<2>(block, from + group / 16 * 32 + group % 4 * 8, group % 16 / 4 * 2)
}

/// One bit of each of eight quants of a block of 256. Of 32 bytes from `from` on, bit i is of quants `32 i .. 32 (i + 1)`.
pub(crate) fn one_bit(block: &[u8], from: usize, group: usize) -> u8 {
    gather::<1>(block, from + group % 4 * 8, group / 4) as u8
}

/// Four bits of each of eight quants of a block of 256. Of each 32 bytes from `from` on, the low halves are of 32 quants, the
/// high halves of the next 32.
pub(crate) fn four_bits(block: &[u8], from: usize, group: usize) -> u32 {
    gather::<4>(block, from + group / 8 * 32 + group % 4 * 8, group % 8 / 4 * 4)
}

/// Scale and minimum of a block, then its 8 scales and 8 minima of six bits: their lower four bits, then their upper two.
pub(crate) fn scales_and_minima(block: &[u8], at: usize, scales: &mut [u8]) {
    let codes = &block[4..16];
    let (mut low, mut low_minima, mut high) = (0u32, 0u32, 0u32);
    for i in 0..4 {
        let [a, b, c] = [codes[i], codes[i + 4], codes[i + 8]].map(u32::from);
        low |= (a & 15) << (4 * i) | (c & 15) << (4 * i + 16);
        low_minima |= (b & 15) << (4 * i) | (c >> 4) << (4 * i + 16);
        high |= (a >> 4 & 3) << (2 * i) | (a >> 6) << (2 * i + 8);
        high |= (b >> 4 & 3) << (2 * i + 16) | (b >> 6) << (2 * i + 24);
    }
    put(scales, 16 * at, &block[..4]);
    put_word(scales, 4 * at + 1, low);
    put_word(scales, 4 * at + 2, low_minima);
    put_word(scales, 4 * at + 3, high);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::Random;

    #[test]
    fn fields_are_gathered_in_order() {
        let bytes = [0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe, 0x55];
        assert_eq!(gather::<4>(&bytes, 0, 0), 0xeca8_6420);
        assert_eq!(gather::<4>(&bytes, 0, 4), 0xfdb9_7531);
        assert_eq!(gather::<4>(&bytes, 1, 0), 0x5eca_8642);
        let bytes = [0, 1, 2, 3, 0, 1, 2, 3].map(|i| i << 2);
        assert_eq!(gather::<2>(&bytes, 0, 2), 0b1110_0100_1110_0100);
        assert_eq!(gather::<1>(&bytes, 0, 2), 0b1010_1010);
        assert_eq!(gather::<1>(&bytes, 0, 3), 0b1100_1100);
    }

    fn packed(planes: &Planes, blocks: &[u8], size: usize) -> (Vec<u8>, Vec<u8>) {
        let mut quants = vec![0xaa; planes.quants];
        let mut scales = vec![0xaa; planes.scales];
        for (at, block) in blocks.chunks_exact(size).enumerate() {
            planes.pack(block, at, &mut quants, &mut scales);
        }
        (quants, scales)
    }

    /// The planes are as large as the blocks and hold the same bits.
    #[test]
    fn every_bit_of_a_block_has_one_place() {
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_quantized()) {
            let planes = Planes::of(dtype).unwrap();
            let size = dtype.block().1;
            assert_eq!(planes.quants + planes.scales, BLOCKS * size);
            let mut random = Random(5);
            let mut blocks: Vec<u8> = (0..BLOCKS * size).map(|_| random.bits() as u8).collect();
            let (quants, scales) = packed(&planes, &blocks, size);
            let all: Vec<u8> = quants.into_iter().chain(scales).collect();
            let mut taken = vec![false; 8 * all.len()];
            for bit in 0..8 * blocks.len() {
                blocks[bit / 8] ^= 1 << (bit % 8);
                let (quants, scales) = packed(&planes, &blocks, size);
                blocks[bit / 8] ^= 1 << (bit % 8);
                let changed: Vec<usize> = quants
                    .iter()
                    .chain(&scales)
                    .zip(&all)
                    .enumerate()
                    .flat_map(|(byte, (new, old))| {
                        (0..8).filter(move |i| (new ^ old) >> i & 1 == 1).map(move |i| 8 * byte + i)
                    })
                    .collect();
                assert_eq!(changed.len(), 1, "{dtype} bit {bit}");
                assert!(!std::mem::replace(&mut taken[changed[0]], true), "{dtype} bit {bit}");
            }
        }
    }
}
