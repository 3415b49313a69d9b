//! Functions of single precision, written once over [`Simd`]: the rounding of a multiply-add depends on the instruction set.

use super::simd::Simd;

#[inline(always)]
pub(crate) fn fma<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x`, to 6e-7 of itself; 0 below -87, and at most `e^88`.
///
/// The whole part of the exponent in base 2 is added to the bits; a polynomial of degree 5 gives the rest.
#[inline(always)]
pub(crate) fn exp<S: Simd>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let bounded = if x > 88.0 { 88.0 } else { x };
    let bounded = if bounded < -87.0 { -87.0 } else { bounded };
    let shifted = fma::<S>(bounded, std::f32::consts::LOG2_E, ROUND);
    let whole = shifted - ROUND;
    let rest = fma::<S>(whole, -0.693_359_4, bounded);
    let rest = fma::<S>(whole, 2.121_944_4e-4, rest);
    let mut sum = 8.369_148e-3;
    for factor in [4.194_512_6e-2, 0.166_662_77, 0.499_988_67, 1.0, 1.0] {
        sum = fma::<S>(sum, rest, factor);
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if x < -87.0 { 0.0 } else { sum * power }
}

#[inline(always)]
pub(crate) fn silu<S: Simd>(x: f32) -> f32 {
    x / (1.0 + exp::<S>(-x))
}

/// GELU by an erf that is accurate to 1.5e-7 (Abramowitz and Stegun, 7.1.26).
#[inline(always)]
pub(crate) fn gelu_erf<S: Simd>(y: f32) -> f32 {
    let x = y.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let mut sum = 1.061_405_4;
    for factor in [-1.453_152, 1.421_413_8, -0.284_496_74, 0.254_829_6] {
        sum = fma::<S>(sum, t, factor);
    }
    let tail = sum * t * exp::<S>(-x * x);
    // a negative y takes the complement itself, without cancellation
    0.5 * y * if y < 0.0 { tail } else { 2.0 - tail }
}
