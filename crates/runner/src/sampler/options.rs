//! Options of a sampler.

use super::error::SamplerError;
use super::kind::SamplerKind;

/// Options of a [`Sampler`](super::Sampler). The default is greedy: always the likeliest token.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerOptions {
    /// Logits are divided by this, 0 or more. 0 takes the likeliest token, after logit bias, penalties and DRY alone.
    pub temperature: f32,
    /// Half width of the range of a dynamic temperature, 0 or more; 0 for a fixed temperature. The entropy of the probabilities
    /// selects a temperature from `temperature - range`, at least 0, to `temperature + range`. llama.cpp's `temp_ext`.
    pub dynatemp_range: f32,
    /// Exponent of the entropy, as share of the largest possible one, in a dynamic temperature; 0 or more.
    pub dynatemp_exponent: f32,
    /// Only this many of the likeliest tokens (and those as likely as the last of them); 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability, in (0, 1]; 1 for all.
    pub top_p: f32,
    /// Only tokens with at least this share of the likeliest token's probability, in \[0, 1\]; 0 for all.
    pub min_p: f32,
    /// Only the tokens whose surprise is closest to the entropy and that together have this probability, in (0, 1]; 1 for all.
    /// Meister et al., "Locally typical sampling" (2022); transformers' `TypicalLogitsWarper`.
    pub typical_p: f32,
    /// Only tokens whose logit is at most this many standard deviations below the largest; 0 for all. Tang et al., "Top-nσ: not all
    /// logits are you need" (2024).
    pub top_n_sigma: f32,
    /// Probability that XTC is applied to a token, in \[0, 1\]; 0 for never.
    pub xtc_probability: f32,
    /// XTC removes all tokens of at least this probability, in \[0, 1\], except the least likely of them. Above 0.5 it does nothing.
    pub xtc_threshold: f32,
    /// Divides positive and multiplies negative logits of the tokens in the text so far; 1 changes nothing. Keskar et al., "CTRL"
    /// (2019); transformers' `RepetitionPenaltyLogitsProcessor`.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of the tokens in the text so far, once each; 0 changes nothing. The text so far is prompt and
    /// answer, as for the repetition penalty and in llama.cpp. OpenAI's range is from -2 to 2; any finite number is allowed.
    pub presence_penalty: f32,
    /// Subtracted from the logits of the tokens in the text so far, as often as they occur; 0 changes nothing. The text and the range
    /// are those of `presence_penalty`.
    pub frequency_penalty: f32,
    /// Tokens with numbers that are added to their logits before all samplers; minus infinity bans a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// Options of DRY.
    pub dry: DryOptions,
    /// Options of mirostat 2; `None` for none. It replaces the truncations: top-n-sigma, top-k, top-p, min-p, typical-p and XTC.
    pub mirostat: Option<MirostatOptions>,
    /// Order of the samplers; one that is not in it is not applied. Logit bias comes before them, mirostat after them.
    pub samplers: Vec<SamplerKind>,
    /// Seed of the random numbers, which are the same on every platform.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            top_n_sigma: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            dry: DryOptions::default(),
            mirostat: None,
            samplers: SamplerKind::ALL.to_vec(),
            seed: 0,
        }
    }
}

/// Options of DRY, "don't repeat yourself": a penalty on each token that would continue a sequence of the text so far, if the end
/// of the text repeats that sequence. The penalty is `multiplier * base^(length - allowed_length)`, with the length of the longest
/// such repetition. Numbers and defaults are llama.cpp's.
#[derive(Debug, Clone, PartialEq)]
pub struct DryOptions {
    /// Factor of the penalty in units of a logit, 0 or more; 0 for no penalty.
    pub multiplier: f32,
    /// Base of the penalty, 1 or more.
    pub base: f32,
    /// Longest repetition in tokens without a penalty.
    pub allowed_length: usize,
    /// Number of last tokens in which repetitions are looked for; `None` for the whole text, 0 for no penalty.
    pub penalty_last_n: Option<usize>,
    /// Texts that no repetition extends over.
    pub sequence_breakers: Vec<String>,
}

impl Default for DryOptions {
    fn default() -> Self {
        Self {
            multiplier: 0.0,
            base: 1.75,
            allowed_length: 2,
            penalty_last_n: None,
            sequence_breakers: ["\n", ":", "\"", "*"].map(str::to_owned).to_vec(),
        }
    }
}

impl DryOptions {
    /// Whether there is a penalty.
    pub fn is_active(&self) -> bool {
        self.multiplier > 0.0 && self.penalty_last_n != Some(0)
    }
}

/// Options of mirostat 2: Basu et al., "Mirostat: a neural text decoding algorithm that directly controls perplexity" (2021).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MirostatOptions {
    /// Target surprise in bits, 0 or more.
    pub tau: f32,
    /// Learning rate, 0 or more.
    pub eta: f32,
}

impl Default for MirostatOptions {
    fn default() -> Self {
        Self { tau: 5.0, eta: 0.1 }
    }
}

impl SamplerOptions {
    /// Whether the likeliest token is always chosen.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Checks the range of each option.
    ///
    /// # Errors
    /// An option is out of its range.
    pub fn check(&self) -> Result<(), SamplerError> {
        let check = |valid: bool, option, expected, found| match valid {
            true => Ok(()),
            false => Err(SamplerError::Option { option, expected, found }),
        };
        let finite = |option, found: f32| check(found.is_finite(), option, "a finite number", found);
        let positive = |option, found: f32| check(found.is_finite() && found >= 0.0, option, "0 or more", found);
        let share = |option, found: f32| check((0.0..=1.0).contains(&found), option, "from 0 to 1", found);
        let part = |option, found: f32| check(found > 0.0 && found <= 1.0, option, "more than 0 and at most 1", found);
        positive("temperature", self.temperature)?;
        positive("dynatemp_range", self.dynatemp_range)?;
        positive("dynatemp_exponent", self.dynatemp_exponent)?;
        part("top_p", self.top_p)?;
        share("min_p", self.min_p)?;
        part("typical_p", self.typical_p)?;
        positive("top_n_sigma", self.top_n_sigma)?;
        share("xtc_probability", self.xtc_probability)?;
        share("xtc_threshold", self.xtc_threshold)?;
        let penalty = self.repetition_penalty;
        check(penalty.is_finite() && penalty > 0.0, "repetition_penalty", "more than 0", penalty)?;
        finite("presence_penalty", self.presence_penalty)?;
        finite("frequency_penalty", self.frequency_penalty)?;
        for &(_, bias) in &self.logit_bias {
            check(bias < f32::INFINITY, "logit_bias", "a finite number or -inf", bias)?;
        }
        positive("dry_multiplier", self.dry.multiplier)?;
        check(self.dry.base.is_finite() && self.dry.base >= 1.0, "dry_base", "1 or more", self.dry.base)?;
        if let Some(MirostatOptions { tau, eta }) = self.mirostat {
            positive("mirostat_tau", tau)?;
            positive("mirostat_eta", eta)?;
        }
        SamplerKind::check_order(&self.samplers)
    }
}
