//! A checkpoint's tokenizer files as the keys of a GGUF file.

use super::around::around;
use super::error::{Error, Result};
use super::rules::Rule;
use super::tokenizer::Tokenizer;
use phi3_model::gguf::{TokenizerKind, Vocabulary};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

const HINT: &str = "compare the file with the published one";

/// Token types of `tokenizer.ggml.token_type`.
mod types {
    pub(super) const NORMAL: i64 = 1;
    pub(super) const UNKNOWN: i64 = 2;
    pub(super) const CONTROL: i64 = 3;
    pub(super) const USER_DEFINED: i64 = 4;
    pub(super) const UNUSED: i64 = 5;
    pub(super) const BYTE: i64 = 6;
}

/// The vocabulary of a tokenizer, padded to `size`, the model's number of rows. `bos` and `eos` are the tokens that begin and end
/// a text if the tokenizer itself adds none. Adds notes about tokens and stop tokens that are lost.
///
/// # Errors
/// The tokenizer is not BPE, or has more tokens than the model.
pub(crate) fn vocabulary(
    tokenizer: &Tokenizer,
    size: usize,
    stops: &[u32],
    bos: Option<u32>,
    eos: Option<u32>,
    notes: &mut Vec<String>,
) -> Result<Vocabulary> {
    let file = tokenizer.file();
    let json = tokenizer.to_json()?;
    let bad = |field: &str, expected: &str| Error::Field {
        file: file.into(),
        field: field.into(),
        expected: expected.into(),
        found: "something else".into(),
        hint: HINT,
    };
    let model = &json["model"];
    let Some(pieces) = model["vocab"].as_object().filter(|_| model["type"] == "BPE") else {
        return Err(bad("model", "a BPE model with a vocab"));
    };
    let sentence_piece = model["byte_fallback"] == true;
    let merges = merges(&model["merges"]).ok_or_else(|| bad("model.merges", "a list of pairs"))?;
    let list = json["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    let added: HashMap<&str, &Value> =
        list.iter().filter_map(|token| Some((token["content"].as_str()?, token))).collect();

    let mut tokens = vec![None; size];
    let mut kinds = vec![types::UNUSED; size];
    let mut outside = Vec::new();
    let mut put = |id: Option<u64>, token: &str, kind: i64| -> Result<()> {
        match id.and_then(|id| usize::try_from(id).ok()) {
            Some(id) if id < size => (tokens[id], kinds[id]) = (Some(token.to_owned()), kind),
            Some(_) if added.contains_key(token) => outside.push(token.to_owned()),
            _ => return Err(bad("model.vocab", &format!("ids below the model's vocab_size, {size}"))),
        }
        Ok(())
    };
    for (token, id) in pieces {
        let is_byte = sentence_piece && token.len() == 6 && token.starts_with("<0x");
        put(id.as_u64(), token, if is_byte { types::BYTE } else { types::NORMAL })?;
    }
    let unknown = model["unk_token"].as_str();
    for (&token, added) in &added {
        let kind = match added["special"] == true {
            _ if Some(token) == unknown => types::UNKNOWN,
            true => types::CONTROL,
            false => types::USER_DEFINED,
        };
        put(added["id"].as_u64(), token, kind)?;
    }
    outside.sort_unstable();
    outside.dedup();
    if let Some(first) = outside.first() {
        notes.push(format!(
            "{file}: {} added tokens such as {first:?} are left out, as the model has only {size} rows",
            outside.len()
        ));
    }
    let ids: HashMap<&str, u32> =
        tokens.iter().enumerate().filter_map(|(id, token)| Some((token.as_deref()?, id as u32))).collect();
    let unknown = unknown.and_then(|token| ids.get(token).copied());
    let scores = if sentence_piece { scores(&merges, &ids, size) } else { Vec::new() };
    let (first, last) = around(&json["post_processor"]);
    let (add_bos, add_eos) = (!first.is_empty(), !last.is_empty());
    let in_model = |id: &u32| (*id as usize) < size;
    let (bos, eos) = (first.last().copied().or(bos), last.first().copied().or(eos));
    let tokens = tokens.into_iter().enumerate().map(|(id, t)| t.unwrap_or_else(|| format!("[PAD{id}]"))).collect();
    let vocabulary = Vocabulary {
        path: file.into(),
        name: None,
        architecture: None,
        kind: if sentence_piece { TokenizerKind::SentencePiece } else { TokenizerKind::BytePairs },
        pre: Some(if sentence_piece { "default" } else { Rule::nearest(&json["pre_tokenizer"]).name() }.into()),
        tokens,
        scores,
        types: kinds,
        merges: if sentence_piece { Vec::new() } else { merges.iter().map(|(a, b)| format!("{a} {b}")).collect() },
        bos: bos.filter(in_model),
        eos: eos.or(stops.first().copied()).filter(in_model),
        stops: stops.iter().copied().filter(in_model).collect(),
        unknown,
        add_bos,
        add_eos,
        add_space_prefix: sentence_piece && space_prefix(&json["normalizer"], &json["pre_tokenizer"]),
        chat_template: None,
    };
    let lost = vocabulary.stops_without_key();
    if !lost.is_empty() {
        notes.push(format!(
            "{file}: of the stop tokens {stops:?} a GGUF file has no key for {lost:?}: answers from it do not end there"
        ));
    }
    Ok(vocabulary)
}

/// Whether a normalizer or a pre-tokenizer of a `tokenizer.json` prepends a space to a text.
pub(super) fn space_prefix(normalizer: &Value, pre_tokenizer: &Value) -> bool {
    let within = |step: &Value, list: &str| {
        step[list].as_array().is_some_and(|steps| {
            steps.iter().any(|step| space_prefix(step, &Value::Null) || space_prefix(&Value::Null, step))
        })
    };
    if within(normalizer, "normalizers") || within(pre_tokenizer, "pretokenizers") {
        return true;
    }
    let put_in_front =
        normalizer["type"] == "Prepend" && normalizer["prepend"].as_str().is_some_and(|text| matches!(text, "▁" | " "));
    let scheme = match pre_tokenizer["type"].as_str() {
        Some("Metaspace") => match pre_tokenizer["prepend_scheme"].as_str() {
            Some(scheme) => scheme != "never",
            None => pre_tokenizer["add_prefix_space"] != false,
        },
        Some("ByteLevel") => pre_tokenizer["add_prefix_space"] == true,
        _ => false,
    };
    put_in_front || scheme
}

/// Pairs, from either form in the file: strings or arrays.
fn merges(list: &Value) -> Option<Vec<(String, String)>> {
    let pair = |value: &Value| match value {
        Value::String(text) => text.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
        Value::Array(pair) => Some((pair.first()?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned())),
        _ => None,
    };
    list.as_array()?.iter().map(pair).collect()
}

/// A score for every token, as in SentencePiece: the earlier the merge, the higher the score; a token that no merge makes has the
/// lowest.
fn scores(merges: &[(String, String)], ids: &HashMap<&str, u32>, size: usize) -> Vec<f32> {
    let mut scores = vec![-1e9; size];
    for (rank, (a, b)) in merges.iter().enumerate().rev() {
        if let Some(&id) = ids.get(format!("{a}{b}").as_str()) {
            scores[id as usize] = -(rank as f32) - 1.0;
        }
    }
    scores
}

/// Ids of the 256 bytes in SentencePiece vocabularies.
const BYTES: std::ops::Range<usize> = 3..259;

/// A vocabulary of placeholders for a checkpoint without a tokenizer. If it is large enough, it includes the bytes, and the four
/// tokens that llama.cpp looks for in every model with Phi-3 in its name.
pub(crate) fn placeholder(path: &Path, size: usize, stops: &[u32], bos: Option<u32>) -> Vocabulary {
    let named = |id: usize| match id {
        _ if size <= BYTES.end => (format!("[{id}]"), types::NORMAL),
        0 => ("<unk>".into(), types::CONTROL),
        1 => ("<s>".into(), types::CONTROL),
        2 => ("</s>".into(), types::CONTROL),
        id if BYTES.contains(&id) => (format!("<0x{:02X}>", id - BYTES.start), types::BYTE),
        id if id == BYTES.end => ("<|endoftext|>".into(), types::CONTROL),
        id => (format!("[{id}]"), types::NORMAL),
    };
    let (tokens, types) = (0..size).map(named).unzip();
    Vocabulary {
        path: path.to_owned(),
        name: None,
        architecture: None,
        kind: TokenizerKind::SentencePiece,
        pre: Some("default".into()),
        tokens,
        scores: vec![0.0; size],
        types,
        merges: Vec::new(),
        bos,
        eos: stops.first().copied(),
        stops: stops.to_vec(),
        unknown: None,
        add_bos: false,
        add_eos: false,
        add_space_prefix: true,
        chat_template: None,
    }
}
