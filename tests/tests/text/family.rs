//! Tokenizers of Phi-1 to Phi-2, Phi-3-small, phi-4 and Phi-4-mini, in every form found in folders.

use std::collections::HashMap;
use std::fs;

use phi3_model::gguf::{TokenizerKind, Vocabulary};
use phi3_runner::text::{ChatTemplate, Message, Tokenizer};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::built::{FAMILY, built, rank_file};
use super::data::{json as read, vectors};

#[derive(Deserialize)]
struct Vector {
    text: String,
    ids: Vec<u32>,
    decoded: Option<String>,
    decoded_skip_special: Option<String>,
}

fn of(name: &str) -> Vec<Vector> {
    let vectors: Vec<Vector> = vectors(&format!("tokenizer/family/{name}.vectors.json"));
    assert!(vectors.len() > 200);
    vectors
}

fn check(tokenizer: &Tokenizer, vectors: &[Vector]) {
    for Vector { text, ids, decoded, decoded_skip_special } in vectors {
        assert_eq!(&tokenizer.encode(text, false).unwrap(), ids, "{text:?}");
        assert_eq!(&tokenizer.encode(text, true).unwrap(), ids, "{text:?}");
        assert_eq!(&tokenizer.encode_chat(text).unwrap(), ids, "{text:?}");
        let whole = decoded.as_ref().unwrap_or(text);
        for (skip, expected) in [(false, whole), (true, decoded_skip_special.as_ref().unwrap_or(whole))] {
            assert_eq!(&tokenizer.decode(ids, skip).unwrap(), expected, "{ids:?}");
            let mut stream = tokenizer.stream(skip);
            let mut pieces: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
            pieces += &stream.finish().unwrap();
            assert_eq!(&pieces, expected, "{ids:?}");
        }
    }
}

#[test]
fn all_vectors() {
    for built in FAMILY.iter() {
        check(&built.tokenizer, &of(built.name));
        assert!(built.tokenizer.notes().is_empty(), "{:?}", built.tokenizer.notes());
    }
}

#[derive(Deserialize)]
struct ChatVector {
    template: String,
    bos_token: String,
    eos_token: String,
    add_generation_prompt: bool,
    messages: Vec<Message>,
    rendered: String,
    tokenizer: Option<String>,
    ids: Option<Vec<u32>>,
}

#[test]
fn all_chats() {
    let templates: HashMap<String, String> = read("tokenizer/family/chat_templates.json");
    let vectors: Vec<ChatVector> = vectors("tokenizer/family/chat-vectors.json");
    assert!(vectors.len() > 50);
    for v in vectors {
        let template =
            ChatTemplate::from_source(&v.template, &templates[&v.template], &v.bos_token, &v.eos_token).unwrap();
        let rendered = template.render(&v.messages, v.add_generation_prompt).unwrap();
        assert_eq!(rendered, v.rendered, "{}", v.template);
        if let (Some(name), Some(ids)) = (v.tokenizer, v.ids) {
            assert_eq!(built(&name).tokenizer.encode_chat(&rendered).unwrap(), ids, "{rendered:?}");
        }
    }
}

/// `vocab.json`, `merges.txt` and `added_tokens.json` of a tokenizer.
fn pairs(json: &Value, folder: &std::path::Path) {
    let mut vocab = json["model"]["vocab"].as_object().unwrap().clone();
    let mut merges = "#version: 0.2\n".to_owned();
    for merge in json["model"]["merges"].as_array().unwrap() {
        merges += merge.as_str().unwrap();
        merges.push('\n');
    }
    let mut added = Map::new();
    for token in json["added_tokens"].as_array().unwrap() {
        let content = token["content"].as_str().unwrap().to_owned();
        let file = if token["special"] == true { &mut vocab } else { &mut added };
        file.insert(content, token["id"].clone());
    }
    fs::write(folder.join("vocab.json"), Value::Object(vocab).to_string()).unwrap();
    fs::write(folder.join("merges.txt"), merges).unwrap();
    fs::write(folder.join("added_tokens.json"), Value::Object(added).to_string()).unwrap();
}

fn tokenizer_json(name: &str) -> Value {
    let bytes = fs::read(built(name).folder.path().join("tokenizer.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn vocabulary_and_merges_in_files_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    pairs(&tokenizer_json("phi-2"), folder);
    let tokenizer = Tokenizer::from_folder(folder).unwrap().unwrap();
    assert!(tokenizer.notes().is_empty());
    check(&tokenizer, &of("phi-2"));
    let map = json!({"bos_token": "<|endoftext|>", "eos_token": {"content": "<|endoftext|>", "lstrip": false}});
    fs::write(folder.join("special_tokens_map.json"), map.to_string()).unwrap();
    fs::write(folder.join("tokenizer_config.json"), json!({"add_bos_token": true}).to_string()).unwrap();
    let tokenizer = Tokenizer::from_folder(folder).unwrap().unwrap();
    assert_eq!(tokenizer.encode("Hi", true).unwrap(), [50_256, 17_250]);
    assert_eq!(tokenizer.encode_chat("Hi").unwrap(), [17_250]);

    let merges = fs::read_to_string(folder.join("merges.txt")).unwrap();
    fs::write(folder.join("merges.txt"), merges.replacen("\nh e\n", "\nhe\n", 1)).unwrap();
    let line = merges.lines().position(|line| line == "h e").unwrap() + 1;
    let error = Tokenizer::from_folder(folder).unwrap_err().to_string();
    assert!(error.contains("merges.txt") && error.contains(&format!("line {line}`")), "{error}");
    fs::write(folder.join("merges.txt"), "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n").unwrap();
    let error = Tokenizer::from_folder(folder).unwrap_err().to_string();
    assert!(error.contains("git lfs pull"), "{error}");
}

#[test]
fn damaged_rank_files_name_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let good = rank_file();
    let lines: Vec<&str> = good.lines().collect();
    let with = |at: usize, line: &str| {
        let mut lines = lines.clone();
        lines[at] = line;
        lines.join("\n")
    };
    for (text, words) in [
        (with(7, "KQ=="), ["line 8", "rank"]),
        (with(7, "K?== 7"), ["line 8", "base64"]),
        (with(7, "KQ= 7"), ["line 8", "base64"]),
        (with(7, " 7"), ["line 8", "base64"]),
        (with(7, "KA== -7"), ["line 8", "whole number"]),
        (with(7, "KA== 4294967296"), ["line 8", "whole number"]),
        (with(7, "KA== 9"), ["line 10", "line 8"]),
        (with(9, lines[7]), ["line 10", "line 8"]),
        (with(100_000, &format!("{} 100000", "AAAA".repeat(1000))), ["line 100001", "512 bytes"]),
        (lines[1..].join("\n"), ["0x21", "missing"]),
        (lines[..90_000].join("\n"), ["90000 tokens", "100256"]),
        (String::new(), ["0x00", "missing"]),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n".into(), ["git lfs pull", "tiktoken"]),
        ("<!DOCTYPE html>\n<html>".into(), ["web page", "tiktoken"]),
    ] {
        fs::write(folder.path().join("cl100k_base.tiktoken"), text).unwrap();
        let error = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
    }
    // Windows line breaks, and special tokens from the configuration
    fs::write(folder.path().join("cl100k_base.tiktoken"), good.replace('\n', "\r\n")).unwrap();
    let token = json!({"content": "<|turn|>", "lstrip": false, "rstrip": true, "special": true});
    let config = json!({"added_tokens_decoder": {"100256": token}});
    fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap().unwrap();
    assert_eq!(tokenizer.encode("Hi<|turn|> \nHi", false).unwrap(), [13_347, 100_256, 13_347]);
    assert_eq!(tokenizer.token_to_id("<|end|>"), None);
    fs::write(folder.path().join("o200k_base.tiktoken"), "").unwrap();
    let error = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("cl100k_base.tiktoken") && error.contains("o200k_base.tiktoken"), "{error}");
}

#[test]
fn a_folder_without_a_tokenizer_has_none() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Tokenizer::from_folder(folder.path()).unwrap().is_none());
    fs::write(folder.path().join("tokenizer_config.json"), "{}").unwrap();
    assert!(Tokenizer::from_folder(folder.path()).unwrap().is_none());
}

/// The vocabulary that a GGUF converter writes for a `tokenizer.json`.
fn vocabulary(json: &Value, size: usize, pre: Option<&str>) -> Vocabulary {
    let mut tokens: Vec<String> = (0..size).map(|id| format!("[PAD{id}]")).collect();
    let mut types = vec![5; size];
    for (token, id) in json["model"]["vocab"].as_object().unwrap() {
        let id = id.as_u64().unwrap() as usize;
        (tokens[id], types[id]) = (token.clone(), 1);
    }
    for token in json["added_tokens"].as_array().unwrap() {
        let id = token["id"].as_u64().unwrap() as usize;
        tokens[id] = token["content"].as_str().unwrap().to_owned();
        types[id] = if token["special"] == true { 3 } else { 4 };
    }
    let pair = |merge: &Value| match merge {
        Value::String(text) => text.clone(),
        pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
    };
    Vocabulary {
        path: "family.gguf".into(),
        name: None,
        architecture: None,
        kind: TokenizerKind::BytePairs,
        pre: pre.map(str::to_owned),
        tokens,
        scores: Vec::new(),
        types,
        merges: json["model"]["merges"].as_array().unwrap().iter().map(pair).collect(),
        bos: None,
        eos: None,
        stops: Vec::new(),
        unknown: None,
        add_bos: false,
        add_eos: false,
        add_space_prefix: false,
        chat_template: None,
    }
}

#[test]
fn gguf_files_give_the_same_ids() {
    for (name, size, names) in [
        ("phi-2", 51_200, ["phi-2", "gpt-2", "default"]),
        ("phi-4", 100_352, ["dbrx", "smaug-bpe", "default"]),
        ("phi-4-mini", 200_064, ["gpt-4o", "llama4", "default"]),
    ] {
        let json = tokenizer_json(name);
        // a GGUF file has no flags of tokens that strip white space
        let plain: Vec<Vector> =
            of(name).into_iter().filter(|vector| name == "phi-2" || !vector.text.contains("<|")).collect();
        assert!(plain.len() > 100, "{}", plain.len());
        for pre in names.map(Some).into_iter().chain([None]) {
            let tokenizer = Tokenizer::from_gguf(&vocabulary(&json, size, pre)).unwrap();
            assert!(tokenizer.notes().is_empty(), "{:?}", tokenizer.notes());
            check(&tokenizer, &plain);
        }
    }
}
