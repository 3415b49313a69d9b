//! Exponential, logarithm and power of basic operations only: the system's own differ between platforms in the last bit.

use std::f64::consts::{LOG2_E, SQRT_2};

/// ln 2 in two parts, the first with zeros at its end, so that its product with a small whole number is exact.
const LN_2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];

/// `e^x` for `x <= 0`.
pub fn exp(x: f64) -> f64 {
    if x < -700.0 {
        return 0.0;
    }
    let k = (x * LOG2_E).round_ties_even();
    let r = (x - k * LN_2[0]) - k * LN_2[1];
    let mut sum = 1.0;
    for n in (1..=13).rev() {
        sum = 1.0 + sum * r / f64::from(n);
    }
    sum * f64::from_bits(((1023 + k as i64) as u64) << 52)
}

/// The natural logarithm of a normal number above 0.
pub fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut k = ((bits >> 52) & 0x7FF) as i32 - 1023;
    let mut m = f64::from_bits((bits & ((1 << 52) - 1)) | (1023 << 52));
    if m > SQRT_2 {
        (m, k) = (m / 2.0, k + 1);
    }
    // ln m = 2 artanh s
    let s = (m - 1.0) / (m + 1.0);
    let mut sum = 0.0;
    for n in (0..=11).rev() {
        sum = 1.0 / f64::from(2 * n + 1) + sum * s * s;
    }
    let k = f64::from(k);
    k * LN_2[0] + (2.0 * s * sum + k * LN_2[1])
}

/// `x^exponent` for `x` in [0, 1] and an exponent of at least 0; `0^0` is 1.
pub fn power(x: f64, exponent: f64) -> f64 {
    match (exponent == 0.0, x < f64::MIN_POSITIVE) {
        (true, _) => 1.0,
        (_, true) => 0.0,
        _ => exp((exponent * ln(x)).min(0.0)),
    }
}

/// `base^exponent` for a base of at least 1. The exponent is lowered until the result is at most [`f32::MAX`].
pub fn whole_power(base: f64, exponent: usize) -> f64 {
    let most = f64::from(f32::MAX);
    let (mut power, mut square, mut left) = (1.0, base, exponent);
    while left > 0 {
        if left % 2 == 1 {
            power *= square;
        }
        square *= square;
        left /= 2;
        if power > most || (left > 0 && square > most) {
            return largest_power(base, most);
        }
    }
    power
}

/// The largest whole power of a base above 1 that is at most `most`.
fn largest_power(base: f64, most: f64) -> f64 {
    let mut power = 1.0;
    while power * base <= most && base > 1.0 {
        power *= base;
    }
    power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exp() {
        for i in 0..70_000 {
            let x = -f64::from(i) * 0.01;
            assert!((exp(x) - x.exp()).abs() <= 4.0 * f64::EPSILON * x.exp(), "{x}");
        }
        assert_eq!((exp(0.0), exp(f64::NEG_INFINITY)), (1.0, 0.0));
    }

    #[test]
    fn ln_is_ln() {
        for i in -70_000..70_000 {
            let x = (f64::from(i) * 0.01).exp();
            assert!((ln(x) - x.ln()).abs() <= 4.0 * f64::EPSILON * x.ln().abs().max(1.0), "{x}");
        }
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn powers() {
        for (x, exponent) in [(0.3, 2.0), (0.99, 0.1), (1e-300, 0.5), (1.0, 7.0), (0.5, 0.0), (0.0, 0.0), (0.0, 1.0)] {
            assert!((power(x, exponent) - x.powf(exponent)).abs() <= 1e-14, "{x}^{exponent}");
        }
        assert_eq!(power(0.5, f64::from(f32::MAX)), 0.0);
        assert_eq!((whole_power(1.75, 0), whole_power(1.75, 3)), (1.0, 1.75f64.powi(3)));
        assert_eq!(whole_power(1.0, usize::MAX), 1.0);
        assert_eq!(whole_power(2.0, 1000), 2.0f64.powi(127));
        assert_eq!(whole_power(f64::from(f32::MAX), 9), f64::from(f32::MAX));
    }
}
