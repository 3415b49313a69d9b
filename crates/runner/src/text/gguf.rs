//! The tokenizer and chat template of a GGUF file: its keys, written as the `tokenizer.json` that they came from.

use phi3_model::gguf::{TokenizerKind, Vocabulary};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

use super::error::{Error, Result};
use super::template::ChatTemplate;
use super::tokenizer::Tokenizer;

const HINT: &str = "the file may be damaged, fetch it again";

/// Token types of `tokenizer.ggml.token_type`.
mod types {
    pub(super) const NORMAL: i64 = 1;
    pub(super) const UNKNOWN: i64 = 2;
    pub(super) const CONTROL: i64 = 3;
    pub(super) const USER_DEFINED: i64 = 4;
    pub(super) const UNUSED: i64 = 5;
}

impl Tokenizer {
    /// The tokenizer of a GGUF file.
    ///
    /// It gives the ids of the published `tokenizer.json`: SentencePiece vocabularies become merges as they did there, by
    /// score and then by the ids of the halves.
    ///
    /// # Errors
    /// The file's keys make no usable tokenizer.
    pub fn from_gguf(vocabulary: &Vocabulary) -> Result<Self> {
        let file = vocabulary.path().display().to_string();
        let (model, normalizer, pre_tokenizer, decoder) = match vocabulary.kind {
            TokenizerKind::SentencePiece => sentence_piece(vocabulary)?,
            TokenizerKind::BytePairs => byte_pairs(vocabulary)?,
        };
        let tokenizer = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added_tokens(vocabulary),
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": post_processor(vocabulary),
            "decoder": decoder,
            "model": model,
        });
        let bytes = serde_json::to_vec(&tokenizer).map_err(|e| malformed(vocabulary, e.to_string()))?;
        Self::from_bytes(file, &bytes)
    }
}

impl ChatTemplate {
    /// The chat template of a GGUF file.
    ///
    /// Where the tokenizer itself begins a text with a token (`tokenizer.ggml.add_bos_token`), a template's `bos_token` is
    /// empty: it must not stand there twice.
    ///
    /// # Errors
    /// There is no template, or it is no valid Jinja.
    pub fn from_gguf(vocabulary: &Vocabulary) -> Result<Self> {
        let file = vocabulary.path().display().to_string();
        let Some(source) = &vocabulary.chat_template else {
            return Err(Error::NoTemplate { file, found: String::new() });
        };
        let token = |id: Option<u32>| id.and_then(|id| vocabulary.tokens.get(id as usize)).map_or("", String::as_str);
        let bos = if vocabulary.add_bos { "" } else { token(vocabulary.bos) };
        Self::from_source(file, source, bos, token(vocabulary.eos))
    }
}

fn malformed(vocabulary: &Vocabulary, reason: String) -> Error {
    Error::Malformed { file: vocabulary.path().display().to_string(), reason, hint: HINT }
}

fn kind(vocabulary: &Vocabulary, id: usize) -> i64 {
    vocabulary.types.get(id).copied().unwrap_or(types::NORMAL)
}

/// Tokens with their ids, but for those that fill the vocabulary up: in some files these have the type "unknown".
fn tokens(vocabulary: &Vocabulary) -> impl Iterator<Item = (u32, &str, i64)> {
    let unknown = vocabulary.unknown;
    let all = vocabulary.tokens.iter().enumerate();
    all.map(move |(id, token)| (id as u32, token.as_str(), kind(vocabulary, id)))
        .filter(move |&(id, _, kind)| !matches!(kind, types::UNKNOWN | types::UNUSED) || Some(id) == unknown)
}

fn ids(vocabulary: &Vocabulary) -> Map<String, Value> {
    tokens(vocabulary).map(|(id, token, _)| (token.to_owned(), id.into())).collect()
}

/// Tokens that are found in the raw text.
///
/// Which of them swallow the white space behind is not in the file: in the published files of Phi-3's vocabulary it is
/// all but three, in those of byte pairs none.
fn added_tokens(vocabulary: &Vocabulary) -> Vec<Value> {
    let swallows = vocabulary.kind == TokenizerKind::SentencePiece;
    let added = tokens(vocabulary).filter(|(id, _, kind)| {
        matches!(*kind, types::CONTROL | types::USER_DEFINED) || Some(*id) == vocabulary.unknown
    });
    added
        .filter(|(_, token, _)| !token.is_empty())
        .map(|(id, token, kind)| {
            json!({
                "id": id,
                "content": token,
                "single_word": false,
                "lstrip": false,
                "rstrip": swallows && !matches!(token, "<unk>" | "<s>" | "<|endoftext|>"),
                "normalized": false,
                "special": kind != types::USER_DEFINED,
            })
        })
        .collect()
}

/// Puts the first and the last token around a text, where the file says so.
fn post_processor(vocabulary: &Vocabulary) -> Value {
    let token = |wanted: bool, id: Option<u32>| {
        let id = id.filter(|_| wanted)?;
        Some((id, vocabulary.tokens.get(id as usize)?.as_str()))
    };
    let (first, last) = (token(vocabulary.add_bos, vocabulary.bos), token(vocabulary.add_eos, vocabulary.eos));
    let special =
        |token: Option<(u32, &str)>| token.map(|(_, token)| json!({"SpecialToken": {"id": token, "type_id": 0}}));
    let sequence = |id: &str| Some(json!({"Sequence": {"id": id, "type_id": 0}}));
    let single: Vec<Value> = [special(first), sequence("A"), special(last)].into_iter().flatten().collect();
    let pair: Vec<Value> =
        [special(first), sequence("A"), sequence("B"), special(last)].into_iter().flatten().collect();
    let tokens: Map<String, Value> = first
        .into_iter()
        .chain(last)
        .map(|(id, token)| (token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]})))
        .collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens})
}

/// Bytes of a piece that is merged, at most: every split is looked up, which takes the square of its length. Published
/// pieces have up to 48.
const LONGEST_PIECE: usize = 256;

fn normal(vocabulary: &Vocabulary) -> impl Iterator<Item = (u32, &str, i64)> {
    tokens(vocabulary).filter(|&(_, _, kind)| kind == types::NORMAL)
}

type Parts = (Value, Value, Value, Value);

fn sentence_piece(vocabulary: &Vocabulary) -> Result<Parts> {
    if let Some((id, piece, _)) = normal(vocabulary).find(|(_, piece, _)| piece.len() > LONGEST_PIECE) {
        return Err(Error::Field {
            file: vocabulary.path().display().to_string(),
            field: format!("tokenizer.ggml.tokens[{id}]"),
            expected: format!("a piece of at most {LONGEST_PIECE} bytes"),
            found: format!("one of {}", piece.len()),
            hint: HINT,
        });
    }
    let merges: Vec<[&str; 2]> = merges_of(vocabulary);
    let unknown = vocabulary.unknown.and_then(|id| vocabulary.tokens.get(id as usize));
    let model = json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": unknown,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": true,
        "byte_fallback": true,
        "ignore_merges": false,
        "vocab": ids(vocabulary),
        "merges": merges,
    });
    let space = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let mut normalizers = vec![space];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if vocabulary.add_space_prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let normalizer = json!({"type": "Sequence", "normalizers": normalizers});
    Ok((model, normalizer, Value::Null, json!({"type": "Sequence", "decoders": decoders})))
}

/// Every split of a normal piece into two pieces, by the piece's score, best first, then in the vocabulary's order, then
/// by the ids of the halves.
fn merges_of(vocabulary: &Vocabulary) -> Vec<[&str; 2]> {
    let ids: HashMap<&str, u32> = tokens(vocabulary).map(|(id, token, _)| (token, id)).collect();
    let mut merges = Vec::new();
    for (id, piece, _) in normal(vocabulary) {
        let score = vocabulary.scores.get(id as usize).copied().unwrap_or(-(id as f32));
        let splits = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
        merges.extend(
            splits.filter_map(|(left, right)| Some((score, id, *ids.get(left)?, *ids.get(right)?, [left, right]))),
        );
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
    merges.into_iter().map(|merge| merge.4).collect()
}

/// How text is cut before merging, by `tokenizer.ggml.pre`: `None` is GPT-2's rule, which the library has.
fn pattern(pre: Option<&str>) -> Option<Option<&'static str>> {
    match pre {
        None | Some("default" | "gpt-2" | "phi-2") => Some(None),
        // cl100k_base
        Some("dbrx") => Some(Some(concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ))),
        // o200k_base
        Some("gpt-4o") => Some(Some(concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ))),
        Some(_) => None,
    }
}

fn byte_pairs(vocabulary: &Vocabulary) -> Result<Parts> {
    let Some(pattern) = pattern(vocabulary.pre.as_deref()) else {
        return Err(Error::Field {
            file: vocabulary.path().display().to_string(),
            field: "tokenizer.ggml.pre".into(),
            expected: "\"phi-2\", \"gpt-2\", \"dbrx\" or \"gpt-4o\"".into(),
            found: vocabulary.pre.clone().unwrap_or_default(),
            hint: "no published Phi model has another",
        });
    };
    let pair = |merge: &String| merge.split_once(' ').map(|(left, right)| [left.to_owned(), right.to_owned()]);
    let Some(merges) = vocabulary.merges.iter().map(pair).collect::<Option<Vec<_>>>() else {
        return Err(malformed(vocabulary, "tokenizer.ggml.merges: a merge is no pair with a space between".into()));
    };
    let model = json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": null,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": false,
        "vocab": ids(vocabulary),
        "merges": merges,
    });
    let bytes =
        |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let pre_tokenizer = match pattern {
        None => bytes(true),
        Some(pattern) => json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            bytes(false),
        ]}),
    };
    Ok((model, Value::Null, pre_tokenizer, bytes(true)))
}
