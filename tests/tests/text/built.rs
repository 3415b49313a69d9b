//! Tokenizer folders of the family, built from rank files: Phi-2, phi-4, Phi-4-mini, Phi-3-small.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::LazyLock;

use phi3_runner::text::Tokenizer;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::data::path;

const CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// A tokenizer's folder, and the tokenizer read from it.
pub(crate) struct Built {
    pub(crate) name: &'static str,
    pub(crate) folder: TempDir,
    pub(crate) tokenizer: Tokenizer,
}

pub(crate) static FAMILY: LazyLock<Vec<Built>> = LazyLock::new(|| {
    let build = |name| {
        let folder = tempfile::tempdir().unwrap();
        write(name, folder.path());
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap().unwrap();
        Built { name, folder, tokenizer }
    };
    ["phi-2", "phi-4", "phi-4-mini", "phi-3-small"].map(build).into()
});

pub(crate) fn built(name: &str) -> &'static Built {
    FAMILY.iter().find(|built| built.name == name).unwrap()
}

/// Tokens by rank. The file has one length byte per token, then the tokens' bytes.
fn ranks(name: &str, count: usize) -> Vec<Vec<u8>> {
    let packed = fs::File::open(path(&format!("tokenizer/family/{name}.ranks.xz"))).unwrap();
    let mut raw = Vec::new();
    lzma_rust2::XzReader::new(packed, false).read_to_end(&mut raw).unwrap();
    let (lengths, mut rest) = raw.split_at(count);
    let tokens = lengths.iter().map(|&length| {
        let (token, behind) = rest.split_at(length.into());
        rest = behind;
        token.to_vec()
    });
    let tokens = tokens.collect();
    assert!(rest.is_empty());
    tokens
}

fn added(id: u32, content: &str, special: bool, [lstrip, rstrip, normalized]: [bool; 3]) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": lstrip, "rstrip": rstrip,
        "normalized": normalized, "special": special})
}

/// The end token, then runs of 31 to 2 spaces and of 9 to 2 tabs.
fn phi_2() -> Vec<Value> {
    let plain = [false, false, true];
    let mut tokens = vec![added(50_256, "<|endoftext|>", true, [false; 3])];
    tokens.extend((0..30).map(|k| added(50_257 + k, &" ".repeat(31 - k as usize), false, plain)));
    tokens.extend((0..8).map(|k| added(50_287 + k, &"\t".repeat(9 - k as usize), false, plain)));
    tokens
}

fn phi_4() -> Vec<Value> {
    let names = HashMap::from([
        (100_257, "<|endoftext|>"),
        (100_258, "<|fim_prefix|>"),
        (100_259, "<|fim_middle|>"),
        (100_260, "<|fim_suffix|>"),
        (100_264, "<|im_start|>"),
        (100_265, "<|im_end|>"),
        (100_266, "<|im_sep|>"),
        (100_276, "<|endofprompt|>"),
    ]);
    let mut dummies = 0..;
    let name = |id| names.get(&id).map(|name| (*name).to_owned());
    let mut token = |id| {
        let name = name(id).unwrap_or_else(|| format!("<|dummy_{}|>", dummies.next().unwrap()));
        added(id, &name, true, [true, true, false])
    };
    (100_256..100_352).map(&mut token).collect()
}

fn phi_4_mini() -> Vec<Value> {
    let first = [(199_999, "endoftext"), (200_010, "endoftext10"), (200_011, "endoftext11"), (200_018, "endofprompt")];
    let names =
        ["assistant", "end", "user", "system", "tool", "/tool", "tool_call", "/tool_call", "tool_response", "tag"];
    let first = first.map(|(id, name)| added(id, &format!("<|{name}|>"), true, [false; 3]));
    let rest = names
        .iter()
        .zip(0..)
        .map(|(name, k)| added(200_019 + k, &format!("<|{name}|>"), !(4..=8).contains(&k), [false, true, false]));
    first.into_iter().chain(rest).collect()
}

/// GPT-2's characters for the 256 bytes.
fn letters() -> Vec<char> {
    let plain = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut others = 256..;
    (0..256).map(|byte| if plain(&byte) { byte } else { others.next().unwrap() }).filter_map(char::from_u32).collect()
}

/// One merge for every token of two or more bytes: the last step of merging it with lower ranks only.
fn merges(tokens: &[Vec<u8>]) -> Vec<[Vec<u8>; 2]> {
    let rank: HashMap<&[u8], usize> = tokens.iter().enumerate().map(|(i, token)| (token.as_slice(), i)).collect();
    let mut merges = Vec::new();
    for (own, token) in tokens.iter().enumerate().filter(|(_, token)| token.len() > 1) {
        let mut parts: Vec<Vec<u8>> = token.iter().map(|byte| vec![*byte]).collect();
        while parts.len() > 2 {
            let pairs = parts.windows(2).enumerate();
            let (best, at) =
                pairs.filter_map(|(at, pair)| Some((*rank.get(pair.concat().as_slice())?, at))).min().unwrap();
            assert!(best < own);
            let second = parts.remove(at + 1);
            parts[at].extend(second);
        }
        merges.push(parts.try_into().unwrap());
    }
    merges
}

fn tokenizer_json(name: &str) -> Value {
    let (tokens, tokens_added, pattern) = match name {
        "phi-2" => (ranks("r50k_base", 50_256), phi_2(), None),
        "phi-4" => (ranks("cl100k_base", 100_256), phi_4(), Some(CL100K)),
        _ => (ranks("o200k_base", 199_998), phi_4_mini(), Some(O200K)),
    };
    let letters = letters();
    let text = |bytes: &[u8]| bytes.iter().map(|&byte| letters[usize::from(byte)]).collect::<String>();
    let mut vocab: Map<String, Value> =
        tokens.iter().zip(0..).map(|(token, id)| (text(token), Value::from(id))).collect();
    if name == "phi-4-mini" {
        vocab.extend(tokens_added.iter().map(|token| (token["content"].as_str().unwrap().into(), token["id"].clone())));
    }
    let level =
        |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let (behavior, invert) = if name == "phi-4" { ("Removed", true) } else { ("Isolated", false) };
    let pre_tokenizer = match pattern {
        None => level(true),
        Some(pattern) => json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}, level(false),
        ]}),
    };
    let merges = merges(&tokens).into_iter().map(|[left, right]| match name {
        "phi-2" => json!(format!("{} {}", text(&left), text(&right))),
        _ => json!([text(&left), text(&right)]),
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": tokens_added, "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab,
            "merges": merges.collect::<Vec<_>>(),
        },
    })
}

/// The lines of a rank file.
pub(crate) fn rank_file() -> String {
    ranks("cl100k_base", 100_256).iter().enumerate().fold(String::new(), |mut file, (rank, token)| {
        writeln!(file, "{} {rank}", base64(token)).unwrap();
        file
    })
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().chain([&0; 2]).take(3).fold(0usize, |bits, byte| bits << 8 | usize::from(*byte));
        for (i, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            text.push(if i <= chunk.len() { char::from(DIGITS[bits >> shift & 63]) } else { '=' });
        }
    }
    text
}

/// Writes the folder with the published files; that of Phi-3-small has a rank file and no `tokenizer.json`.
fn write(name: &str, folder: &Path) {
    let save = |file: &str, value: &Value| fs::write(folder.join(file), value.to_string()).unwrap();
    let mut config = json!({"add_bos_token": false, "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"});
    if name == "phi-3-small" {
        fs::write(folder.join("cl100k_base.tiktoken"), rank_file()).unwrap();
        config["added_tokens_decoder"] = json!({});
        return save("tokenizer_config.json", &config);
    }
    let json = tokenizer_json(name);
    let mut decoder = Map::new();
    for token in json["added_tokens"].as_array().unwrap() {
        let mut token = token.clone();
        let id = token.as_object_mut().unwrap().remove("id").unwrap();
        decoder.insert(id.to_string(), token);
    }
    config["added_tokens_decoder"] = Value::Object(decoder);
    config["add_prefix_space"] = json!(false);
    config["clean_up_tokenization_spaces"] = json!(name == "phi-2");
    config["tokenizer_class"] = json!(if name == "phi-2" { "CodeGenTokenizer" } else { "GPT2Tokenizer" });
    save("tokenizer.json", &json);
    save("tokenizer_config.json", &config);
}
