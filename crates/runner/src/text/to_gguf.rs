//! A checkpoint's tokenizer files as the keys of a GGUF file.

use super::error::{Error, Result};
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

/// The vocabulary of a `tokenizer.json`; `path` is for messages. `size` is the model's, which may have more rows than there
/// are tokens; the rest is filled up.
///
/// # Errors
/// The file is no BPE tokenizer, or has more tokens than the model.
pub fn vocabulary(path: &Path, json: &str, size: usize, stops: &[u32], bos: Option<u32>) -> Result<Vocabulary> {
    let file = path.display().to_string();
    let json: Value = serde_json::from_str(json).map_err(|e| Error::Malformed {
        file: file.clone(),
        reason: e.to_string(),
        hint: HINT,
    })?;
    let bad = |field: &str, expected: &str| Error::Field {
        file: file.clone(),
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

    let mut tokens = vec![None; size];
    let mut kinds = vec![types::UNUSED; size];
    let mut put = |id: Option<u64>, token: &str, kind: i64| -> Result<()> {
        let slot = id.and_then(|id| usize::try_from(id).ok()).filter(|&id| id < size);
        let Some(id) = slot else {
            return Err(bad("model.vocab", &format!("ids below the model's vocab_size, {size}")));
        };
        tokens[id] = Some(token.to_owned());
        kinds[id] = kind;
        Ok(())
    };
    for (token, id) in pieces {
        let is_byte = sentence_piece && token.len() == 6 && token.starts_with("<0x");
        put(id.as_u64(), token, if is_byte { types::BYTE } else { types::NORMAL })?;
    }
    let unknown = model["unk_token"].as_str();
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let token = added["content"].as_str().unwrap_or_default();
        let kind = match added["special"] == true {
            _ if Some(token) == unknown => types::UNKNOWN,
            true => types::CONTROL,
            false => types::USER_DEFINED,
        };
        put(added["id"].as_u64(), token, kind)?;
    }
    let ids: HashMap<&str, u32> =
        tokens.iter().enumerate().filter_map(|(id, token)| Some((token.as_deref()?, id as u32))).collect();
    let unknown = unknown.and_then(|token| ids.get(token).copied());
    let scores = if sentence_piece { scores(&merges, &ids, size) } else { Vec::new() };
    // a post-processor that puts the first token in front stands for the flag
    let processor = json["post_processor"].to_string();
    let bos_text = bos.and_then(|id| tokens.get(id as usize)?.clone());
    let add_bos = bos_text.is_some_and(|token| processor.contains(&format!("\"{token}\"")));
    let tokens = tokens.into_iter().enumerate().map(|(id, t)| t.unwrap_or_else(|| format!("[PAD{id}]"))).collect();
    Ok(Vocabulary {
        path: path.to_owned(),
        name: None,
        kind: if sentence_piece { TokenizerKind::SentencePiece } else { TokenizerKind::BytePairs },
        pre: Some(if sentence_piece { "default" } else { pre(&json["pre_tokenizer"].to_string()) }.into()),
        tokens,
        scores,
        types: kinds,
        merges: if sentence_piece { Vec::new() } else { merges.iter().map(|(a, b)| format!("{a} {b}")).collect() },
        bos,
        eos: stops.first().copied(),
        stops: stops.to_vec(),
        unknown,
        add_bos,
        add_eos: false,
        add_space_prefix: sentence_piece,
        chat_template: None,
    })
}

/// Pairs, from either spelling of the file.
fn merges(list: &Value) -> Option<Vec<(String, String)>> {
    let pair = |value: &Value| match value {
        Value::String(text) => text.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
        Value::Array(pair) => Some((pair.first()?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned())),
        _ => None,
    };
    list.as_array()?.iter().map(pair).collect()
}

/// A score for every token: the sooner a piece is merged the higher, as SentencePiece has it; what no merge makes comes
/// last.
fn scores(merges: &[(String, String)], ids: &HashMap<&str, u32>, size: usize) -> Vec<f32> {
    let mut scores = vec![-1e9; size];
    for (rank, (a, b)) in merges.iter().enumerate().rev() {
        if let Some(&id) = ids.get(format!("{a}{b}").as_str()) {
            scores[id as usize] = -(rank as f32) - 1.0;
        }
    }
    scores
}

/// llama.cpp's name of the way that text is cut before merging, by the expression in the file.
fn pre(pre_tokenizer: &str) -> &'static str {
    match pre_tokenizer {
        text if text.contains("\\p{Lu}") => "gpt-4o",
        text if text.contains("\\p{N}{1,3}") => "dbrx",
        _ => "phi-2",
    }
}

/// Where SentencePiece's vocabularies have their 256 bytes.
const BYTES: std::ops::Range<usize> = 3..259;

/// Names for the tokens of a checkpoint that has no tokenizer. Where there is room the bytes are among them, and the four
/// tokens that llama.cpp looks for in every model with Phi-3 in its name.
pub fn placeholder(path: &Path, size: usize, stops: &[u32], bos: Option<u32>) -> Vocabulary {
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
