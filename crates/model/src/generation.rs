//! `generation_config.json`: stop tokens and sampling defaults.

use crate::config::token_ids;
use crate::gguf::{Metadata, MetadataList, MetadataValue};
use crate::json::Object;
use crate::{ModelSpec, Result};
use serde_json::Value;
use std::path::Path;

/// The fields of `generation_config.json` that an engine follows. Absent fields are `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end a text.
    pub eos_token_id: Vec<u32>,
    /// First token of a text.
    pub bos_token_id: Option<u32>,
    /// Whether to sample.
    pub do_sample: Option<bool>,
    /// Divisor of the logits.
    pub temperature: Option<f64>,
    /// Number of most likely tokens to keep; 0 keeps all.
    pub top_k: Option<usize>,
    /// Cumulative probability of the tokens to keep.
    pub top_p: Option<f64>,
    /// Least probability of a token to keep, relative to the most likely token's.
    pub min_p: Option<f64>,
    /// Penalty of tokens that are already in the text; 1 is neutral.
    pub repetition_penalty: Option<f64>,
    /// Strings that end an answer.
    pub stop_strings: Vec<String>,
}

/// Special tokens that end a turn in Phi models, in addition to `eos_token_id`.
pub const TURN_ENDS: [&str; 3] = ["<|end|>", "<|endoftext|>", "<|im_end|>"];

/// Whether a value of a field is neutral: generation is the same as without the field.
type Neutral = fn(&Value) -> bool;

/// Fields that change generation in transformers and are not followed, each with its test for a neutral value.
const NOT_FOLLOWED: [(&str, Neutral); 21] = [
    ("num_beams", is_one),
    ("num_beam_groups", is_one),
    ("no_repeat_ngram_size", is_zero),
    ("encoder_no_repeat_ngram_size", is_zero),
    ("encoder_repetition_penalty", is_one),
    ("diversity_penalty", is_zero),
    ("typical_p", is_one),
    ("epsilon_cutoff", is_zero),
    ("eta_cutoff", is_zero),
    ("top_h", never),
    ("penalty_alpha", never),
    ("guidance_scale", is_one),
    ("min_length", is_zero),
    ("min_new_tokens", is_zero),
    ("bad_words_ids", is_empty),
    ("sequence_bias", is_empty),
    ("suppress_tokens", is_empty),
    ("begin_suppress_tokens", is_empty),
    ("forced_bos_token_id", never),
    ("forced_eos_token_id", never),
    ("exponential_decay_length_penalty", never),
];

/// Keys `general.sampling.*` of a GGUF file, defaults of llama.cpp's programs, that are not followed, each with its neutral
/// value.
const KEYS_NOT_FOLLOWED: [(&str, f32); 5] = [
    ("xtc_probability", 0.0),
    ("penalty_freq", 0.0),
    ("penalty_present", 0.0),
    ("dry_multiplier", 0.0),
    ("mirostat", 0.0),
];

fn is_zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}

fn is_one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

fn never(_: &Value) -> bool {
    false
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}

impl GenerationConfig {
    /// Reads `generation_config.json`; without the file, the result is [`GenerationConfig::of`]. Adds a note for each field that
    /// is not followed.
    pub fn read(path: &Path, spec: &ModelSpec, notes: &mut Vec<String>) -> Result<Self> {
        if path.symlink_metadata().is_err() {
            return Ok(Self::of(spec));
        }
        Self::from_object(&Object::read(path, "the file is optional")?, spec, notes)
    }

    /// Parses the text of a `generation_config.json`; `path` is for messages, `notes` as in [`GenerationConfig::read`].
    pub fn parse(path: &Path, json: &[u8], spec: &ModelSpec, notes: &mut Vec<String>) -> Result<Self> {
        Self::from_object(&Object::parse(path, json)?, spec, notes)
    }

    /// The configuration of a checkpoint without the file: the first token and the stop tokens of `spec` only.
    pub fn of(spec: &ModelSpec) -> Self {
        Self { eos_token_id: spec.eos_token_id.clone(), bos_token_id: spec.bos_token_id, ..Self::default() }
    }

    /// The configuration of a GGUF file: the stop tokens of `spec`, and the keys `general.sampling.*` that llama.cpp's converter
    /// writes from `generation_config.json`. Adds a note for each key that is not followed.
    pub(crate) fn of_gguf(metadata: &Metadata, spec: &ModelSpec, notes: &mut Vec<String>) -> Result<Self> {
        let key = |name: &str| format!("general.sampling.{name}");
        for (name, neutral) in KEYS_NOT_FOLLOWED {
            let key = key(name);
            if metadata.amount(&key)?.is_some_and(|value| value != neutral) {
                notes.push(format!("{}: {key}: is not followed", metadata.path().display()));
            }
        }
        let (penalty, last) = (key("penalty_repeat"), key("penalty_last_n"));
        let repetition_penalty = metadata.positive(&penalty)?;
        if repetition_penalty.is_some_and(|penalty| penalty != 1.0) && metadata.whole(&last)?.is_some_and(|n| n >= 0) {
            notes.push(format!("{}: {last}: the penalty applies to the whole text", metadata.path().display()));
        }
        let number = |name: &str| Ok::<_, crate::Error>(metadata.amount(&key(name))?.map(f64::from));
        let top_k = metadata.whole(&key("top_k"))?;
        let (top_p, min_p) = (number("top_p")?, number("min_p")?);
        if top_p == Some(0.0) {
            return Err(metadata.bad(&key("top_p"), "a number above 0", "1 keeps all tokens"));
        }
        if min_p.is_some_and(|share| share > 1.0) {
            return Err(metadata.bad(&key("min_p"), "a number from 0 to 1", "0 keeps all tokens"));
        }
        Ok(Self {
            temperature: number("temp")?,
            // llama.cpp: 0 or less keeps all
            top_k: top_k.map(|k| usize::try_from(k).unwrap_or(0)),
            // llama.cpp: 1 or more keeps all
            top_p: top_p.map(|share| share.min(1.0)),
            min_p,
            repetition_penalty: repetition_penalty.map(f64::from),
            ..Self::of(spec)
        })
    }

    /// The keys `general.sampling.*` of a GGUF file for this configuration; greedy decoding is written as a temperature of 0.
    /// Adds notes about values that the format cannot hold.
    pub fn to_metadata(&self, notes: &mut Vec<String>) -> MetadataList {
        let key = |name: &str| format!("general.sampling.{name}");
        let float = |name: &str, value: Option<f64>| Some((key(name), MetadataValue::F32(value? as f32)));
        if !self.stop_strings.is_empty() {
            notes.push("stop_strings of generation_config.json: GGUF has no key for them".into());
        }
        let greedy = self.do_sample == Some(false);
        let drawn = |value: Option<f64>| value.filter(|_| !greedy);
        let top_k = self.top_k.filter(|_| !greedy).map(|k| i32::try_from(k).unwrap_or(i32::MAX));
        [
            float("temp", if greedy { Some(0.0) } else { self.temperature }),
            top_k.map(|k| (key("top_k"), MetadataValue::I32(k))),
            float("top_p", drawn(self.top_p)),
            float("min_p", drawn(self.min_p)),
            float("penalty_repeat", self.repetition_penalty),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn from_object(json: &Object, spec: &ModelSpec, notes: &mut Vec<String>) -> Result<Self> {
        let stops = token_ids(json, "eos_token_id")?;
        for (field, neutral) in NOT_FOLLOWED {
            if json.get(field).is_some_and(|value| !neutral(value)) {
                notes.push(json.note(field, "is not followed"));
            }
        }
        if let Some(id) = stops.iter().find(|id| **id as usize >= spec.vocab_size) {
            notes.push(json.note("eos_token_id", &format!("the model has no token {id}: it cannot end a text")));
        }
        let top_p = json.share("top_p")?;
        if top_p == Some(0.0) {
            return Err(json.bad("top_p", "a number above 0 and at most 1", "1 keeps all tokens"));
        }
        Ok(Self {
            eos_token_id: if stops.is_empty() { spec.eos_token_id.clone() } else { stops },
            bos_token_id: json.integer("bos_token_id", 0..=u32::MAX as usize)?.map(|id| id as u32),
            do_sample: json.boolean("do_sample")?,
            temperature: json.number("temperature")?,
            top_k: json.integer("top_k", 0..=usize::MAX)?,
            top_p,
            min_p: json.share("min_p")?,
            repetition_penalty: json.positive("repetition_penalty")?,
            stop_strings: json.strings("stop_strings")?,
        })
    }
}
