//! Activations in eight bits: 32 whole numbers from -127 to 127 and a scale, and what the kernel wants to know of their
//! sums.

/// Elements of a unit.
pub(super) const UNIT: usize = 32;

/// 32 activations, on one cache line.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Unit {
    /// Element i is `scale * quants[i]`.
    pub(super) quants: [i8; UNIT],
    pub(super) scale: f32,
    /// Minus the weights' offset times the sum of the quants: of each 16, or in the first place of all 32.
    pub(super) start: [i32; 2],
    /// The sum of the elements: of each 16, or in the first place of all 32.
    pub(super) sum: [f32; 2],
    rest: [u32; 3],
}

impl Unit {
    /// Quad i as one number.
    #[inline(always)]
    pub(super) fn quad(&self, i: usize) -> i32 {
        let q = &self.quants[4 * i..4 * i + 4];
        i32::from_le_bytes([q[0] as u8, q[1] as u8, q[2] as u8, q[3] as u8])
    }
}

/// Quantises a row for weights whose elements stand `offset` too high, with a scale for each 16 of them or each 32.
///
/// Units lie `step` apart. What is missing at the end of a row counts as zero.
#[inline(always)]
pub(super) fn quantise(x: &[f32], offset: i32, sixteens: bool, units: &mut [Unit], step: usize) {
    let (whole, rest) = x.as_chunks::<UNIT>();
    for (x, unit) in whole.iter().zip(units.iter_mut().step_by(step)) {
        one(x, offset, sixteens, unit);
    }
    if !rest.is_empty() {
        let mut last = [0.0; UNIT];
        last[..rest.len()].copy_from_slice(rest);
        one(&last, offset, sixteens, &mut units[whole.len() * step]);
    }
}

#[inline(always)]
fn one(x: &[f32; UNIT], offset: i32, sixteens: bool, unit: &mut Unit) {
    // magnitudes order as their bits do, and a NaN is the largest
    let most = f32::from_bits(x.iter().fold(0, |most, v| most.max(v.to_bits() & 0x7fff_ffff)));
    // the inverse of less might be infinite
    let inverse = if most > 1e-32 { 127.0 / most } else { 0.0 };
    // adding this rounds to a whole number, ties to even, in the lowest bits
    const ROUND: f32 = 12_582_912.0;
    let mut quants = [0i32; UNIT];
    for (quant, x) in quants.iter_mut().zip(x) {
        *quant = ((x * inverse + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    }
    for (to, quant) in unit.quants.iter_mut().zip(quants) {
        *to = quant as i8;
    }
    unit.scale = most / 127.0;
    // what stands for a NaN is no small number
    let sum = |quants: &[i32]| quants.iter().fold(0, |sum: i32, quant| sum.wrapping_add(*quant));
    let (low, high) = (sum(&quants[..UNIT / 2]), sum(&quants[UNIT / 2..]));
    let sums = if sixteens { [low, high] } else { [low.wrapping_add(high), 0] };
    unit.start = sums.map(|sum| sum.wrapping_mul(-offset));
    unit.sum = sums.map(|sum| unit.scale * sum as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_stands_for_its_activations() {
        let x: Vec<f32> = (0..70).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.03).collect();
        let mut units = [bytemuck::Zeroable::zeroed(); 3];
        quantise(&x, 8, true, &mut units, 1);
        for (i, v) in x.iter().enumerate() {
            let unit: &Unit = &units[i / 32];
            let found = unit.scale * f32::from(unit.quants[i % 32]);
            assert!((found - v).abs() <= 0.5001 * unit.scale, "element {i}: {v} became {found}");
        }
        let sum: i32 = units[1].quants[16..].iter().map(|&q| i32::from(q)).sum();
        assert_eq!(units[1].start[1], -8 * sum);
        assert_eq!(units[1].sum[1], units[1].scale * sum as f32);
        assert_eq!(units[2].quants[6..], [0; 26]);
    }

    #[test]
    fn zeros_and_what_is_not_finite() {
        let mut units = [bytemuck::Zeroable::zeroed(); 1];
        quantise(&[0.0; 32], 8, false, &mut units, 1);
        assert_eq!((units[0].quants, units[0].scale), ([0; 32], 0.0));
        let mut x = [1.0; 32];
        x[3] = f32::NAN;
        quantise(&x, 8, false, &mut units, 1);
        assert!(units[0].scale.is_nan());
    }
}
