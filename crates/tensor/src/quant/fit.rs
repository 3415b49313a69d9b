//! Scales of least square error, by trying a few around the obvious one.

/// The value of largest magnitude, the first of equal ones, with its sign.
pub(super) fn extreme(x: &[f32]) -> f32 {
    x.iter().fold((0.0f32, 0.0f32), |(size, most), &v| if v.abs() > size { (v.abs(), v) } else { (size, most) }).1
}

/// `1 / x`, and 0 where that is not finite.
pub(super) fn inverse(x: f32) -> f32 {
    let inverse = 1.0 / x;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The whole number nearest to x within `low ..= high`; ties away from zero.
pub(super) fn level(x: f32, low: i32, high: i32) -> i32 {
    (x.round() as i32).clamp(low, high)
}

/// Tried scales: steps of a tenth of a level to both sides of the one that reaches the extreme value.
const STEPS: std::ops::RangeInclusive<i32> = -12..=12;

/// The d of least `Σ (x - d q)²` where `quantise` chooses q by the inverse of a scale near `extreme / reach`.
pub(super) fn scale(x: &[f32], reach: f32, quantise: impl Fn(f32) -> f32) -> f32 {
    let most = extreme(x);
    let mut best = (0.0, 0.0);
    for step in STEPS {
        let inverse = inverse(most) * (reach + step as f32 * 0.1);
        let (mut xq, mut qq) = (0.0f32, 0.0f32);
        for &v in x {
            let q = quantise(v * inverse);
            xq += v * q;
            qq += q * q;
        }
        // what the error loses against Σ x²
        let gain = xq * xq / qq;
        if gain > best.0 {
            best = (gain, xq / qq);
        }
    }
    best.1
}

/// Scale and minimum of least `Σ (x - d q + m)²` with q of `0 ..= levels` and m of at least 0.
pub(super) fn scale_min(x: &[f32], levels: i32) -> (f32, f32) {
    let low = x.iter().copied().fold(0.0f32, f32::min);
    let high = x.iter().copied().fold(0.0f32, f32::max);
    let n = x.len() as f32;
    let sum: f32 = x.iter().sum();
    let mut best = (f32::INFINITY, 0.0, -low);
    for step in STEPS {
        let inverse = inverse(high - low) * (levels as f32 + step as f32 * 0.1);
        let (mut q1, mut q2, mut xq) = (0.0f32, 0.0f32, 0.0f32);
        for &v in x {
            let q = level((v - low) * inverse, 0, levels) as f32;
            q1 += q;
            q2 += q * q;
            xq += v * q;
        }
        let determinant = n * q2 - q1 * q1;
        let mut scale = (n * xq - sum * q1) / determinant;
        let mut offset = (q2 * sum - q1 * xq) / determinant;
        // one level for all values leaves the offset open
        if offset > 0.0 || determinant <= 0.0 {
            (scale, offset) = (xq / q2, 0.0);
        }
        let error: f32 = x
            .iter()
            .map(|&v| {
                let q = level((v - low) * inverse, 0, levels) as f32;
                let d = scale * q + offset - v;
                d * d
            })
            .sum();
        if error < best.0 {
            best = (error, scale, -offset);
        }
    }
    (best.1, best.2)
}
