//! Tokenizers and chat templates from GGUF metadata, compared with the oracle's vectors and the published tokenizer.json.

use phi3_model::gguf::{Metadata, TokenizerKind, Vocabulary};
use phi3_runner::text::{ChatTemplate, Message, Tokenizer};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(path)
}

fn json(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap()
}

fn ids(list: &Value) -> Vec<u32> {
    list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn vocabulary(path: &Path) -> Vocabulary {
    let metadata = Metadata::open(path).unwrap_or_else(|e| panic!("{e}"));
    Vocabulary::read(&metadata).unwrap_or_else(|e| panic!("{e}"))
}

/// `PHI3_GGUF_MODELS` selects another folder, such as the oracle's full set.
fn models() -> PathBuf {
    std::env::var_os("PHI3_GGUF_MODELS").map_or(data("oracle/gguf/models"), PathBuf::from)
}

#[test]
fn texts_become_the_ids_of_the_oracle() {
    let mut checked = 0;
    for model in ["phi3-gqa/MIX", "phi3-longrope/Q4_K_M", "phi3-window/Q4_0", "phi4-mini/Q4_K_M", "phi2/Q5_K_M"] {
        let vocabulary = vocabulary(&models().join(format!("{model}.gguf")));
        let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap_or_else(|e| panic!("{model}: {e}"));
        let golden = json(&models().join(format!("{model}.golden.json")));
        for case in golden["tokens"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            // control tokens in a text are always parsed as control tokens here
            if case["parse_special"] == false && text.contains("<|") {
                continue;
            }
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids(&case["ids"]), "{model}: {text:?}");
            let back = tokenizer.decode(&tokenizer.encode(text, false).unwrap(), false).unwrap();
            // around special tokens, Phi-3's vocabulary adds and strips white space
            assert!(back == text || text.contains("<|"), "{model}: {text:?} comes back as {back:?}");
            checked += 1;
        }
    }
    assert!(checked >= 50, "{checked}");
}

/// The published vocabulary in the form of a GGUF file: scores by rank, 32064 tokens.
fn published(file: &Value) -> Vocabulary {
    let mut tokens = vec![String::new(); 32064];
    let mut types = vec![2; 32064];
    for (token, id) in file["model"]["vocab"].as_object().unwrap() {
        let id = id.as_u64().unwrap() as usize;
        tokens[id] = token.clone();
        types[id] = if (3..259).contains(&id) { 6 } else { 1 };
    }
    for token in file["added_tokens"].as_array().unwrap() {
        let id = token["id"].as_u64().unwrap() as usize;
        tokens[id] = token["content"].as_str().unwrap().to_owned();
        types[id] = if token["special"] == true { 3 } else { 4 };
    }
    for (id, token) in tokens.iter_mut().enumerate().skip(32011) {
        *token = format!("[PAD{id}]");
    }
    let blank = |token: &String| token.chars().all(|c| c == '▁');
    let score = |(id, token): (usize, &String)| match id {
        0..259 => 0.0,
        _ if blank(token) => -1e9,
        _ => 259.0 - id as f32,
    };
    Vocabulary {
        path: "published.gguf".into(),
        name: Some("Phi3".into()),
        architecture: Some("phi3".into()),
        kind: TokenizerKind::SentencePiece,
        pre: Some("default".into()),
        scores: tokens.iter().enumerate().map(score).collect(),
        types,
        tokens,
        merges: Vec::new(),
        bos: Some(1),
        eos: Some(32000),
        stops: vec![32000, 32007],
        unknown: Some(0),
        add_bos: false,
        add_eos: false,
        add_space_prefix: true,
        chat_template: Some("{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}".into()),
    }
}

#[test]
fn the_published_vocabulary_gives_the_published_ids() {
    let folder = std::env::var_os("PHI3_TOKENIZER").map_or(data("tokenizer/phi-3"), PathBuf::from);
    if !folder.join("tokenizer.json").exists() {
        println!("skipped: {} does not exist", folder.display());
        return;
    }
    let tokenizer = Tokenizer::from_gguf(&published(&json(&folder.join("tokenizer.json")))).unwrap();
    let vectors = json(&folder.join("vectors.json"));
    let vectors = vectors["vectors"].as_array().unwrap();
    for case in vectors {
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&case["ids"]), "{text:?}");
        let ids = ids(&case["ids"]);
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), case["decoded"].as_str().unwrap());
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), case["decoded_skip_special"].as_str().unwrap());
    }
    assert!(vectors.len() > 30);
    for case in json(&folder.join("chat-vectors.json"))["vectors"].as_array().into_iter().flatten() {
        if case["ids"].is_array() {
            let text = case["text"].as_str().or(case["rendered"].as_str()).unwrap();
            assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&case["ids"]), "{text:?}");
        }
    }
}

#[test]
fn a_chat_begins_once() {
    let mut vocabulary = vocabulary(&models().join("phi3-window/Q4_0.gguf"));
    let messages = "{% for m in messages %}{{ m['content'] }}{% endfor %}";
    for add_bos in [true, false] {
        vocabulary.add_bos = add_bos;
        let tokenizer = Tokenizer::from_gguf(&vocabulary).unwrap();
        // without a template, the file's setting is used
        assert_eq!(tokenizer.encode("cat", true).unwrap().contains(&1), add_bos);
        for (before, printed) in [("", 0), ("{{ bos_token }}", 1), ("<s>", 1), ("{% if bos_token %}<s>{% endif %}", 1)]
        {
            vocabulary.chat_template = Some(format!("{before}{messages}"));
            let text = ChatTemplate::from_gguf(&vocabulary).unwrap().render(&[Message::user("cat")], true).unwrap();
            assert_eq!(text.matches("<s>").count(), printed);
            let ids = tokenizer.encode_chat(&text).unwrap();
            let begins = ids.iter().take_while(|&&id| id == 1).count();
            assert_eq!(begins, usize::from(add_bos || printed == 1), "{before:?}, {add_bos}: {ids:?}");
            assert_eq!(ids[begins..], tokenizer.encode("cat", false).unwrap());
        }
    }
    // nothing is added after a chat; a BOS token is added before it only if the file names one
    (vocabulary.add_bos, vocabulary.add_eos) = (true, true);
    let plain = Tokenizer::from_gguf(&vocabulary).unwrap().encode("cat", false).unwrap();
    let ids = Tokenizer::from_gguf(&vocabulary).unwrap().encode_chat("cat").unwrap();
    assert_eq!(ids, [&[1], &plain[..]].concat());
    vocabulary.bos = None;
    assert_eq!(Tokenizer::from_gguf(&vocabulary).unwrap().encode_chat("cat").unwrap(), plain);
    vocabulary.chat_template = None;
    assert!(ChatTemplate::from_gguf(&vocabulary).is_err());
}

#[test]
fn byte_pairs_are_cut_as_the_file_or_the_model_has_it() {
    let mut vocabulary = vocabulary(&models().join("phi4-mini/Q4_K_M.gguf"));
    let count = |vocabulary: &Vocabulary| {
        let tokenizer = Tokenizer::from_gguf(vocabulary).unwrap_or_else(|e| panic!("{e}"));
        // words that only some rules split before digits
        let cut = |text: &str| tokenizer.encode(text, false).unwrap().len();
        (cut("1234567"), cut("ab1"), tokenizer.notes().to_vec())
    };
    let mut named = |pre: Option<&str>, architecture: &str| {
        vocabulary.pre = pre.map(str::to_owned);
        vocabulary.architecture = Some(architecture.to_owned());
        count(&vocabulary)
    };
    for pre in [
        "gpt-2",
        "phi-2",
        "olmo",
        "mpt",
        "roberta-bpe",
        "dbrx",
        "smaug-bpe",
        "llama-bpe",
        "llama3",
        "llama-v3",
        "gpt-4o",
        "llama4",
        "qwen2",
        "stablelm2",
    ] {
        assert!(named(Some(pre), "phi3").2.is_empty(), "{pre}");
    }
    for pre in [None, Some("default")] {
        let (digits, word, notes) = named(pre, "phi3");
        assert!(notes.len() == 1 && notes[0].contains("tokenizer.ggml.pre"), "{notes:?}");
        assert_eq!((digits, word, Vec::new()), named(Some("gpt-2"), "phi3"));
        // the rule of Phi-2
        assert_eq!((digits, word, Vec::new()), named(pre, "phi2"));
    }
}

#[test]
fn other_tokenizers_are_refused_by_name() {
    let metadata = Metadata::open(&data("oracle/bad/gguf/tokenizer-unknown.gguf")).unwrap();
    let error = Vocabulary::read(&metadata).unwrap_err().to_string();
    assert!(error.contains("tokenizer.ggml.model") && error.contains("rwkv"), "{error}");

    let mut vocabulary = vocabulary(&models().join("phi4-mini/Q4_K_M.gguf"));
    vocabulary.pre = Some("tekken".into());
    let error = Tokenizer::from_gguf(&vocabulary).unwrap_err().to_string();
    assert!(error.contains("tokenizer.ggml.pre") && error.contains("tekken"), "{error}");
    vocabulary.pre = Some("gpt-4o".into());
    vocabulary.merges[0] = "oneword".into();
    assert!(Tokenizer::from_gguf(&vocabulary).unwrap_err().to_string().contains("merges"));
    vocabulary.merges[0] = "no such".into();
    assert!(Tokenizer::from_gguf(&vocabulary).is_err());
}

#[test]
fn a_long_piece_is_refused_at_once() {
    let path = models().join("phi3-gqa/MIX.gguf");
    let mut vocabulary = vocabulary(&path);
    let id = vocabulary.types.iter().rposition(|&kind| kind == 1).unwrap();
    vocabulary.tokens[id] = "a".repeat(256);
    assert!(Tokenizer::from_gguf(&vocabulary).is_ok());
    vocabulary.tokens[id] = "a".repeat(4 << 20);
    let start = std::time::Instant::now();
    let error = Tokenizer::from_gguf(&vocabulary).unwrap_err().to_string();
    assert!(error.contains(&format!("tokens[{id}]")) && error.contains("256 bytes"), "{error}");
    assert!(start.elapsed().as_secs() < 5);
}
