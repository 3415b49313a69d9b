//! Options of sampling.

use super::ModelArgs;
use super::grammar::GrammarArgs;
use super::values::{OrNone, bias, breaker, mirostat, or_none, or_off};
use clap::Args;
use phi3_runner::sampler::{DryOptions, MirostatOptions, SamplerKind};
use phi3_runner::{Engine, GenerateOptions, Result, SamplerOptions};

/// Sampling of tokens.
#[derive(Args, Clone)]
pub(crate) struct SamplingArgs {
    /// New tokens, at most; -1 is no limit [default: up to the model's context]
    #[arg(long, short = 'n', value_name = "N", value_parser = or_none::<usize>)]
    max_tokens: Option<OrNone<usize>>,
    /// Always take the most likely token
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p", "seed", "typical_p", "top_n_sigma",
        "xtc_probability", "xtc_threshold", "dynatemp_range", "dynatemp_exp", "mirostat", "mirostat_ent", "mirostat_lr"])]
    greedy: bool,
    /// Temperature, by which logits are divided; 0 is greedy [default: the model's, else 0.8]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Dynamic temperature: the entropy selects one from T - RANGE to T + RANGE; 0 is off [default: 0]
    #[arg(long, value_name = "RANGE")]
    dynatemp_range: Option<f32>,
    /// Exponent of the entropy in the dynamic temperature [default: 1]
    #[arg(long, value_name = "E")]
    dynatemp_exp: Option<f32>,
    /// Keep the K most likely tokens; 0 and -1 keep all [default: the model's, else 0]
    #[arg(long, value_name = "K", value_parser = or_none::<usize>)]
    top_k: Option<OrNone<usize>>,
    /// Keep the most likely tokens up to this cumulative probability [default: the model's, else 0.95]
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Keep tokens with at least this share of the largest probability [default: the model's, else 0]
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Keep the locally typical tokens up to this cumulative probability; 1 keeps all [default: 1]
    #[arg(long, value_name = "P", alias = "typical")]
    typical_p: Option<f32>,
    /// Keep tokens whose logit is at most N standard deviations below the largest; 0 and -1 keep all [default: 0]
    #[arg(long, value_name = "N", alias = "top-nsigma", value_parser = or_off)]
    top_n_sigma: Option<OrNone<f32>>,
    /// Probability that XTC removes the most likely tokens [default: 0]
    #[arg(long, value_name = "P")]
    xtc_probability: Option<f32>,
    /// XTC removes all tokens of at least this probability but the least likely of them; above 0.5 none [default: 0.1]
    #[arg(long, value_name = "P")]
    xtc_threshold: Option<f32>,
    /// Penalty on the logits of tokens that are in the text already [default: the model's, else 1]
    #[arg(long, value_name = "R", alias = "repeat-penalty")]
    repetition_penalty: Option<f32>,
    /// Subtracted from the logits of tokens that are in the text already [default: 0]
    #[arg(long, value_name = "X")]
    presence_penalty: Option<f32>,
    /// Subtracted from the logits of tokens for each time that they are in the text already [default: 0]
    #[arg(long, value_name = "X")]
    frequency_penalty: Option<f32>,
    /// Number that is added to a token's logit: 15043+1, 15043-1, or 15043-inf to ban it; may be given several times
    #[arg(long, short = 'l', value_name = "TOKEN+X|TOKEN-X", value_parser = bias)]
    logit_bias: Vec<(u32, f32)>,
    /// DRY: penalty on tokens that continue a repetition, X * BASE^(length - N); 0 is off [default: 0]
    #[arg(long, value_name = "X")]
    dry_multiplier: Option<f32>,
    /// Base of DRY's penalty [default: 1.75]
    #[arg(long, value_name = "BASE")]
    dry_base: Option<f32>,
    /// Longest repetition in tokens without DRY's penalty [default: 2]
    #[arg(long, value_name = "N")]
    dry_allowed_length: Option<usize>,
    /// Last tokens in which DRY looks for repetitions; 0 is off, -1 is the whole text [default: -1]
    #[arg(long, value_name = "N", value_parser = or_none::<usize>)]
    dry_penalty_last_n: Option<OrNone<usize>>,
    /// Text that no repetition extends over, or none; may be given several times [default: line break, colon, quotation mark,
    /// asterisk]
    #[arg(long, value_name = "TEXT", value_parser = breaker)]
    dry_sequence_breaker: Vec<OrNone<String>>,
    /// Mirostat: 0 (off) or 2, which replaces the samplers that remove tokens [default: 0]
    #[arg(long, value_name = "VERSION", value_parser = mirostat)]
    mirostat: Option<bool>,
    /// Target of mirostat in bits for a token [default: 5]
    #[arg(long, value_name = "TAU", requires = "mirostat")]
    mirostat_ent: Option<f32>,
    /// Learning rate of mirostat [default: 0.1]
    #[arg(long, value_name = "ETA", requires = "mirostat")]
    mirostat_lr: Option<f32>,
    /// Samplers in their order, separated by semicolons; others are not applied
    /// [default: penalties;dry;temperature;top_n_sigma;top_k;top_p;min_p;typ_p;xtc]
    #[arg(long, value_name = "ORDER")]
    samplers: Option<String>,
    /// Random seed: the same seed repeats a run, -1 takes a new one each time [default: -1; printed with the statistics]
    #[arg(long, value_name = "SEED", value_parser = or_none::<u64>)]
    seed: Option<OrNone<u64>>,
    /// Text that ends the answer and is not part of it; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Continue after the model's stop tokens
    #[arg(long)]
    ignore_eos: bool,
    /// Log-probability of every new token, and of the N likeliest tokens in its place, 0 to 255: in generate --json as
    /// logprobs, else on standard error
    #[arg(long, value_name = "N")]
    logprobs: Option<u8>,
    #[command(flatten)]
    grammar: GrammarArgs,
}

impl SamplingArgs {
    /// Returns an error for values out of range, before anything is loaded.
    pub(crate) fn check(&self) -> Result<()> {
        self.over(SamplerOptions::default()).map(|_| ())
    }

    /// The defaults `own`, with the given options replaced.
    fn over(&self, own: SamplerOptions) -> Result<SamplerOptions> {
        let options = SamplerOptions {
            temperature: if self.greedy { 0.0 } else { self.temperature.unwrap_or(own.temperature) },
            dynatemp_range: self.dynatemp_range.unwrap_or(own.dynatemp_range),
            dynatemp_exponent: self.dynatemp_exp.unwrap_or(own.dynatemp_exponent),
            top_k: self.top_k.map_or(own.top_k, |OrNone(k)| k.unwrap_or(0)),
            top_p: self.top_p.unwrap_or(own.top_p),
            min_p: self.min_p.unwrap_or(own.min_p),
            typical_p: self.typical_p.unwrap_or(own.typical_p),
            top_n_sigma: self.top_n_sigma.map_or(own.top_n_sigma, |OrNone(n)| n.unwrap_or(0.0)),
            xtc_probability: self.xtc_probability.unwrap_or(own.xtc_probability),
            xtc_threshold: self.xtc_threshold.unwrap_or(own.xtc_threshold),
            repetition_penalty: self.repetition_penalty.unwrap_or(own.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(own.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(own.frequency_penalty),
            logit_bias: self.logit_bias.clone(),
            dry: self.dry(own.dry),
            mirostat: self.mirostat(),
            samplers: match &self.samplers {
                Some(order) => SamplerKind::order(order)?,
                None => own.samplers,
            },
            seed: self.seed.and_then(|OrNone(seed)| seed).unwrap_or(own.seed),
        };
        options.check()?;
        Ok(options)
    }

    fn dry(&self, own: DryOptions) -> DryOptions {
        let breakers = self.dry_sequence_breaker.iter().filter_map(|OrNone(text)| text.clone());
        DryOptions {
            multiplier: self.dry_multiplier.unwrap_or(own.multiplier),
            base: self.dry_base.unwrap_or(own.base),
            allowed_length: self.dry_allowed_length.unwrap_or(own.allowed_length),
            penalty_last_n: self.dry_penalty_last_n.map_or(own.penalty_last_n, |OrNone(n)| n),
            sequence_breakers: match self.dry_sequence_breaker.is_empty() {
                true => own.sequence_breakers,
                false => breakers.collect(),
            },
        }
    }

    fn mirostat(&self) -> Option<MirostatOptions> {
        let own = MirostatOptions::default();
        self.mirostat.filter(|on| *on).map(|_| MirostatOptions {
            tau: self.mirostat_ent.unwrap_or(own.tau),
            eta: self.mirostat_lr.unwrap_or(own.eta),
        })
    }

    /// The model's sampling options, with the given options replaced.
    pub(crate) fn options(&self, engine: &Engine, model: &ModelArgs) -> Result<GenerateOptions> {
        Ok(GenerateOptions {
            max_tokens: self.max_tokens.and_then(|OrNone(n)| n),
            sampler: Some(self.over(engine.sampler_defaults())?),
            ignore_eos: self.ignore_eos,
            stop: self.stop.clone(),
            grammar: self.grammar.grammar(),
            logprobs: self.logprobs,
            chunk: Some(model.chunk()),
            ..GenerateOptions::default()
        })
    }
}
