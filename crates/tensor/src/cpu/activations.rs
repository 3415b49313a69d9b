//! Activations in eight bits: 32 whole numbers from -127 to 127 and a scale, and what the kernel wants to know of their
//! sums.

/// Elements of a unit.
pub(super) const Q8_LEN: usize = 32;

/// Bits of an f32 below its exponent.
const EXPONENT: u32 = 23;

/// Units with a scale this many powers of two below the largest of their row have no smaller one.
const RANGE: u32 = 40;

/// 32 activations, on one cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct BlockQ8 {
    /// Element i is `base * scale * quants[i]`.
    pub(super) quants: [i8; Q8_LEN],
    /// The same for all units of a row: 1 where scales need not be powers of two.
    pub(super) base: f32,
    pub(super) scale: f32,
    /// Where the scale is a power of two: what to add to a number's bits to multiply it with the scale.
    pub(super) power: i32,
    /// Minus the weights' offset times the sum of the quants: of each 16, or in the first place of all 32.
    pub(super) start: [i32; 2],
    /// The sum of the elements, in units of the base: of each 16, or in the first place of all 32.
    pub(super) sum: [f32; 2],
    rest: u32,
}

impl BlockQ8 {
    /// Quad i as one number.
    #[inline(always)]
    pub(super) fn quad(&self, i: usize) -> i32 {
        let q = &self.quants[4 * i..4 * i + 4];
        i32::from_le_bytes([q[0] as u8, q[1] as u8, q[2] as u8, q[3] as u8])
    }
}

/// What weights want of units.
#[derive(Clone, Copy)]
pub(super) struct Q8Options {
    /// What the weights' elements stand too high.
    pub(super) offset: i32,
    /// Sums of each 16 elements.
    pub(super) sixteens: bool,
    /// Scales that are powers of two.
    pub(super) powers: bool,
}

/// Quantises a row. Units lie `step` apart. What is missing at the end of a row counts as zero.
#[inline(always)]
pub(super) fn quantise(x: &[f32], wants: Q8Options, units: &mut [BlockQ8], step: usize) {
    let (whole, rest) = x.as_chunks::<Q8_LEN>();
    let mut last = [0.0; Q8_LEN];
    last[..rest.len()].copy_from_slice(rest);
    let last = (!rest.is_empty()).then_some(&last);
    let reach = (x.len().div_ceil(Q8_LEN) * step).min(units.len());
    let units = &mut units[..reach];
    for (x, unit) in whole.iter().chain(last).zip(units.iter_mut().step_by(step)) {
        unit.base = 1.0;
        unit.scale = largest(x) / 127.0;
    }
    if wants.powers {
        round_scales(units, step);
    }
    for (x, unit) in whole.iter().chain(last).zip(units.iter_mut().step_by(step)) {
        one(x, wants, unit);
    }
}

/// The largest magnitude; a NaN is larger than all.
#[inline(always)]
fn largest(x: &[f32; Q8_LEN]) -> f32 {
    // magnitudes order as their bits do
    f32::from_bits(x.iter().fold(0, |most, v| most.max(v.to_bits() & 0x7fff_ffff)))
}

/// Rounds the scales of a row up to powers of two, and gives them a base that is [`RANGE`] of these below the largest: none
/// is smaller.
#[inline(always)]
fn round_scales(units: &mut [BlockQ8], step: usize) {
    let exponent = |scale: f32| (scale.to_bits() + (1 << EXPONENT) - 1) >> EXPONENT;
    let most = units.iter().step_by(step).map(|unit| exponent(unit.scale)).fold(0, u32::max);
    let least = most.saturating_sub(RANGE).max(1);
    let finite = most < exponent(f32::INFINITY);
    for unit in units.iter_mut().step_by(step) {
        let power = exponent(unit.scale).saturating_sub(least).min(RANGE) << EXPONENT;
        unit.base = if finite { f32::from_bits(least << EXPONENT) } else { f32::NAN };
        unit.scale = f32::from_bits(1.0f32.to_bits() + power);
        unit.power = power as i32;
    }
}

/// The nearest whole number, ties to even, of numbers below 2^22; of others any.
#[inline(always)]
pub(super) fn rounded(x: f32) -> i32 {
    // adding this rounds, and leaves the number in the lowest bits
    const ROUND: f32 = 12_582_912.0;
    ((x + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32)
}

#[inline(always)]
fn one(x: &[f32; Q8_LEN], wants: Q8Options, unit: &mut BlockQ8) {
    let scale = unit.base * unit.scale;
    // the inverse of less might be infinite
    let inverse = if scale > 1e-38 { 1.0 / scale } else { 0.0 };
    let mut quants = [0i32; Q8_LEN];
    for (quant, x) in quants.iter_mut().zip(x) {
        *quant = rounded(x * inverse);
    }
    for (to, quant) in unit.quants.iter_mut().zip(quants) {
        *to = quant as i8;
    }
    // what stands for a NaN is no small number
    let sum = |quants: &[i32]| quants.iter().fold(0, |sum: i32, quant| sum.wrapping_add(*quant));
    let (low, high) = (sum(&quants[..Q8_LEN / 2]), sum(&quants[Q8_LEN / 2..]));
    let sums = if wants.sixteens { [low, high] } else { [low.wrapping_add(high), 0] };
    unit.start = sums.map(|sum| sum.wrapping_mul(-wants.offset));
    unit.sum = sums.map(|sum| unit.scale * sum as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_stands_for_its_activations() {
        for powers in [false, true] {
            stands(Q8Options { offset: 8, sixteens: true, powers });
        }
    }

    fn stands(wants: Q8Options) {
        let x: Vec<f32> = (0..70).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.03).collect();
        let mut units = [bytemuck::Zeroable::zeroed(); 3];
        quantise(&x, wants, &mut units, 1);
        for (i, v) in x.iter().enumerate() {
            let unit: &BlockQ8 = &units[i / 32];
            let found = unit.base * unit.scale * f32::from(unit.quants[i % 32]);
            assert!((found - v).abs() <= 0.5001 * unit.base * unit.scale, "element {i}: {v} became {found}");
        }
        let sum: i32 = units[1].quants[16..].iter().map(|&q| i32::from(q)).sum();
        assert_eq!(units[1].start[1], -8 * sum);
        assert_eq!(units[1].sum[1], units[1].scale * sum as f32);
        assert_eq!(units[2].quants[6..], [0; 26]);
    }

    #[test]
    fn zeros_and_what_is_not_finite() {
        for (powers, bad) in [(false, f32::NAN), (true, f32::NAN), (true, f32::INFINITY)] {
            let wants = Q8Options { offset: 8, sixteens: false, powers };
            let mut units = [bytemuck::Zeroable::zeroed(); 2];
            quantise(&[0.0; 64], wants, &mut units, 1);
            assert_eq!((units[0].quants, units[0].sum), ([0; 32], [0.0; 2]));
            assert!((units[0].base * units[0].scale).is_finite());
            let mut x = [1.0; 64];
            x[3] = bad;
            quantise(&x, wants, &mut units, 1);
            assert!((units[0].base * units[0].scale).is_nan());
        }
    }

    #[test]
    fn powers_of_two_reach_from_the_largest_to_the_smallest_numbers() {
        let wants = Q8Options { offset: 0, sixteens: false, powers: true };
        for largest in [1e38, 127.0, 1.0, 1e-30] {
            let x: Vec<f32> = [1.0, 1e-3, 1e-20].iter().flat_map(|part| [largest * part; 32]).collect();
            let mut units = [bytemuck::Zeroable::zeroed(); 3];
            quantise(&x, wants, &mut units, 1);
            for (x, unit) in x.chunks(32).zip(&units as &[BlockQ8; 3]) {
                assert_eq!(unit.power as u32, unit.scale.to_bits() - 1.0f32.to_bits());
                let found = unit.base * unit.scale * f32::from(unit.quants[0]);
                assert!((found - x[0]).abs() <= 0.0079 * x[0] + 1e-12 * largest, "{largest}: {} became {found}", x[0]);
            }
            assert!(units[0].quants[0] > 63);
        }
    }
}
