//! `generation_config.json`: where a text ends, and how the model's makers sample.

use crate::config::token_ids;
use crate::json::Object;
use crate::{Config, Result};
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
    /// Divides the logits.
    pub temperature: Option<f64>,
    /// Tokens to keep, by rank.
    pub top_k: Option<usize>,
    /// Probability to keep.
    pub top_p: Option<f64>,
    /// Least share of the best token's probability.
    pub min_p: Option<f64>,
    /// Divides the logits of tokens that stand in the text.
    pub repetition_penalty: Option<f64>,
}

impl GenerationConfig {
    /// Reads `generation_config.json`; where there is none, only the stop tokens of `config` are known.
    pub fn read(path: &Path, config: &Config) -> Result<Self> {
        if path.symlink_metadata().is_err() {
            return Ok(Self::of(config));
        }
        Self::from_object(&Object::read(path, "the file is optional")?, config)
    }

    /// Parses the text of a `generation_config.json`; `path` is for messages.
    pub fn parse(path: &Path, json: &[u8], config: &Config) -> Result<Self> {
        Self::from_object(&Object::parse(path, json)?, config)
    }

    /// What a checkpoint without that file says: only where a text begins and ends.
    pub fn of(config: &Config) -> Self {
        Self { eos_token_id: config.eos_token_id.clone(), bos_token_id: config.bos_token_id, ..Self::default() }
    }

    fn from_object(json: &Object, config: &Config) -> Result<Self> {
        let stops = token_ids(json, "eos_token_id")?;
        Ok(Self {
            eos_token_id: if stops.is_empty() { config.eos_token_id.clone() } else { stops },
            bos_token_id: json.integer("bos_token_id", 0..=u32::MAX as usize)?.map(|id| id as u32),
            do_sample: json.boolean("do_sample")?,
            temperature: json.number("temperature")?,
            top_k: json.integer("top_k", 0..=usize::MAX)?,
            top_p: json.number("top_p")?,
            min_p: json.number("min_p")?,
            repetition_penalty: json.positive("repetition_penalty")?,
        })
    }
}
