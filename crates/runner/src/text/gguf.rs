//! The tokenizer of a GGUF file: its keys, converted to the `tokenizer.json` that they came from.

use phi3_model::gguf::{TokenizerKind, Vocabulary};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

use super::around::processor;
use super::companions::Companions;
use super::error::{Error, Result};
use super::rules::{Rule, byte_level, takes_whole_pieces};
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
    /// Its ids are those of the published `tokenizer.json`: SentencePiece vocabularies are converted to merges in the same order,
    /// by score, then by the ids of the piece and of its halves.
    ///
    /// # Errors
    /// The file's keys make no usable tokenizer.
    pub fn from_gguf(vocabulary: &Vocabulary) -> Result<Self> {
        let file = vocabulary.path().display().to_string();
        let mut notes = Vec::new();
        note_types(vocabulary, &mut notes);
        let (model, normalizer, pre_tokenizer, decoder) = match vocabulary.kind {
            TokenizerKind::SentencePiece => sentence_piece(vocabulary)?,
            TokenizerKind::BytePairs => byte_pairs(vocabulary, &mut notes)?,
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
        let chat_begins_with = vocabulary.bos.filter(|_| vocabulary.add_bos);
        Self::with_companions(file, &bytes, Companions { notes, chat_begins_with, ..Companions::default() })
    }
}

fn malformed(vocabulary: &Vocabulary, reason: String) -> Error {
    Error::Malformed { file: vocabulary.path().display().to_string(), reason, hint: HINT }
}

/// The type of a token. In a file without types, a token that looks special is a control token, as in llama.cpp.
fn kind(vocabulary: &Vocabulary, id: usize, token: &str) -> i64 {
    let names = [vocabulary.bos, vocabulary.eos, vocabulary.unknown];
    let looks_special = || token.starts_with("<|") && token.ends_with("|>") || names.contains(&Some(id as u32));
    match vocabulary.types.get(id) {
        Some(kind) => *kind,
        None if looks_special() => types::CONTROL,
        None => types::NORMAL,
    }
}

/// Adds a note if the file has no token types, or a type that the format does not define.
fn note_types(vocabulary: &Vocabulary, notes: &mut Vec<String>) {
    const KEY: &str = "tokenizer.ggml.token_type";
    let file = vocabulary.path().display();
    if vocabulary.types.is_empty() {
        notes.push(format!("{file}: {KEY} is missing: tokens with names such as <|end|> are special"));
    } else if let Some(id) = vocabulary.types.iter().position(|kind| !(0..=6).contains(kind)) {
        notes.push(format!(
            "{file}: {KEY}[{id}] is {}, but types are 0 to 6: the token is not used",
            vocabulary.types[id]
        ));
    }
}

/// Tokens with their ids and types, without those that pad the vocabulary. Padding has the type "unused", in some files
/// "unknown".
fn tokens(vocabulary: &Vocabulary) -> impl Iterator<Item = (u32, &str, i64)> {
    let unknown = vocabulary.unknown;
    let all = vocabulary.tokens.iter().enumerate();
    all.map(move |(id, token)| (id as u32, token.as_str(), kind(vocabulary, id, token)))
        .filter(move |&(id, _, kind)| !matches!(kind, types::UNKNOWN | types::UNUSED) || Some(id) == unknown)
}

fn ids(vocabulary: &Vocabulary) -> Map<String, Value> {
    tokens(vocabulary).map(|(id, token, _)| (token.to_owned(), id.into())).collect()
}

/// Added tokens, which are found in the raw text.
///
/// The file has no flags for the white space after them. In published files of Phi-3's vocabulary, all but three tokens strip it;
/// in those of byte pairs, none.
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

/// The tokens added before and after a text, by the flags of the file.
fn post_processor(vocabulary: &Vocabulary) -> Value {
    let token = |wanted: bool, id: Option<u32>| {
        let id = id.filter(|_| wanted)?;
        Some((id, vocabulary.tokens.get(id as usize)?.as_str()))
    };
    processor(token(vocabulary.add_bos, vocabulary.bos), token(vocabulary.add_eos, vocabulary.eos))
}

/// Longest piece that is merged, in bytes: looking up every split takes time in the square of its length. Published pieces have
/// up to 48.
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

/// Every split of a normal piece into two pieces, sorted by the piece's score, highest first, then by the piece's id, then by the
/// ids of the halves.
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

const PRE: &str = "tokenizer.ggml.pre";

/// The pre-tokenizer. Files of older converters do not name it, or name it "default". It is then that of the Phi model with a
/// vocabulary of this size; if there is none, GPT-2's, with a note.
fn rule(vocabulary: &Vocabulary, notes: &mut Vec<String>) -> Result<Rule> {
    let named = vocabulary.pre.as_deref().filter(|name| *name != "default");
    let Some(name) = named else {
        let of_model = (vocabulary.architecture.as_deref() == Some("phi2")).then_some(Rule::Gpt2);
        if let Some(rule) = of_model.or_else(|| Rule::of_size(vocabulary.tokens.len())) {
            return Ok(rule);
        }
        let says = if vocabulary.pre.is_some() { "\"default\"" } else { "missing" };
        notes.push(format!(
            "{}: {PRE} is {says}: GPT-2's pre-tokenizer is used; its ids may differ from those of the model's training",
            vocabulary.path().display()
        ));
        return Ok(Rule::Gpt2);
    };
    Rule::named(name).ok_or_else(|| Error::Field {
        file: vocabulary.path().display().to_string(),
        field: PRE.into(),
        expected: format!("\"default\" or one of {}", Rule::known()),
        found: format!("{name:?}"),
        hint: "no published Phi model has another: convert the model again",
    })
}

fn byte_pairs(vocabulary: &Vocabulary, notes: &mut Vec<String>) -> Result<Parts> {
    let rule = rule(vocabulary, notes)?;
    let pair = |merge: &String| merge.split_once(' ').map(|(left, right)| [left.to_owned(), right.to_owned()]);
    let Some(merges) = vocabulary.merges.iter().map(pair).collect::<Option<Vec<_>>>() else {
        return Err(malformed(vocabulary, "tokenizer.ggml.merges: a merge is not a pair with a space between".into()));
    };
    let model = json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": null,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": vocabulary.pre.as_deref().is_some_and(takes_whole_pieces),
        "vocab": ids(vocabulary),
        "merges": merges,
    });
    Ok((model, Value::Null, rule.pre_tokenizer(false), byte_level(false, true)))
}
