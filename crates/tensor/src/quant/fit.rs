//! Scales of least square error, by a search around the scale of the extreme value.

use half::f16;

/// The value of largest magnitude, the first of equal ones, with its sign.
#[inline(always)]
pub(super) fn extreme(x: &[f32]) -> f32 {
    x.iter().fold((0.0f32, 0.0f32), |(size, most), &v| if v.abs() > size { (v.abs(), v) } else { (size, most) }).1
}

/// Signed scales of the groups of a block as multiples `-n ..= n - 1` of a half: the half and the multiples.
pub(super) fn scales_of(groups: &[f32], n: i32) -> (f16, Vec<i32>) {
    let d = f16::from_f32(extreme(groups) / -n as f32);
    let inverse = inverse(d.to_f32());
    (d, groups.iter().map(|s| level(s * inverse, -n, n - 1)).collect())
}

/// `1 / x`, and 0 where that is not finite.
#[inline(always)]
pub(super) fn inverse(x: f32) -> f32 {
    let inverse = 1.0 / x;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The integer nearest to x within `low ..= high`; ties away from zero.
pub(super) fn level(x: f32, low: i32, high: i32) -> i32 {
    (x.round() as i32).clamp(low, high)
}

/// As [`level`], for values far below 2^22 and with ties to even, in three operations that the compiler vectorizes.
#[inline(always)]
pub(super) fn near(x: f32, low: f32, high: f32) -> f32 {
    /// Sums with this number have no fraction in f32.
    const WHOLE: f32 = 12_582_912.0;
    (x + WHOLE - WHOLE).max(low).min(high)
}

/// Scales of the search: steps of a tenth of a quant to both sides of the scale of the extreme value.
const STEPS: std::ops::RangeInclusive<i32> = -12..=12;

/// Lanes of the sums; groups have 16 or 32 values.
const LANES: usize = 8;

/// Defines a function that is also compiled for AVX2, used where AVX2 is available: the same operations, and so the same bits, on
/// more lanes.
macro_rules! wide {
    ($(#[$doc:meta])* fn $name:ident $(<$f:ident: $bound:path>)? ($($arg:ident: $ty:ty),*) -> $out:ty = $inner:ident) => {
        $(#[$doc])*
        pub(super) fn $name $(<$f: $bound>)? ($($arg: $ty),*) -> $out {
            #[cfg(target_arch = "x86_64")]
            if crate::cpu::Isa::Avx2.available() {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn go $(<$f: $bound>)? ($($arg: $ty),*) -> $out {
                    $inner($($arg),*)
                }
                // SAFETY: AVX2, FMA and F16C are available (checked above).
                return unsafe { go($($arg),*) };
            }
            $inner($($arg),*)
        }
    };
}

/// Sums of `terms` over the values of a group.
#[inline(always)]
fn sums<const N: usize>(x: &[f32], terms: impl Fn(f32) -> [f32; N]) -> [f32; N] {
    let mut lanes = [[0.0f32; LANES]; N];
    for values in x.chunks_exact(LANES) {
        for (i, &v) in values.iter().enumerate() {
            let terms = terms(v);
            for (lane, term) in lanes.iter_mut().zip(terms) {
                lane[i] += term;
            }
        }
    }
    lanes.map(|lane| lane.iter().sum())
}

wide! {
    /// The scale d of least `Σ (x - d q)²`, where `quantize` gives q from the inverse of a scale near `extreme / reach`.
    fn scale<Q: Quantize>(x: &[f32], reach: f32, quantize: Q) -> f32 = tried_scale
}

/// Quantizer of a value.
pub(super) trait Quantize: Fn(f32) -> f32 {}

impl<F: Fn(f32) -> f32> Quantize for F {}

#[inline(always)]
fn tried_scale<Q: Quantize>(x: &[f32], reach: f32, quantize: Q) -> f32 {
    let most = extreme(x);
    let mut best = (0.0, 0.0);
    for step in STEPS {
        let inverse = inverse(most) * (reach + step as f32 * 0.1);
        let [xq, qq] = sums(x, |v| {
            let q = quantize(v * inverse);
            [v * q, q * q]
        });
        // reduction of the error Σ x²
        let gain = xq * xq / qq;
        if gain > best.0 {
            best = (gain, xq / qq);
        }
    }
    best.1
}

wide! {
    /// Scale and minimum of least `Σ (x - d q + m)²`, for q in `0 ..= levels` and m >= 0.
    fn scale_min(x: &[f32], levels: i32) -> (f32, f32) = tried_scale_min
}

#[inline(always)]
fn tried_scale_min(x: &[f32], levels: i32) -> (f32, f32) {
    let low = x.iter().copied().fold(0.0f32, f32::min);
    let high = x.iter().copied().fold(0.0f32, f32::max);
    let (n, most) = (x.len() as f32, levels as f32);
    let [sum] = sums(x, |v| [v]);
    let mut best = (f32::INFINITY, 0.0, -low);
    for step in STEPS {
        let inverse = inverse(high - low) * (most + step as f32 * 0.1);
        let choose = |v: f32| near((v - low) * inverse, 0.0, most);
        let [q1, q2, xq] = sums(x, |v| {
            let q = choose(v);
            [q, q * q, v * q]
        });
        let determinant = n * q2 - q1 * q1;
        let mut scale = (n * xq - sum * q1) / determinant;
        let mut offset = (q2 * sum - q1 * xq) / determinant;
        // with the same q for all values the offset is undetermined
        if offset > 0.0 || determinant <= 0.0 {
            (scale, offset) = (xq / q2, 0.0);
        }
        let [error] = sums(x, |v| {
            let d = scale * choose(v) + offset - v;
            [d * d]
        });
        if error < best.0 {
            best = (error, scale, -offset);
        }
    }
    (best.1, best.2)
}
