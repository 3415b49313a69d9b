//! The tokenizer's data in a GGUF file (`tokenizer.*` keys), checked for consistency. Tokenization is outside this crate.

use super::{Metadata, MetadataList, MetadataValue};
use crate::{Error, Result, TURN_ENDS};
use std::path::{Path, PathBuf};

/// Kind of a tokenizer: how pieces of text merge into tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerKind {
    /// `llama`: SentencePiece, merges by score, falls back to bytes.
    SentencePiece,
    /// `gpt2`: byte-level pairs, merges by rank.
    BytePairs,
}

/// The tokenizer's data of a model.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// The file, for messages.
    pub path: PathBuf,
    /// `general.name`.
    pub name: Option<String>,
    /// `general.architecture`.
    pub architecture: Option<String>,
    /// `tokenizer.ggml.model`.
    pub kind: TokenizerKind,
    /// `tokenizer.ggml.pre`: name of the pre-tokenizer, which splits text before merging.
    pub pre: Option<String>,
    /// The tokens, by id.
    pub tokens: Vec<String>,
    /// A score of every token; empty where the file has none.
    pub scores: Vec<f32>,
    /// A type of every token (1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte); empty where the file has none.
    pub types: Vec<i64>,
    /// Pairs that merge, in the order of their rank, each with a space between.
    pub merges: Vec<String>,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends a text.
    pub eos: Option<u32>,
    /// Stop tokens: those of the keys `eos_token_id`, `eot_token_id` and `eom_token_id`, and the special tokens named in
    /// [`TURN_ENDS`].
    pub stops: Vec<u32>,
    /// The token for text outside the vocabulary.
    pub unknown: Option<u32>,
    /// Whether encoding prepends `bos`.
    pub add_bos: bool,
    /// Whether encoding appends `eos`.
    pub add_eos: bool,
    /// Whether encoding prepends a space to a text.
    pub add_space_prefix: bool,
    /// The chat template.
    pub chat_template: Option<String>,
}

const HINT: &str = "the file may be damaged, fetch it again";

impl Vocabulary {
    /// Reads and checks the `tokenizer.*` keys.
    ///
    /// # Errors
    /// A key is missing, of the wrong type, or does not fit the tokens.
    pub fn read(metadata: &Metadata) -> Result<Self> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let model = key("model");
        let kind = match metadata.string(&model)?.as_deref() {
            Some("llama") => TokenizerKind::SentencePiece,
            Some("gpt2") => TokenizerKind::BytePairs,
            _ => {
                return Err(metadata.bad(
                    &model,
                    "\"llama\" or \"gpt2\"",
                    "no published Phi model has another tokenizer",
                ));
            }
        };
        let tokens = metadata.strings(&key("tokens"))?.filter(|tokens| !tokens.is_empty());
        let Some(tokens) = tokens else {
            return Err(metadata.bad(&key("tokens"), "an array of the model's tokens", HINT));
        };
        let as_many = |name: &str, len: usize| match len {
            len if len == tokens.len() => Ok(()),
            _ => Err(metadata.bad(&key(name), format!("a length of {}, as of the tokens", tokens.len()), HINT)),
        };
        let scores = metadata.floats(&key("scores"))?;
        let types = metadata.integers(&key("token_type"))?;
        scores.as_ref().map_or(Ok(()), |list| as_many("scores", list.len()))?;
        types.as_ref().map_or(Ok(()), |list| as_many("token_type", list.len()))?;
        let id = |name: &str| {
            let id = metadata.integer(&key(&format!("{name}_token_id")), 0..=tokens.len() - 1)?;
            Ok::<_, Error>(id.map(|id| id as u32))
        };
        let (eos, eot, eom) = (id("eos")?, id("eot")?, id("eom")?);
        let types = types.unwrap_or_default();
        let stops = stops(&tokens, &types, [eos, eot, eom]);
        let pre = metadata.string(&key("pre"))?;
        // llama.cpp's rule for files without the key
        let begins = kind == TokenizerKind::SentencePiece
            || pre.as_deref().is_some_and(|pre| matches!(pre, "llama-bpe" | "llama3" | "llama-v3"));
        Ok(Self {
            path: metadata.path().to_owned(),
            name: metadata.string("general.name").unwrap_or_default(),
            architecture: metadata.string("general.architecture").unwrap_or_default(),
            kind,
            pre,
            scores: scores.unwrap_or_default(),
            merges: metadata.strings(&key("merges"))?.unwrap_or_default(),
            bos: id("bos")?,
            eos,
            stops,
            unknown: id("unknown")?,
            add_bos: metadata.boolean(&key("add_bos_token"))?.unwrap_or(begins),
            add_eos: metadata.boolean(&key("add_eos_token"))?.unwrap_or(false),
            add_space_prefix: metadata.boolean(&key("add_space_prefix"))?.unwrap_or(true),
            chat_template: metadata.string("tokenizer.chat_template")?,
            tokens,
            types,
        })
    }

    /// The file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The `tokenizer.*` keys of this vocabulary.
    pub fn to_metadata(&self) -> MetadataList {
        use MetadataValue::{Bool, Floats, Integers, String as Text, Strings, U32};
        let kind = match self.kind {
            TokenizerKind::SentencePiece => "llama",
            TokenizerKind::BytePairs => "gpt2",
        };
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let mut keys = vec![
            (key("model"), Text(kind.into())),
            (key("pre"), Text(self.pre.clone().unwrap_or_else(|| "default".into()))),
            (key("tokens"), Strings(self.tokens.clone())),
        ];
        if !self.scores.is_empty() {
            keys.push((key("scores"), Floats(self.scores.clone())));
        }
        if !self.types.is_empty() {
            keys.push((key("token_type"), Integers(self.types.iter().map(|&t| t as i32).collect())));
        }
        if !self.merges.is_empty() {
            keys.push((key("merges"), Strings(self.merges.clone())));
        }
        let [turn, message] = self.ends();
        let ids = [("bos", self.bos), ("eos", self.eos), ("eot", turn), ("eom", message), ("unknown", self.unknown)];
        keys.extend(ids.into_iter().filter_map(|(name, id)| Some((key(&format!("{name}_token_id")), U32(id?)))));
        keys.push((key("add_bos_token"), Bool(self.add_bos)));
        keys.push((key("add_eos_token"), Bool(self.add_eos)));
        keys.push((key("add_space_prefix"), Bool(self.add_space_prefix)));
        keys.extend(self.chat_template.clone().map(|text| ("tokenizer.chat_template".into(), Text(text))));
        keys
    }

    /// The tokens for the keys `eot_token_id` and `eom_token_id`: of the stop tokens other than `eos`, the first named in
    /// [`TURN_ENDS`] and the first that is not.
    fn ends(&self) -> [Option<u32>; 2] {
        let named = |id: u32| self.tokens.get(id as usize).is_some_and(|token| TURN_ENDS.contains(&token.as_str()));
        let others = || self.stops.iter().copied().filter(|&id| Some(id) != self.eos);
        [others().find(|&id| named(id)), others().find(|&id| !named(id))]
    }

    /// The stop tokens that the keys of a file cannot hold.
    pub fn stops_without_key(&self) -> Vec<u32> {
        let [turn, message] = self.ends();
        let kept = stops(&self.tokens, &self.types, [self.eos, turn, message]);
        self.stops.iter().copied().filter(|id| !kept.contains(id)).collect()
    }
}

/// Stop tokens, sorted: those of the keys, and control or user-defined tokens named in [`TURN_ENDS`]. Without types, every token
/// of that name counts.
fn stops(tokens: &[String], types: &[i64], keys: [Option<u32>; 3]) -> Vec<u32> {
    let control = |i: usize| types.get(i).is_none_or(|&kind| kind == 3 || kind == 4);
    let named = tokens.iter().enumerate().filter(|(i, token)| TURN_ENDS.contains(&token.as_str()) && control(*i));
    let mut stops: Vec<u32> = keys.into_iter().flatten().chain(named.map(|(i, _)| i as u32)).collect();
    stops.sort_unstable();
    stops.dedup();
    stops
}
