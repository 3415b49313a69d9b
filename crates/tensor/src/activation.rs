//! Activation functions: formula, reference in double precision, CPU function in single precision, and name of the shader.

use crate::cpu::math::{exp, gelu_erf, silu};
use crate::cpu::simd::Simd;

/// A function of a projection's outputs. In the formulas y is an output; gate and up are the first and the second half of the
/// outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation {
    /// `y`.
    #[default]
    Identity,
    /// `y / 2 * (1 + tanh(sqrt(2 / pi) * (y + 0.044715 y³)))`: `gelu_new` and `gelu_pytorch_tanh` of transformers.
    GeluTanh,
    /// `y / 2 * (1 + erf(y / sqrt(2)))` (Hendrycks and Gimpel 2016, arXiv 1606.08415).
    GeluErf,
    /// `y * sigmoid(1.702 y)`: CLIP's approximation of GELU.
    QuickGelu,
    /// `silu(gate) * up` (Shazeer 2020, arXiv 2002.05202).
    SwiGlu,
    /// `quick_gelu(gate) * (up + 1)`, with the gate at most `limit` and up in `-limit ..= limit`; infinities stay as they are:
    /// `gegelu` of Phi-3-small. An infinite `limit` is no limit.
    GeGlu {
        /// The bound.
        limit: f32,
    },
}

impl Activation {
    /// Every activation, for tests that walk them.
    pub const ALL: [Activation; 6] = [
        Activation::Identity,
        Activation::GeluTanh,
        Activation::GeluErf,
        Activation::QuickGelu,
        Activation::SwiGlu,
        Activation::GeGlu { limit: 1.5 },
    ];

    /// Whether the inputs are gates and ups, so that there are half as many outputs.
    pub fn is_gated(self) -> bool {
        matches!(self, Activation::SwiGlu | Activation::GeGlu { .. })
    }

    /// Whether this is the identity, which kernels may omit.
    #[inline(always)]
    pub(crate) fn is_identity(self) -> bool {
        matches!(self, Activation::Identity)
    }

    /// The shader's activation, and its parameter.
    #[cfg(feature = "gpu")]
    pub(crate) fn shader(self) -> (phi3_shaders::Activation, f32) {
        use phi3_shaders::Activation as Shader;
        match self {
            Activation::Identity => (Shader::Identity, 0.0),
            Activation::GeluTanh => (Shader::GeluTanh, 0.0),
            Activation::GeluErf => (Shader::GeluErf, 0.0),
            Activation::QuickGelu => (Shader::QuickGelu, 0.0),
            Activation::SwiGlu => (Shader::Swiglu, 0.0),
            // WGSL has no infinity
            Activation::GeGlu { limit } => (Shader::Geglu, limit.min(f32::MAX)),
        }
    }

    /// The function in single precision, on the CPU; only a gated one uses `up`.
    #[inline(always)]
    pub(crate) fn simd<S: Simd>(self, y: f32, up: f32) -> f32 {
        match self {
            Activation::Identity => y,
            // y / 2 * (1 + tanh z) is y * sigmoid(2z)
            Activation::GeluTanh => y / (1.0 + exp::<S>(-1.595_769_2 * (y + 0.044_715 * y * y * y))),
            Activation::GeluErf => gelu_erf::<S>(y),
            Activation::QuickGelu => y / (1.0 + exp::<S>(-1.702 * y)),
            Activation::SwiGlu => silu::<S>(y) * up,
            Activation::GeGlu { limit } => {
                // comparisons keep NaN and infinities
                let gate = if y > limit && y < f32::INFINITY { limit } else { y };
                let up = if up > limit && up < f32::INFINITY { limit } else { up };
                let up = if up < -limit && up > f32::NEG_INFINITY { -limit } else { up };
                gate / (1.0 + exp::<S>(-1.702 * gate)) * (up + 1.0)
            }
        }
    }

    /// The function in double precision; only a gated one uses `up`.
    #[cfg(any(test, feature = "reference"))]
    pub fn reference(self, y: f64, up: f64) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match self {
            Activation::Identity => y,
            Activation::GeluTanh => {
                y / 2.0 * (1.0 + (std::f64::consts::FRAC_2_PI.sqrt() * (y + 0.044_715 * y.powi(3))).tanh())
            }
            Activation::GeluErf => y / 2.0 * (1.0 + erf(y / std::f64::consts::SQRT_2)),
            Activation::QuickGelu => y * sigmoid(1.702 * y),
            Activation::SwiGlu => y * sigmoid(y) * up,
            Activation::GeGlu { limit } => {
                let limit = f64::from(limit);
                let gate = if y.is_infinite() { y } else { y.min(limit) };
                let up = if up.is_infinite() { up } else { up.clamp(-limit, limit) };
                gate * sigmoid(1.702 * gate) * (up + 1.0)
            }
        }
    }
}

/// The error function, by its series of positive terms (Abramowitz and Stegun, 7.1.6).
#[cfg(any(test, feature = "reference"))]
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_are_their_formulas() {
        // values of scipy.special.erf and of torch
        for (x, want) in
            [(0.5, 0.520_499_877_813_046_5), (-1.5, -0.966_105_146_475_310_7), (3.0, 0.999_977_909_503_001_4)]
        {
            assert!((erf(x) - want).abs() < 1e-14, "{x}");
        }
        assert_eq!((erf(7.0), erf(-7.0)), (1.0, -1.0));
        let geglu = Activation::GeGlu { limit: 2.0 };
        assert_eq!(geglu.reference(9.0, -7.0), geglu.reference(2.0, -2.0));
        assert_eq!(geglu.reference(f64::INFINITY, 1.0), f64::INFINITY);
        assert!((Activation::GeluTanh.reference(1.0, 0.0) - 0.841_191_990_608_276_9).abs() < 1e-12);
        assert!((Activation::SwiGlu.reference(1.0, 3.0) - 3.0 / (1.0 + (-1.0f64).exp())).abs() < 1e-15);
    }
}
