//! Tokens found only in files beside `tokenizer.json`. Expected values are those of transformers 5.24, with one exception: for
//! an id that leaves a gap, transformers assigns the next free id, and the given id is used here.

use std::fs;

use phi3_runner::text::Tokenizer;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const TEXT: &str = "<|user|>\nHi<|end|>\n a<|x|> b";

/// Ids of the demo model, whose vocabulary ends at 2090.
const SPLIT: [u32; 10] = [2090, 1528, 2087, 281, 2012, 2076, 2072, 2076, 2014, 263];
const WHOLE: [u32; 7] = [2090, 1528, 2087, 281, 2091, 2079, 263];

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("tokenizer.json", &serde_json::from_str(phi3_demo::TOKENIZER).unwrap());
        files.write("tokenizer_config.json", &serde_json::from_str(phi3_demo::TOKENIZER_CONFIG).unwrap());
        files
    }

    /// Without `added_tokens_decoder`, like older files.
    fn old() -> Self {
        Self::new().edit("tokenizer_config.json", |config| drop(config.remove("added_tokens_decoder")))
    }

    fn write(&self, name: &str, value: &Value) {
        fs::write(self.0.path().join(name), value.to_string()).unwrap();
    }

    fn with(self, name: &str, value: Value) -> Self {
        self.write(name, &value);
        self
    }

    fn edit(self, name: &str, change: impl FnOnce(&mut Map<String, Value>)) -> Self {
        let bytes = fs::read(self.0.path().join(name)).unwrap();
        let mut value: Map<String, Value> = serde_json::from_slice(&bytes).unwrap();
        change(&mut value);
        self.with(name, Value::Object(value))
    }

    fn set(self, field: &str, value: Value) -> Self {
        self.edit("tokenizer_config.json", |config| drop(config.insert(field.into(), value)))
    }

    /// Adds a token to `added_tokens_decoder`.
    fn token(self, id: u32, token: Value) -> Self {
        self.edit("tokenizer_config.json", |config| config["added_tokens_decoder"][id.to_string()] = token)
    }

    fn tokenizer(&self) -> Tokenizer {
        Tokenizer::from_folder(self.0.path()).unwrap().unwrap()
    }

    /// Checks the ids and the notes: one note per list, with all of its words.
    fn gives(&self, ids: &[u32], notes: &[&[&str]]) -> Tokenizer {
        let tokenizer = self.tokenizer();
        assert_eq!(tokenizer.encode(TEXT, false).unwrap(), ids);
        assert_eq!(tokenizer.notes().len(), notes.len(), "{:?}", tokenizer.notes());
        for (note, words) in tokenizer.notes().iter().zip(notes) {
            assert!(words.iter().all(|word| note.contains(word)), "{words:?}: {note}");
        }
        tokenizer
    }

    fn fails(&self, words: &[&str]) {
        let error = Tokenizer::from_folder(self.0.path()).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
    }
}

fn token(content: &str) -> Value {
    json!({"content": content, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": true})
}

#[test]
fn files_that_agree_give_no_note() {
    Files::new().gives(&SPLIT, &[]);
    Files::old().gives(&SPLIT, &[]);
    Files::new().set("additional_special_tokens", json!(["<|end|>"])).gives(&SPLIT, &[]);
    Files::new().set("additional_special_tokens", json!([])).set("extra_special_tokens", json!({})).gives(&SPLIT, &[]);
    Files::new().set("clean_up_tokenization_spaces", json!(true)).gives(&SPLIT, &[]);
    Files::new().with("special_tokens_map.json", json!({"eos_token": token("<|end|>")})).gives(&SPLIT, &[]);
}

#[test]
fn missing_tokens_are_added() {
    for files in [
        Files::new().token(2091, token("<|x|>")),
        Files::new().set("additional_special_tokens", json!(["<|x|>"])),
        Files::new().set("extra_special_tokens", json!(["<|x|>"])),
        Files::new().set("extra_special_tokens", json!([token("<|x|>")])),
        Files::new().set("extra_special_tokens", json!({"image_token": "<|x|>"})),
        Files::new().set("image_token", json!("<|x|>")),
        Files::new().set("pad_token", json!("<|x|>")),
        Files::new().set("unk_token", token("<|x|>")),
        Files::old().with("special_tokens_map.json", json!({"additional_special_tokens": ["<|x|>"]})),
        Files::old().with("special_tokens_map.json", json!({"pad_token": {"content": "<|x|>"}})),
    ] {
        let tokenizer = files.gives(&WHOLE, &[]);
        assert!(tokenizer.is_special(2091));
        assert_eq!(tokenizer.vocab_size(), 2092);
        assert_eq!(tokenizer.decode(&[1528, 2091], true).unwrap(), "Hi");
    }
    // not special, and matched in the normalized text
    let added = Files::old().with("added_tokens.json", json!({"<|x|>": 2091}));
    assert!(!added.tokenizer().is_special(2091));
    assert_eq!(added.tokenizer().token_to_id("<|x|>"), Some(2091));
    assert_eq!(added.tokenizer().encode(TEXT, false).unwrap(), SPLIT);
    // both names: the newer one is used
    let both =
        Files::new().set("extra_special_tokens", json!(["<|y|>"])).set("additional_special_tokens", json!(["<|x|>"]));
    assert_eq!(both.gives(&SPLIT, &[]).token_to_id("<|y|>"), Some(2091));
    // a piece of the vocabulary becomes a special token, and keeps its id
    let piece = Files::new().set("additional_special_tokens", json!(["</s>", "▁Hi"])).tokenizer();
    assert!(piece.is_special(1528));
    assert_eq!(piece.vocab_size(), 2091);
}

#[test]
fn flags_of_the_configuration_win() {
    let flag = |field: &str, value: bool| {
        let files = Files::new().edit("tokenizer_config.json", |config| {
            config["added_tokens_decoder"]["2087"][field] = json!(value);
        });
        files.gives(&files.tokenizer().encode(TEXT, false).unwrap(), &[])
    };
    let ids = |tokenizer: &Tokenizer, text: &str| tokenizer.encode(text, false).unwrap();
    assert_eq!(ids(&flag("rstrip", false), TEXT)[2..5], [2087, 2079, 13]);
    assert_eq!(ids(&flag("lstrip", true), "Hi \n<|end|>"), [1528, 2087]);
    assert_ne!(ids(&flag("single_word", true), "Hi<|end|>you")[1], 2087);
    assert!(flag("special", false).is_special(2087));
    // flags given elsewhere do not apply
    let named = json!({"content": "<|end|>", "lstrip": true});
    assert_eq!(ids(&Files::new().set("eos_token", named).tokenizer(), "Hi \n<|end|>").last(), Some(&2087));
    assert_ne!(ids(&Files::new().tokenizer(), "Hi \n<|end|>"), [1528, 2087]);
}

#[test]
fn what_cannot_be_followed_is_told() {
    // the id is that of another token: the new token gets the next one
    Files::new()
        .token(2087, token("<|x|>"))
        .gives(&WHOLE, &[&["tokenizer_config.json", "added_tokens_decoder", "2087", "<|end|>", "2091"]]);
    // another id than in tokenizer.json
    let other = Files::new().token(2092, token("<|end|>"));
    let ids = [&SPLIT[..2], &[2087, 2079, 13], &SPLIT[3..]].concat();
    other.gives(&ids, &[&["added_tokens_decoder", "<|end|>", "2087", "2092"]]);
    // a gap: the given id is used
    let gap = Files::new().token(2095, token("<|x|>")).token(2096, token("<|y|>"));
    let ids = [&WHOLE[..4], &[2095], &WHOLE[5..]].concat();
    let gap = gap.gives(&ids, &[&["added_tokens_decoder", "2095", "2091"]]);
    assert_eq!((gap.token_to_id("<|y|>"), gap.id_to_token(2091)), (Some(2096), None));
    assert_eq!(gap.decode(&[1528, 2095], false).unwrap(), "Hi<|x|>");
    // files that are ignored if there is a decoder
    Files::new()
        .with("special_tokens_map.json", json!({"pad_token": "<|x|>"}))
        .gives(&SPLIT, &[&["special_tokens_map.json", "pad_token", "<|x|>"]]);
    Files::new().with("added_tokens.json", json!({"<|x|>": 2091})).gives(&SPLIT, &[&["added_tokens.json", "<|x|>"]]);
    Files::old()
        .with("added_tokens.json", json!({"<|end|>": 9}))
        .gives(&SPLIT, &[&["added_tokens.json", "<|end|>", "2087"]]);
    // the post-processor of tokenizer.json takes precedence
    for (field, value) in [("add_bos_token", true), ("add_eos_token", true), ("add_prefix_space", false)] {
        let files = Files::new().set(field, json!(value));
        let tokenizer = files.gives(&SPLIT, &[&["tokenizer_config.json", field]]);
        assert_eq!(tokenizer.encode(TEXT, true).unwrap(), SPLIT);
        Files::new().set(field, json!(!value)).gives(&SPLIT, &[]);
    }
    let corrupting = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
    Files::new().set(corrupting, json!(true)).gives(&SPLIT, &[&[corrupting]]);
}

#[test]
fn special_tokens_are_split_where_the_configuration_says_so() {
    let ids = Files::new().set("split_special_tokens", json!(true)).tokenizer().encode(TEXT, false).unwrap();
    assert_eq!(ids[..6], [2079, 2012, 2076, 310, 260, 2076]);
}

#[test]
fn ids_with_gaps_in_tokenizer_json_are_kept() {
    let added = |id: u32, content: &str| {
        let mut token = token(content);
        token["id"] = json!(id);
        token
    };
    let files = Files::old().edit("tokenizer.json", |json| {
        json["added_tokens"].as_array_mut().unwrap().extend([added(2095, "<|x|>"), added(2100, "<|y|>")]);
    });
    let ids = [&WHOLE[..4], &[2095], &WHOLE[5..]].concat();
    assert_eq!(files.gives(&ids, &[]).token_to_id("<|y|>"), Some(2100));
    for (id, content) in [(2087, "<|x|>"), (5, "<|x|>"), (3, "<|end|>")] {
        let files = Files::old().edit("tokenizer.json", |json| {
            json["added_tokens"].as_array_mut().unwrap().push(added(id, content));
        });
        files.fails(&["tokenizer.json", "added_tokens[", &id.to_string()]);
    }
}

#[test]
fn fields_of_other_types_are_named() {
    let decoder = |value: Value| Files::new().set("added_tokens_decoder", value);
    decoder(json!([])).fails(&["tokenizer_config.json", "added_tokens_decoder", "[]"]);
    decoder(json!({"-1": token("<|x|>")})).fails(&["added_tokens_decoder", "-1"]);
    decoder(json!({"2091": "<|x|>x"})).gives(&SPLIT, &[]);
    decoder(json!({"2091": 5})).fails(&["added_tokens_decoder.2091", "5"]);
    decoder(json!({"2091": {"rstrip": true}})).fails(&["added_tokens_decoder.2091", "content"]);
    decoder(json!({"2091": {"content": "<|x|>", "rstrip": "yes"}})).fails(&["added_tokens_decoder.2091.rstrip", "yes"]);
    Files::new().set("additional_special_tokens", json!("<|x|>")).fails(&["additional_special_tokens"]);
    Files::new().set("additional_special_tokens", json!([7])).fails(&["additional_special_tokens", "7"]);
    Files::new().set("add_bos_token", json!("no")).fails(&["add_bos_token", "no"]);
    Files::old().with("added_tokens.json", json!({"<|x|>": "2091"})).fails(&["added_tokens.json", "<|x|>", "2091"]);
    Files::new().with("added_tokens.json", json!([])).fails(&["added_tokens.json", "object"]);
    Files::new().with("special_tokens_map.json", json!(1)).fails(&["special_tokens_map.json", "object"]);
}

#[test]
fn a_space_in_front_of_byte_level_texts() {
    let letters = (0x21..=0x7Eu32).chain(0xA1..=0xAC).chain(0xAE..=0xFF).chain(0x100..=0x143);
    let vocab: Map<String, Value> =
        letters.filter_map(char::from_u32).zip(0..).map(|(letter, id)| (letter.to_string(), Value::from(id))).collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let space = vocab["Ġ"].clone();
    let json = json!({"version": "1.0", "added_tokens": [], "pre_tokenizer": level, "decoder": level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []}});
    for (class, follows) in
        [("CodeGenTokenizer", true), ("GPT2TokenizerFast", true), ("PreTrainedTokenizerFast", false)]
    {
        let files = Files(tempfile::tempdir().unwrap()).with("tokenizer.json", json.clone());
        let files = files.with("tokenizer_config.json", json!({"add_prefix_space": true, "tokenizer_class": class}));
        let tokenizer = files.tokenizer();
        let first = tokenizer.encode("Hi", false).unwrap()[0];
        assert_eq!((json!(first) == space, tokenizer.notes().is_empty()), (follows, follows), "{class}");
    }
}
