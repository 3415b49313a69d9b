//! Random weights. Each element depends on its own index only, so that any thread can compute any part.

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

    /// Name in the header of a safetensors file.
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

/// The elements of one tensor.
pub(super) enum Values {
    /// Every 16 bits of a random stream choose one of 65,536 values, which are spread like the normal distribution.
    Random { stream: u64, table: Vec<u8>, size: u64 },
    /// The elements themselves.
    Given { bytes: Vec<u8>, size: u64 },
}

impl Values {
    /// Values that depend on the seed, the type, and the tensor's name, shape and fill only.
    pub(super) fn of(tensor: &Tensor, dtype: Dtype, seed: u64) -> Self {
        let size = dtype.size();
        match tensor.fill {
            Fill::Normal { mean, sigma } => {
                let value = |i| mean + sigma * normal(i);
                Self::Random { stream: stream(seed, &tensor.name), table: encode((0..65_536).map(value), dtype), size }
            }
            Fill::InverseFrequencies { base } => {
                let count = tensor.elements();
                let value = |i| base.powf(-(i as f64) / count as f64) as f32;
                Self::Given { bytes: encode((0..count).map(value), dtype), size }
            }
        }
    }

    /// Writes the elements from `first` on.
    pub(super) fn fill(&self, out: &mut [u8], first: u64) {
        match self {
            Self::Random { stream, table, size: 2 } => choose::<2>(out, table, *stream, first),
            Self::Random { stream, table, .. } => choose::<4>(out, table, *stream, first),
            Self::Given { bytes, size } => out.copy_from_slice(&bytes[(first * size) as usize..][..out.len()]),
        }
    }
}

/// Box and Muller's transform of a grid of 256 by 256 points.
pub(super) fn normal(i: u32) -> f32 {
    let [radius, angle] = [i / 256, i % 256].map(|step| (f64::from(step) + 0.5) / 256.0);
    ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
}

fn encode(values: impl Iterator<Item = f32>, dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::Bf16 => values.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect(),
        Dtype::F16 => values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
        Dtype::F32 => values.flat_map(f32::to_le_bytes).collect(),
    }
}

/// Element `i` takes 16 bits of the number `i / 4` of the stream.
fn choose<const N: usize>(out: &mut [u8], table: &[u8], stream: u64, first: u64) {
    let (out, table) = (out.as_chunks_mut::<N>().0, table.as_chunks::<N>().0);
    let bits = |group: u64| mix(stream.wrapping_add(group.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let choice = |bits: u64, lane: usize| table[(bits >> (16 * lane)) as usize & 0xFFFF];
    let (lane, group) = ((first % 4) as usize, first / 4);
    let (head, rest) = out.split_at_mut(out.len().min((4 - lane) % 4));
    for (lane, element) in (lane..).zip(head) {
        *element = choice(bits(group), lane);
    }
    for (group, elements) in (first.div_ceil(4)..).zip(rest.chunks_mut(4)) {
        let bits = bits(group);
        for (lane, element) in elements.iter_mut().enumerate() {
            *element = choice(bits, lane);
        }
    }
}

/// The random stream of a tensor, from its name and the seed.
pub(super) fn stream(seed: u64, name: &str) -> u64 {
    // FNV-1a, mixed
    let hash = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    mix(hash ^ mix(seed))
}

/// The mixing function of SplitMix64.
pub(super) fn mix(x: u64) -> u64 {
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
        Values::of(&tensor, Dtype::F32, 1).fill(&mut bytes, 0);
        let values: Vec<f64> = bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
        // Five standard errors of the mean of 2^18 values; as much for their spread.
        assert!((mean - 0.5).abs() < 5.0 * 0.25 / 512.0, "{mean}");
        assert!((variance.sqrt() - 0.25).abs() < 5.0 * 0.25 / 512.0, "{}", variance.sqrt());
    }

    #[test]
    fn parts_fit_together() {
        let tensor = Tensor::normal("x", &[100], 0.0, 1.0);
        for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32] {
            let size = dtype.size() as usize;
            let values = Values::of(&tensor, dtype, 7);
            for cut in [0, 1, 2, 33, 96, 99, 100] {
                let (mut whole, mut parts) = (vec![0; 100 * size], vec![0; 100 * size]);
                values.fill(&mut whole, 0);
                values.fill(&mut parts[..cut * size], 0);
                values.fill(&mut parts[cut * size..], cut as u64);
                assert_eq!(whole, parts, "{cut}");
            }
        }
    }

    #[test]
    fn frequencies_fall_by_a_constant_factor() {
        let fill = Fill::InverseFrequencies { base: 10_000.0 };
        let tensor = Tensor { name: "inv_freq".into(), shape: vec![4], fill };
        let mut bytes = [0; 16];
        Values::of(&tensor, Dtype::F32, 0).fill(&mut bytes, 0);
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        assert_eq!(values, [1.0, 0.1, 0.01, 0.001]);
    }
}
