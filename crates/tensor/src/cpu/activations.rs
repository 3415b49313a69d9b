//! Activations in eight bits: blocks of 32 quants from -127 to 127 with a scale, and the sums that the kernels correct by.

/// Elements of a block.
pub(super) const Q8_LEN: usize = 32;

/// Bits of an f32 below its exponent.
const EXPONENT: u32 = 23;

/// Least scale of a block, in powers of two below the largest scale of its row, where scales are powers of two.
const RANGE: u32 = 40;

/// 32 activations, on one cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct BlockQ8 {
    /// Quants: element i is `base * scale * quants[i]`.
    pub(super) quants: [i8; Q8_LEN],
    /// Factor of all blocks of a row; 1 where scales need not be powers of two.
    pub(super) base: f32,
    pub(super) scale: f32,
    /// Increment of an f32's bits that multiplies it by the scale, where scales are powers of two.
    pub(super) power: i32,
    /// Start of the integer sums: minus the weights' zero point times the sum of the quants. Of each 16 elements, or of all 32 at
    /// index 0.
    pub(super) start: [i32; 2],
    /// Sum of the elements, divided by the base. Of each 16 elements, or of all 32 at index 0.
    pub(super) sum: [f32; 2],
    rest: u32,
}

impl BlockQ8 {
    /// Quants 4i to 4i + 3 as one 4-byte word.
    #[inline(always)]
    pub(super) fn word(&self, i: usize) -> i32 {
        let q = &self.quants[4 * i..4 * i + 4];
        i32::from_le_bytes([q[0] as u8, q[1] as u8, q[2] as u8, q[3] as u8])
    }
}

/// Parameters of the blocks, which depend on the type of the weights.
#[derive(Clone, Copy)]
pub(super) struct Q8Options {
    /// Zero point subtracted from each quant of the weights.
    pub(super) zero_point: i32,
    /// Whether sums are of each 16 elements.
    pub(super) sixteens: bool,
    /// Whether scales are powers of two.
    pub(super) powers: bool,
}

/// Quantizes a row into blocks `step` apart. The last block is padded with zeros.
#[inline(always)]
pub(super) fn quantize(x: &[f32], options: Q8Options, blocks: &mut [BlockQ8], step: usize) {
    let (whole, rest) = x.as_chunks::<Q8_LEN>();
    let mut last = [0.0; Q8_LEN];
    last[..rest.len()].copy_from_slice(rest);
    let last = (!rest.is_empty()).then_some(&last);
    let reach = (x.len().div_ceil(Q8_LEN) * step).min(blocks.len());
    let blocks = &mut blocks[..reach];
    for (x, block) in whole.iter().chain(last).zip(blocks.iter_mut().step_by(step)) {
        block.base = 1.0;
        block.scale = largest(x) / 127.0;
    }
    if options.powers {
        round_scales(blocks, step);
    }
    for (x, block) in whole.iter().chain(last).zip(blocks.iter_mut().step_by(step)) {
        one(x, options, block);
    }
}

/// The largest magnitude; a NaN is larger than all.
#[inline(always)]
fn largest(x: &[f32; Q8_LEN]) -> f32 {
    // magnitudes have the order of their bits
    f32::from_bits(x.iter().fold(0, |most, v| most.max(v.to_bits() & 0x7fff_ffff)))
}

/// Rounds the scales of a row up to powers of two. The base is the largest of them divided by `2^RANGE`, a lower bound of all.
#[inline(always)]
fn round_scales(blocks: &mut [BlockQ8], step: usize) {
    let exponent = |scale: f32| (scale.to_bits() + (1 << EXPONENT) - 1) >> EXPONENT;
    let most = blocks.iter().step_by(step).map(|block| exponent(block.scale)).fold(0, u32::max);
    let least = most.saturating_sub(RANGE).max(1);
    let finite = most < exponent(f32::INFINITY);
    for block in blocks.iter_mut().step_by(step) {
        let power = exponent(block.scale).saturating_sub(least).min(RANGE) << EXPONENT;
        block.base = if finite { f32::from_bits(least << EXPONENT) } else { f32::NAN };
        block.scale = f32::from_bits(1.0f32.to_bits() + power);
        block.power = power as i32;
    }
}

/// The nearest integer, ties to even, of numbers below 2^22; any integer for others.
#[inline(always)]
pub(super) fn rounded(x: f32) -> i32 {
    // adding this number rounds, and leaves the integer in the lowest bits
    const ROUND: f32 = 12_582_912.0;
    ((x + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32)
}

#[inline(always)]
fn one(x: &[f32; Q8_LEN], options: Q8Options, block: &mut BlockQ8) {
    let scale = block.base * block.scale;
    // the inverse of a smaller scale may be infinite
    let inverse = if scale > 1e-38 { 1.0 / scale } else { 0.0 };
    let mut quants = [0i32; Q8_LEN];
    for (quant, x) in quants.iter_mut().zip(x) {
        *quant = rounded(x * inverse);
    }
    for (to, quant) in block.quants.iter_mut().zip(quants) {
        *to = quant as i8;
    }
    // the quant of a NaN may be any i32, so that sums wrap
    let sum = |quants: &[i32]| quants.iter().fold(0, |sum: i32, quant| sum.wrapping_add(*quant));
    let (low, high) = (sum(&quants[..Q8_LEN / 2]), sum(&quants[Q8_LEN / 2..]));
    let sums = if options.sixteens { [low, high] } else { [low.wrapping_add(high), 0] };
    block.start = sums.map(|sum| sum.wrapping_mul(-options.zero_point));
    block.sum = sums.map(|sum| block.scale * sum as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_stands_for_its_activations() {
        for powers in [false, true] {
            stands(Q8Options { zero_point: 8, sixteens: true, powers });
        }
    }

    fn stands(options: Q8Options) {
        let x: Vec<f32> = (0..70).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.03).collect();
        let mut blocks = [bytemuck::Zeroable::zeroed(); 3];
        quantize(&x, options, &mut blocks, 1);
        for (i, v) in x.iter().enumerate() {
            let block: &BlockQ8 = &blocks[i / 32];
            let found = block.base * block.scale * f32::from(block.quants[i % 32]);
            assert!((found - v).abs() <= 0.5001 * block.base * block.scale, "element {i}: {v} became {found}");
        }
        let sum: i32 = blocks[1].quants[16..].iter().map(|&q| i32::from(q)).sum();
        assert_eq!(blocks[1].start[1], -8 * sum);
        assert_eq!(blocks[1].sum[1], blocks[1].scale * sum as f32);
        assert_eq!(blocks[2].quants[6..], [0; 26]);
    }

    #[test]
    fn zeros_and_what_is_not_finite() {
        for (powers, bad) in [(false, f32::NAN), (true, f32::NAN), (true, f32::INFINITY)] {
            let options = Q8Options { zero_point: 8, sixteens: false, powers };
            let mut blocks = [bytemuck::Zeroable::zeroed(); 2];
            quantize(&[0.0; 64], options, &mut blocks, 1);
            assert_eq!((blocks[0].quants, blocks[0].sum), ([0; 32], [0.0; 2]));
            assert!((blocks[0].base * blocks[0].scale).is_finite());
            let mut x = [1.0; 64];
            x[3] = bad;
            quantize(&x, options, &mut blocks, 1);
            assert!((blocks[0].base * blocks[0].scale).is_nan());
        }
    }

    #[test]
    fn powers_of_two_reach_from_the_largest_to_the_smallest_numbers() {
        let options = Q8Options { zero_point: 0, sixteens: false, powers: true };
        for largest in [1e38, 127.0, 1.0, 1e-30] {
            let x: Vec<f32> = [1.0, 1e-3, 1e-20].iter().flat_map(|part| [largest * part; 32]).collect();
            let mut blocks = [bytemuck::Zeroable::zeroed(); 3];
            quantize(&x, options, &mut blocks, 1);
            for (x, block) in x.chunks(32).zip(&blocks as &[BlockQ8; 3]) {
                assert_eq!(block.power as u32, block.scale.to_bits() - 1.0f32.to_bits());
                let found = block.base * block.scale * f32::from(block.quants[0]);
                assert!((found - x[0]).abs() <= 0.0079 * x[0] + 1e-12 * largest, "{largest}: {} became {found}", x[0]);
            }
            assert!(blocks[0].quants[0] > 63);
        }
    }
}
