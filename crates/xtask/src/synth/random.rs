//! Random weights, quickly: every element from its own index, so that any part can be computed by any thread.

use half::{bf16, f16};

use super::tensors::{Fill, Tensor};
use crate::Result;

/// The formats of published checkpoints.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Dtype {
    Bf16,
    F16,
    F32,
}

impl Dtype {
    pub(super) fn of(name: &str) -> Result<Self> {
        match name {
            "bfloat16" => Ok(Self::Bf16),
            "float16" => Ok(Self::F16),
            "float32" => Ok(Self::F32),
            other => Err(format!("no torch_dtype {other:?}")),
        }
    }

    /// As in the header of a safetensors file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
            Self::F32 => "F32",
        }
    }

    pub(super) fn size(self) -> u64 {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// The stream of a tensor: its name and the seed.
pub(super) fn stream(seed: u64, name: &str) -> u64 {
    // FNV-1a, mixed.
    let hash = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    mix(hash ^ mix(seed))
}

/// Writes the elements of a tensor from `first` on.
pub(super) fn fill(out: &mut [u8], tensor: &Tensor, stream: u64, first: u64, dtype: Dtype) {
    match tensor.fill {
        Fill::Normal { mean, sigma } => {
            // The sum of four uniform numbers of 16 bits, shifted and scaled: near enough to a normal one.
            let scale = sigma * (3.0_f32).sqrt() / 65_536.0;
            write(out, first, dtype, |index| {
                let bits = mix(stream.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
                let sum = (bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48);
                mean + (sum as f32 - 131_070.0) * scale
            });
        }
        Fill::InverseFrequencies { base } => {
            let dimensions = 2.0 * tensor.elements() as f64;
            write(out, first, dtype, |index| base.powf(-2.0 * index as f64 / dimensions) as f32);
        }
    }
}

fn write(out: &mut [u8], first: u64, dtype: Dtype, value: impl Fn(u64) -> f32) {
    match dtype {
        Dtype::Bf16 => elements(out, first, |index| bf16::from_f32(value(index)).to_le_bytes()),
        Dtype::F16 => elements(out, first, |index| f16::from_f32(value(index)).to_le_bytes()),
        Dtype::F32 => elements(out, first, |index| value(index).to_le_bytes()),
    }
}

fn elements<const N: usize>(out: &mut [u8], first: u64, value: impl Fn(u64) -> [u8; N]) {
    for (index, element) in (first..).zip(out.as_chunks_mut::<N>().0) {
        *element = value(index);
    }
}

/// The mixing function of SplitMix64.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_mean_and_spread_asked_for() {
        let tensor = Tensor::normal("x", &[1 << 18], 0.5, 0.25);
        let mut bytes = vec![0; 4 << 18];
        fill(&mut bytes, &tensor, stream(1, "x"), 0, Dtype::F32);
        let values: Vec<f64> = bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
        // Five standard errors of the mean, and of the spread, of 2^18 values.
        assert!((mean - 0.5).abs() < 5.0 * 0.25 / 512.0, "{mean}");
        assert!((variance.sqrt() - 0.25).abs() < 5.0 * 0.25 / 512.0, "{}", variance.sqrt());
    }

    #[test]
    fn parts_fit_together() {
        let tensor = Tensor::normal("x", &[100], 0.0, 1.0);
        for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32] {
            let size = dtype.size() as usize;
            let (mut whole, mut parts) = (vec![0; 100 * size], vec![0; 100 * size]);
            fill(&mut whole, &tensor, 7, 0, dtype);
            fill(&mut parts[..33 * size], &tensor, 7, 0, dtype);
            fill(&mut parts[33 * size..], &tensor, 7, 33, dtype);
            assert_eq!(whole, parts);
        }
    }
}
