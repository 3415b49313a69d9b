use crate::files::{demo, edit};
use crate::{Ran, ask, continued, run};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Sets a post-processor that adds `<s>` before every text.
fn begins(folder: &Path) {
    edit(folder.join("tokenizer.json"), |json| {
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let first = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
        json["post_processor"] = json!({
            "type": "TemplateProcessing", "single": [first, text], "pair": [first, text, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        });
    });
    edit(folder.join("tokenizer_config.json"), |config| drop(config.insert("add_bos_token".into(), json!(true))));
}

fn tokenize(model: &Path, args: &[&str]) -> Ran {
    run(&[&["tokenize", "-m", &model.display().to_string()], args].concat()).ok()
}

fn quantized(folder: &Path) -> (std::path::PathBuf, Ran) {
    let file = folder.join("out.gguf");
    let ran = run(&["quantize", &folder.display().to_string(), &file.display().to_string(), "--type", "f16"]).ok();
    (file, ran)
}

#[test]
fn a_chat_has_the_special_tokens_that_its_template_prints() {
    let plain = ask(demo().path(), "Hi", &["-n", "1"]).ok().prompt_tokens();
    for (before, more) in [("", 0), ("{{ bos_token }}", 1), ("<s>", 1)] {
        let folder = demo();
        begins(folder.path());
        edit(folder.path().join("tokenizer_config.json"), |config| {
            let template = format!("{before}{}", config["chat_template"].as_str().unwrap());
            config.insert("chat_template".into(), json!(template));
        });
        assert_eq!(ask(folder.path(), "Hi", &["-n", "1"]).ok().prompt_tokens(), plain + more, "{before}");
        // for plain text, the tokenizer's `<s>` is kept
        let count = |special: &[&str]| tokenize(folder.path(), &[special, &["Hi"]].concat()).stdout.split(' ').count();
        assert_eq!(count(&["--special"]), count(&[]) + 1);
        // in a GGUF file, the setting applies to every text
        let (file, _) = quantized(folder.path());
        assert_eq!(ask(&file, "Hi", &["-n", "1"]).ok().prompt_tokens(), plain + 1, "{before}");
    }
}

#[test]
fn tokens_of_the_configuration_alone_are_tokens() {
    let folder = demo();
    let text = "<|user|>\nHi<|im_start|>you";
    let before = tokenize(folder.path(), &[text]);
    assert!(before.notes().is_empty(), "{}", before.stderr);
    edit(folder.path().join("tokenizer_config.json"), |config| {
        let token = json!({"content": "<|im_start|>", "special": true});
        config["added_tokens_decoder"]["2091"] = token;
    });
    let after = tokenize(folder.path(), &[text]);
    assert_eq!(after.stdout.trim(), "2090 1528 2091 503");
    assert!(after.notes().is_empty(), "{}", after.stderr);
    let (file, ran) = quantized(folder.path());
    assert!(tokenize(&file, &[text]).stdout.contains(" 2091 "));
    assert!(ran.notes().iter().all(|note| note.contains("white space behind added tokens")), "{}", ran.stderr);
    edit(folder.path().join("tokenizer_config.json"), |config| {
        let decoder = config["added_tokens_decoder"].as_object_mut().unwrap();
        let token = decoder.remove("2091").unwrap();
        decoder.insert("2087".into(), token);
    });
    tokenize(folder.path(), &[text]).note(&["tokenizer_config.json", "added_tokens_decoder", "2087", "<|im_start|>"]);
    ask(folder.path(), "Hi", &["-n", "1"]).note(&["tokenizer_config.json", "added_tokens_decoder", "2087"]);
}

/// A change of tokenizer.json.
type Change = fn(&mut Map<String, Value>);

fn no_prefix(json: &mut Map<String, Value>) {
    json["normalizer"] = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    json["decoder"]["decoders"].as_array_mut().unwrap().pop();
}

fn metaspace(json: &mut Map<String, Value>, scheme: &str) {
    json["normalizer"] = Value::Null;
    json["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
}

fn normalizer_first(json: &mut Map<String, Value>, step: Value) {
    json["normalizer"]["normalizers"].as_array_mut().unwrap().insert(0, step);
}

#[test]
fn what_a_written_file_has_a_field_for_is_written() {
    let same: [Change; 3] = [
        |_| {},
        no_prefix,
        |json| {
            metaspace(json, "never");
            json["decoder"]["decoders"].as_array_mut().unwrap().pop();
        },
    ];
    for (i, change) in same.into_iter().enumerate() {
        let folder = demo();
        edit(folder.path().join("tokenizer.json"), change);
        let (file, ran) = quantized(folder.path());
        assert!(ran.notes().is_empty(), "{i}: {}", ran.stderr);
        for text in ["Hello you", " a  b", "<|user|>\nHello you<|end|>\n", "Grüße 漢 12\n\tx"] {
            assert_eq!(tokenize(&file, &[text]).stdout, tokenize(folder.path(), &[text]).stdout, "{i}: {text:?}");
        }
    }
}

#[test]
fn what_a_written_file_cannot_hold_is_told() {
    let changes: [(Change, &str); 8] = [
        // Metaspace adds no second space to a text that begins with one
        (|json| metaspace(json, "always"), "the beginning and the end of a text"),
        (
            |json| {
                for token in json["added_tokens"].as_array_mut().unwrap() {
                    token["rstrip"] = json!(false);
                }
            },
            "white space behind added tokens",
        ),
        (|json| json["added_tokens"][5]["lstrip"] = json!(true), "white space in front of added tokens"),
        (|json| metaspace(json, "first"), "added tokens"),
        (|json| normalizer_first(json, json!({"type": "NFKC"})), "normal forms"),
        (|json| normalizer_first(json, json!({"type": "Lowercase"})), "normal forms and case"),
        (
            |json| {
                json["pre_tokenizer"] = json!({"type": "Digits", "individual_digits": true});
                let (vocab, merges) = ("vocab", "merges");
                let id = json["model"][vocab].as_object().unwrap()["▁a"].clone();
                // replaces a piece by one of two digits
                let model = json["model"].as_object_mut().unwrap();
                let pieces = model[vocab].as_object_mut().unwrap();
                pieces.remove("▁a");
                pieces.insert("12".into(), id);
                let list = model[merges].as_array_mut().unwrap();
                let text = |pair: &Value| match pair {
                    Value::String(text) => text.replace(' ', ""),
                    pair => format!("{}{}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
                };
                let parts = |pair: &Value| match pair {
                    Value::String(text) => text.split(' ').map(str::to_owned).collect::<Vec<_>>(),
                    pair => vec![pair[0].as_str().unwrap().to_owned(), pair[1].as_str().unwrap().to_owned()],
                };
                list.retain(|pair| text(pair) != "▁a" && !parts(pair).contains(&"▁a".to_owned()));
                list.push(json!("1 2"));
            },
            "digits",
        ),
        (
            |json| {
                json["normalizer"]["normalizers"]
                    .as_array_mut()
                    .unwrap()
                    .push(json!({"type": "Replace", "pattern": {"Regex": "▁+"}, "content": "▁"}));
            },
            "white space",
        ),
    ];
    for (change, words) in changes {
        let folder = demo();
        edit(folder.path().join("tokenizer.json"), change);
        // its flags would take precedence
        edit(folder.path().join("tokenizer_config.json"), |config| drop(config.remove("added_tokens_decoder")));
        let (_, ran) = quantized(folder.path());
        ran.note(&["tokenizer", words]);
    }
}

#[test]
fn stop_tokens_without_a_key_are_told() {
    let folder = demo();
    let set = |ids: Value| {
        edit(folder.path().join("generation_config.json"), |config| drop(config.insert("eos_token_id".into(), ids)))
    };
    set(json!([2080, 2087, 40]));
    assert!(quantized(folder.path()).1.notes().is_empty());
    set(json!([2080, 2087, 40, 41, 42]));
    quantized(folder.path()).1.note(&["stop tokens", "[41, 42]"]);
}

#[test]
fn what_stands_in_place_of_a_tokenizer_is_told() {
    let folder = demo();
    let remove = |name: &str| std::fs::remove_file(folder.path().join(name)).unwrap();
    let write = |name: &str| std::fs::write(folder.path().join(name), "{}").unwrap();
    let model = folder.path().display().to_string();
    let told = |words: &[&str]| {
        run(&["tokenize", "-m", &model, "Hi"]).error(words);
        ask(folder.path(), "Hi", &["-n", "1"]).error(words);
    };
    remove("tokenizer.json");
    told(&["tokenizer.json", "vocab.json with merges.txt", "*.tiktoken", "GGUF", "found none"]);
    write("vocab.json");
    told(&["found vocab.json without merges.txt"]);
    remove("vocab.json");
    write("tokenizer.model");
    told(&["found SentencePiece's tokenizer.model", "save_pretrained", "GGUF"]);
    let (file, ran) = quantized(folder.path());
    ran.note(&["tokenizer.model", "no text"]);
    assert!(continued(&file).ok().stdout.starts_with('['));
}
