//! Rotary embedding, and LongRoPE's choice between two sets of factors.
//!
//! LongRoPE (Ding et al. 2024, arXiv 2402.13753) as the reference implementation computes it: a sequence of more than
//! `original_max_position_embeddings` tokens uses the long factors for *all* its positions, a shorter one the short
//! factors; cosine and sine are multiplied by a factor of the set. The choice is made here, per sequence, and
//! nowhere else.

/// Rotary embedding of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    theta: f32,
    /// `1 / theta^(2i / rotary_dim)`, `[rotary_dim / 2]`, divided by the short factors with LongRoPE.
    short: Vec<f32>,
    /// The same with the long factors; empty without LongRoPE.
    long: Vec<f32>,
    scaling: Option<LongRope>,
    /// Factor of the positions.
    position_scale: f32,
}

/// The fields of LongRoPE.
#[derive(Clone, Debug, PartialEq)]
pub struct LongRope {
    /// Divisors of the frequencies up to the border, `[rotary_dim / 2]`.
    pub short_factor: Vec<f32>,
    /// Divisors of the frequencies beyond the border.
    pub long_factor: Vec<f32>,
    /// The border, in tokens.
    pub original_max_position_embeddings: usize,
    /// Factor of cosine and sine up to the border; usually `sqrt(1 + ln(max / original) / ln(original))`.
    pub short_mscale: f32,
    /// Factor of cosine and sine beyond the border.
    pub long_mscale: f32,
}

/// One of the two sets of factors. A model without LongRoPE has the short one only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RopeSet {
    /// For sequences up to the border.
    #[default]
    Short,
    /// For longer sequences.
    Long,
}

/// Which set a sequence uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RopePolicy {
    /// As in the reference: short up to the border, long beyond it. The cache is rebuilt when a sequence crosses the border.
    #[default]
    Exact,
    /// Long from the start if the sequence may grow beyond the border, else short: the cache is not rebuilt.
    Ahead,
    /// Always long.
    Long,
    /// Always short.
    Short,
}

impl Rope {
    pub(crate) fn new(rotary_dim: usize, theta: f32, scaling: Option<LongRope>) -> Self {
        let frequencies = |factors: Option<&[f32]>| -> Vec<f32> {
            (0..rotary_dim / 2)
                .map(|i| {
                    let exponent = (2 * i) as f32 / rotary_dim as f32;
                    let power = f64::from(theta).powf(f64::from(exponent)) as f32;
                    1.0 / (factors.map_or(1.0, |f| f[i]) * power)
                })
                .collect()
        };
        let short = frequencies(scaling.as_ref().map(|s| s.short_factor.as_slice()));
        let long = scaling.as_ref().map_or(Vec::new(), |s| frequencies(Some(&s.long_factor)));
        Self { theta, short, long, scaling, position_scale: 1.0 }
    }

    /// The same with a factor of the positions.
    pub(crate) fn with_position_scale(self, position_scale: f32) -> Self {
        Self { position_scale, ..self }
    }

    /// The base of the frequencies.
    pub fn theta(&self) -> f32 {
        self.theta
    }

    /// The fields of LongRoPE, where the model has it.
    pub fn scaling(&self) -> Option<&LongRope> {
        self.scaling.as_ref()
    }

    /// The set for a sequence of `tokens` tokens (those of the next pass included) that may grow to `budget` tokens.
    pub fn choose(&self, policy: RopePolicy, tokens: usize, budget: usize) -> RopeSet {
        let Some(scaling) = &self.scaling else { return RopeSet::Short };
        let beyond = |tokens| tokens > scaling.original_max_position_embeddings;
        let long = match policy {
            RopePolicy::Exact => beyond(tokens),
            RopePolicy::Ahead => beyond(tokens.max(budget)),
            RopePolicy::Long => true,
            RopePolicy::Short => false,
        };
        if long { RopeSet::Long } else { RopeSet::Short }
    }

    /// Appends cosine and sine of every rotated pair at `position`: `[rotary_dim / 2, 2]`.
    ///
    /// The angle is the f32 product that the reference forms; cosine and sine of it are rounded once.
    pub fn cos_sin(&self, set: RopeSet, position: usize, out: &mut Vec<f32>) {
        let (frequencies, scale) = match (set, &self.scaling) {
            (RopeSet::Long, Some(scaling)) => (&self.long, scaling.long_mscale),
            (_, scaling) => (&self.short, scaling.as_ref().map_or(1.0, |s| s.short_mscale)),
        };
        out.extend(frequencies.iter().flat_map(|&frequency| {
            let (sin, cos) = f64::from(position as f32 * self.position_scale * frequency).sin_cos();
            [cos as f32 * scale, sin as f32 * scale]
        }));
    }
}
