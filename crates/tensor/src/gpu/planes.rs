//! Quantised blocks as the kernels read them: a plane of quants, eight weights after eight, and a plane of what the weights
//! of a block share. No bit is added and none is lost; the texts in shaders/formats say what stands where.

use crate::DType;

/// Blocks of as many rows as these are packed at once: the planes repeat at most every so many blocks.
pub(super) const UNIT: usize = 4;

/// Packs a block as number so many of a plane of quants and a plane of scales.
type Pack = fn(&[u8], usize, &mut [u8], &mut [u8]);

/// How blocks of a type become two planes.
pub(super) struct Planes {
    /// Bytes of [`UNIT`] blocks in the plane of quants.
    pub(super) quants: usize,
    /// Bytes of [`UNIT`] blocks in the plane of scales.
    pub(super) scales: usize,
    pack: Pack,
}

impl Planes {
    /// `None` for types that have no blocks.
    pub(super) fn of(dtype: DType) -> Option<Self> {
        let (scales, pack): (usize, Pack) = match dtype {
            DType::F32 | DType::F16 | DType::Bf16 => return None,
            DType::Q8_0 => (2, q8_0),
            DType::Q4_0 | DType::Iq4Nl => (2, q4_0),
            DType::Q4_1 => (4, q4_1),
            DType::Q5_0 => (2, q5_0),
            DType::Q5_1 => (4, q5_1),
            DType::Q2K => (20, q2_k),
            DType::Q3K => (14, q3_k),
            DType::Q4K => (16, q4_k),
            DType::Q5K => (16, q5_k),
            DType::Q6K => (18, q6_k),
            DType::Iq4Xs => (8, iq4_xs),
        };
        Some(Self { quants: UNIT * (dtype.block().1 - scales), scales: UNIT * scales, pack })
    }

    /// Packs a block as number `at` of planes that hold a multiple of [`UNIT`] blocks.
    pub(super) fn pack(&self, block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
        (self.pack)(block, at, quants, scales);
    }
}

/// Fields of BITS bits of eight bytes from `at` on, the field of each that begins at bit `shift`, next to each other.
fn gather<const BITS: u32>(bytes: &[u8], at: usize, shift: usize) -> u32 {
    let eight = bytes[at..].first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight));
    let mut x = eight >> shift & (0x0101_0101_0101_0101 * ((1 << BITS) - 1));
    for (step, spread) in [(1, 0x0001_0001_0001_0001), (2, 0x0000_0001_0000_0001), (4, 1)] {
        x = (x | x >> (step * (8 - BITS))) & (spread * ((1 << (2 * step * BITS)) - 1));
    }
    x as u32
}

fn put(plane: &mut [u8], at: usize, bytes: &[u8]) {
    plane[at..][..bytes.len()].copy_from_slice(bytes);
}

fn put_word(plane: &mut [u8], word: usize, value: u32) {
    put(plane, 4 * word, &value.to_le_bytes());
}

fn put_half(plane: &mut [u8], half: usize, value: u32) {
    put(plane, 2 * half, &(value as u16).to_le_bytes());
}

/// Half bytes of a block of 32 from `from` on, as four words; ggml has element i + 16 beside element i.
fn nibbles(block: &[u8], from: usize, quants: &mut [u8], word: usize) {
    for group in 0..4 {
        put_word(quants, word + group, gather::<4>(block, from + group % 2 * 8, group / 2 * 4));
    }
}

fn q8_0(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
    put(quants, 32 * at, &block[2..34]);
    put(scales, 2 * at, &block[..2]);
}

fn q4_0(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
    nibbles(block, 2, quants, 4 * at);
    put(scales, 2 * at, &block[..2]);
}

fn q4_1(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
    nibbles(block, 4, quants, 4 * at);
    put(scales, 4 * at, &block[..4]);
}

/// Half bytes and fifth bits, the latter in four bytes at `fifth`.
fn five_bits(block: &[u8], fifth: usize, at: usize, quants: &mut [u8]) {
    let start = at / 4 * 20;
    nibbles(block, fifth + 4, quants, start + at % 4 * 4);
    put(quants, 4 * (start + 16 + at % 4), &block[fifth..][..4]);
}

fn q5_0(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
    five_bits(block, 2, at, quants);
    put(scales, 2 * at, &block[..2]);
}

fn q5_1(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
    five_bits(block, 4, at, quants);
    put(scales, 4 * at, &block[..4]);
}

/// Pairs of bits of eight elements in a block of 256: of each 32 bytes from `from` on, the lowest pairs are 32 elements, the
/// next ones the next 32.
fn two_bits(block: &[u8], from: usize, group: usize) -> u32 {
    gather::<2>(block, from + group / 16 * 32 + group % 4 * 8, group % 16 / 4 * 2)
}

/// Bits of eight elements in a block of 256, of 32 bytes from `from` on: the lowest bits are 32 elements, and so on.
fn one_bit(block: &[u8], from: usize, group: usize) -> u8 {
    gather::<1>(block, from + group % 4 * 8, group / 4) as u8
}

/// Half bytes of eight elements in a block of 256: of each 32 bytes from `from` on, the low halves are 32 elements, the high
/// halves the next 32.
fn four_bits(block: &[u8], from: usize, group: usize) -> u32 {
    gather::<4>(block, from + group / 8 * 32 + group % 4 * 8, group % 8 / 4 * 4)
}

fn q2_k(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
    for group in 0..32 {
        put_half(quants, 32 * at + group, two_bits(block, 16, group));
    }
    put(scales, 20 * at, &block[80..84]);
    put(scales, 20 * at + 4, &block[..16]);
}

fn q3_k(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
    for group in 0..32 {
        let start = 96 * at + group / 16 * 48;
        put_half(quants, start / 2 + group % 16, two_bits(block, 32, group));
        put(quants, start + 32 + group % 16, &[one_bit(block, 0, group)]);
    }
    let (pair, codes) = (28 * (at / 2), &block[96..108]);
    let high = [0, 2, 4, 6].map(|shift| (0..4).fold(0, |byte, i| byte | (codes[8 + i] >> shift & 3) << (2 * i)));
    let word = pair / 4 + at % 2 * 3;
    put_word(scales, word, gather::<4>(codes, 0, 0));
    put_word(scales, word + 1, gather::<4>(codes, 0, 4));
    put(scales, 4 * (word + 2), &high);
    put(scales, pair + 24 + at % 2 * 2, &block[108..110]);
}

/// Halves d and m, then twelve bytes of 8 scales and 8 offsets of six bits.
fn scales_and_offsets(block: &[u8], at: usize, scales: &mut [u8]) {
    let codes = &block[4..16];
    let (mut low, mut low_offsets, mut high) = (0u32, 0u32, 0u32);
    for i in 0..4 {
        let [a, b, c] = [codes[i], codes[i + 4], codes[i + 8]].map(u32::from);
        low |= (a & 15) << (4 * i) | (c & 15) << (4 * i + 16);
        low_offsets |= (b & 15) << (4 * i) | (c >> 4) << (4 * i + 16);
        high |= (a >> 4 & 3) << (2 * i) | (a >> 6) << (2 * i + 8);
        high |= (b >> 4 & 3) << (2 * i + 16) | (b >> 6) << (2 * i + 24);
    }
    put(scales, 16 * at, &block[..4]);
    put_word(scales, 4 * at + 1, low);
    put_word(scales, 4 * at + 2, low_offsets);
    put_word(scales, 4 * at + 3, high);
}

fn q4_k(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
    for group in 0..32 {
        put_word(quants, 32 * at + group, four_bits(block, 16, group));
    }
    scales_and_offsets(block, at, scales);
}

fn q5_k(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
    for group in 0..32 {
        let start = 40 * at + group / 16 * 20;
        put_word(quants, start + group % 16, four_bits(block, 48, group));
        put(quants, 4 * (start + 16) + group % 16, &[one_bit(block, 16, group)]);
    }
    scales_and_offsets(block, at, scales);
}

fn q6_k(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
    for group in 0..32 {
        let start = 48 * at + group / 8 * 12;
        // of each 64 bytes the low halves are 64 elements
        let low = gather::<4>(block, group / 16 * 64 + group % 8 * 8, group % 16 / 8 * 4);
        put_word(quants, start + group % 8, low);
        put_half(quants, 2 * (start + 8) + group % 8, two_bits(block, 128, group));
    }
    let pair = 36 * (at / 2);
    put(scales, pair + at % 2 * 16, &block[192..208]);
    put(scales, pair + 32 + at % 2 * 2, &block[208..210]);
}

fn iq4_xs(block: &[u8], at: usize, quants: &mut [u8], scales: &mut [u8]) {
    for eighth in 0..8 {
        nibbles(block, 8 + 16 * eighth, quants, 32 * at + 4 * eighth);
    }
    put(scales, 8 * at, &block[..8]);
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

    /// So that the planes are as large as the blocks and hold all that they do.
    #[test]
    fn every_bit_of_a_block_has_one_place() {
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_quantised()) {
            let planes = Planes::of(dtype).unwrap();
            let size = dtype.block().1;
            assert_eq!(planes.quants + planes.scales, UNIT * size);
            let mut random = Random(5);
            let mut blocks: Vec<u8> = (0..UNIT * size).map(|_| random.bits() as u8).collect();
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
