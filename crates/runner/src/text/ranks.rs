//! Byte-level vocabularies without a `tokenizer.json`: tiktoken's rank files, and `vocab.json` with `merges.txt`.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::error::{Error, Result};
use super::outline::HINT;
use super::rules::{Rule, byte_level};

/// Longest token, in bytes: the search for its merge takes time in about the square of its length. Published tokens have up to
/// 128.
const LONGEST: usize = 512;

/// The special tokens of Phi-3-small, which no file of its folder has. Tokens named "dummy_id" take the other ids.
const PHI_3_SMALL: [(&str, u32); 9] = [
    ("<|endoftext|>", 100_257),
    ("<|fim_prefix|>", 100_258),
    ("<|fim_middle|>", 100_259),
    ("<|fim_suffix|>", 100_260),
    ("<|system|>", 100_261),
    ("<|user|>", 100_262),
    ("<|assistant|>", 100_263),
    ("<|end|>", 100_266),
    ("<|endofprompt|>", 100_276),
];

/// The ids of Phi-3-small's `<|dummy_id_0|>`, `<|dummy_id_1|>` and so on.
fn dummies() -> impl Iterator<Item = u32> {
    [100_264, 100_265, 100_256].into_iter().chain(100_267..100_276).chain(100_277..100_352)
}

/// Special tokens of a rank file that no other file names.
fn special_tokens(rule: Rule) -> Vec<(String, u32)> {
    match rule {
        Rule::Gpt2 => vec![("<|endoftext|>".into(), 50_256)],
        Rule::O200k => vec![("<|endoftext|>".into(), 199_999), ("<|endofprompt|>".into(), 200_018)],
        Rule::Cl100k => {
            let dummies = dummies().enumerate().map(|(i, id)| (format!("<|dummy_id_{i}|>"), id));
            PHI_3_SMALL.map(|(token, id)| (token.to_owned(), id)).into_iter().chain(dummies).collect()
        }
        Rule::Digits => Vec::new(),
    }
}

/// Converts a rank file, with a line `base64 rank` for every token, to a `tokenizer.json`. `named` is whether other files name
/// the special tokens.
pub(super) fn from_ranks(path: &Path, bytes: &[u8], named: bool) -> Result<Value> {
    let tokens = read(path, bytes)?;
    let Some(rule) = Rule::of_size(tokens.len()) else {
        return Err(Error::Malformed {
            file: path.display().to_string(),
            reason: format!(
                "expected the rank file of GPT-2 (50256 tokens), cl100k_base (100256) or o200k_base (199998), found {} tokens",
                tokens.len()
            ),
            hint: "the file may be incomplete: fetch it again",
        });
    };
    let special = if named { Vec::new() } else { special_tokens(rule) };
    let text = |bytes: &[u8]| bytes.iter().map(|&byte| char_of(byte)).collect::<String>();
    let merges: Vec<[String; 2]> = merges(&tokens).into_iter().map(|(left, right)| [text(left), text(right)]).collect();
    let mut vocabulary: Map<String, Value> = tokens.iter().map(|(token, rank)| (text(token), (*rank).into())).collect();
    let mut added = Vec::new();
    for (token, id) in special {
        added.push(json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        }));
        vocabulary.insert(token, id.into());
    }
    Ok(byte_pairs(rule, false, vocabulary, json!(merges), added))
}

/// Converts `vocab.json` and `merges.txt` to a `tokenizer.json`.
pub(super) fn from_pairs(
    path: &Path,
    vocabulary: Map<String, Value>,
    merges: &str,
    rule: Rule,
    prefix: bool,
) -> Result<Value> {
    let mut pairs = Vec::new();
    for (i, line) in merges.lines().enumerate() {
        // the first line may have the version
        if line.trim().is_empty() || (i == 0 && line.starts_with("#version")) {
            continue;
        }
        let mut parts = line.trim_end().split(' ');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(left), Some(right), None) if !left.is_empty() && !right.is_empty() => pairs.push([left, right]),
            _ => return Err(bad_line(path, i, "two pieces with a space between", line)),
        }
    }
    Ok(byte_pairs(rule, prefix, vocabulary, json!(pairs), Vec::new()))
}

fn byte_pairs(rule: Rule, prefix: bool, vocabulary: Map<String, Value>, merges: Value, added: Vec<Value>) -> Value {
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": rule.pre_tokenizer(prefix),
        "post_processor": null,
        "decoder": byte_level(true, true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocabulary,
            "merges": merges,
        },
    })
}

fn bad_line(path: &Path, line: usize, expected: &str, found: &str) -> Error {
    let short: String = found.chars().take(40).collect();
    Error::Field {
        file: path.display().to_string(),
        field: format!("line {}", line + 1),
        expected: expected.into(),
        found: format!("{short:?}"),
        hint: HINT,
    }
}

/// The tokens of a rank file in the order of their ranks.
fn read(path: &Path, bytes: &[u8]) -> Result<Vec<(Vec<u8>, u32)>> {
    // an error for a Git LFS pointer or a web page in its place
    phi3_model::json_text(path, bytes)?;
    let mut tokens = Vec::new();
    let mut lines = HashMap::new();
    for (i, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let shown = String::from_utf8_lossy(line);
        let bad = |expected: &str| bad_line(path, i, expected, &shown);
        let Some((token, rank)) = shown.split_once(' ') else {
            return Err(bad("a token in base64, a space and its rank"));
        };
        let token = base64(token).filter(|token| !token.is_empty()).ok_or_else(|| bad("a token in base64 first"))?;
        let rank: u32 = rank.trim().parse().map_err(|_| bad("a whole number as the rank"))?;
        if token.len() > LONGEST {
            return Err(bad(&format!("a token of at most {LONGEST} bytes")));
        }
        if let Some(other) = lines.insert(token.clone(), i) {
            return Err(bad(&format!("a token that is not that of line {}", other + 1)));
        }
        tokens.push((token, rank, i));
    }
    tokens.sort_by_key(|(_, rank, _)| *rank);
    if let Some(pair) = tokens.windows(2).find(|pair| pair[0].1 == pair[1].1) {
        let expected = format!("a rank that is not that of line {}", pair[0].2 + 1);
        return Err(bad_line(path, pair[1].2, &expected, &pair[1].1.to_string()));
    }
    if let Some(byte) = (0..=255u8).find(|byte| !lines.contains_key([*byte].as_slice())) {
        return Err(Error::Malformed {
            file: path.display().to_string(),
            reason: format!("the token of the byte 0x{byte:02X} is missing"),
            hint: "the file may be incomplete: fetch it again",
        });
    }
    Ok(tokens.into_iter().map(|(token, rank, _)| (token, rank)).collect())
}

/// The merge of each token: the last step of merging its bytes with lower ranks only. A token that is not the merge of two others
/// has none.
fn merges(tokens: &[(Vec<u8>, u32)]) -> Vec<(&[u8], &[u8])> {
    let ranks: HashMap<&[u8], u32> = tokens.iter().map(|(token, rank)| (token.as_slice(), *rank)).collect();
    let mut merges = Vec::with_capacity(tokens.len());
    for (token, own) in tokens {
        // the start of each part, and the end of the last one
        let mut cuts: Vec<usize> = (0..=token.len()).collect();
        let rank =
            |cuts: &[usize], at: usize| ranks.get(&token[cuts[at]..cuts[at + 2]]).copied().filter(|rank| rank < own);
        while cuts.len() > 3 {
            let best = (0..cuts.len() - 2).filter_map(|at| Some((rank(&cuts, at)?, at))).min();
            let Some((_, at)) = best else { break };
            cuts.remove(at + 1);
        }
        if let [0, middle, _] = cuts[..] {
            merges.push(token.split_at(middle));
        }
    }
    merges
}

/// Decodes base64 with its padding; `None` if invalid.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (bits, held) = (bits << 6 | u32::from(value), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    (bits == 0).then_some(bytes)
}

/// The character of a byte in a byte-level vocabulary: GPT-2's table.
fn char_of(byte: u8) -> char {
    let code = match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => u32::from(byte),
        0..=0x20 => 0x100 + u32::from(byte),
        0x7F..=0xA0 => 0x121 + u32::from(byte - 0x7F),
        0xAD => 0x143,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded_or_refused() {
        assert_eq!(base64("IQ==").as_deref(), Some(b"!".as_slice()));
        assert_eq!(base64("aGVsbG8+").as_deref(), Some(b"hello>".as_slice()));
        assert_eq!(base64("aGk=").as_deref(), Some(b"hi".as_slice()));
        for text in ["IQ=", "IQ", "IR==", "I===", "I Q=", "====", "aGk=aGk="] {
            assert_eq!(base64(text), None, "{text}");
        }
    }

    #[test]
    fn merges_follow_from_ranks() {
        let tokens: Vec<(Vec<u8>, u32)> = ["a", "b", "c", "ab", "bc", "abc", "xyz"]
            .iter()
            .zip(0..)
            .map(|(t, i)| (t.as_bytes().to_vec(), i))
            .collect();
        let expected: [(&[u8], &[u8]); 3] = [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c")];
        assert_eq!(merges(&tokens), expected);
    }

    #[test]
    fn bytes_have_characters_of_their_own() {
        let mut chars: Vec<char> = (0..=255).map(char_of).collect();
        assert_eq!((char_of(b' '), char_of(b'\n'), char_of(0xAD)), ('Ġ', 'Ċ', 'Ń'));
        chars.sort_unstable();
        chars.dedup();
        assert_eq!(chars.len(), 256);
    }
}
