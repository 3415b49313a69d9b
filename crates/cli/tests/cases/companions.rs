use crate::files::{demo, edit};
use crate::{ask, run};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const BOM: &[u8] = b"\xEF\xBB\xBF";

fn answer(folder: &Path) -> crate::Ran {
    ask(folder, "Hi", &["-n", "12"])
}

/// Rewrites the bytes of a file in a folder.
fn rewrite(folder: &Path, file: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let path = folder.join(file);
    fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
}

fn utf_16(bytes: &[u8]) -> Vec<u8> {
    let units = std::str::from_utf8(bytes).unwrap().encode_utf16();
    [0xFF, 0xFE].into_iter().chain(units.flat_map(u16::to_le_bytes)).collect()
}

const FILES: [&str; 4] = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];

#[test]
fn byte_order_marks_and_utf_16_are_read() {
    let expected = answer(demo().path()).ok().stdout;
    for file in FILES {
        for change in [(|bytes| [BOM, &bytes].concat()) as fn(Vec<u8>) -> Vec<u8>, |bytes| utf_16(&bytes)] {
            let folder = demo();
            rewrite(folder.path(), file, change);
            assert_eq!(answer(folder.path()).ok().stdout, expected, "{file}");
        }
    }
}

#[test]
fn python_s_numbers_in_fields_that_nobody_needs_are_read_past() {
    let expected = answer(demo().path()).ok().stdout;
    // the tokenizers library refuses unknown fields of tokenizer.json
    for file in FILES.into_iter().filter(|file| *file != "tokenizer.json") {
        for number in ["NaN", "Infinity", "-Infinity"] {
            let folder = demo();
            rewrite(folder.path(), file, |bytes| {
                let text = String::from_utf8(bytes).unwrap();
                text.replacen('{', &format!("{{\"unheard_of\": [{number}], "), 1).into_bytes()
            });
            assert_eq!(answer(folder.path()).ok().stdout, expected, "{file}, {number}");
        }
    }
    let folder = demo();
    rewrite(folder.path(), "config.json", |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        text.replace("\"sliding_window\"", "\"x\"").replacen('{', "{\"sliding_window\": Infinity, ", 1).into_bytes()
    });
    answer(folder.path()).error(&["sliding_window", "Infinity"]);
}

#[test]
fn what_stands_in_place_of_a_json_file_is_told() {
    for file in FILES {
        for (text, words) in [
            ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1937869\n", "git lfs pull"),
            ("<!DOCTYPE html>\n<html><body>Page not found</body></html>\n", "web page"),
            ("<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "XML"),
        ] {
            let folder = demo();
            fs::write(folder.path().join(file), text).unwrap();
            answer(folder.path()).error(&[words, file]);
        }
    }
}

#[test]
fn chats_end_at_the_end_of_a_turn_whatever_the_files_say() {
    let question = "What is 2 + 2?";
    let expected = ask(demo().path(), question, &["-n", "60"]).ok();
    assert!(expected.new_tokens() < 40);
    let changes: [fn(&Path); 3] = [
        |folder| fs::remove_file(folder.join("generation_config.json")).unwrap(),
        |folder| {
            edit(folder.join("generation_config.json"), |config| {
                config.insert("eos_token_id".into(), json!(0));
            });
        },
        |folder| {
            for file in ["generation_config.json", "config.json"] {
                edit(folder.join(file), |config| drop(config.remove("eos_token_id")));
            }
        },
    ];
    for change in changes {
        let folder = demo();
        change(folder.path());
        let answer = ask(folder.path(), question, &["-n", "60"]).ok();
        assert_eq!((answer.stdout.as_str(), answer.new_tokens()), (expected.stdout.as_str(), expected.new_tokens()));
        assert_eq!(ask(folder.path(), question, &["-n", "60", "--ignore-eos"]).ok().new_tokens(), 60);
    }
}

#[test]
fn stop_strings_and_what_is_not_followed() {
    let whole = answer(demo().path()).ok().stdout;
    let folder = demo();
    let set = |field: &str, value: Value| {
        edit(folder.path().join("generation_config.json"), |config| drop(config.insert(field.into(), value)));
    };
    let word = whole.split_whitespace().nth(1).unwrap();
    set("stop_strings", json!([word]));
    let cut = answer(folder.path()).ok();
    assert_eq!(cut.stdout.trim_end(), whole.split(word).next().unwrap().trim_end());
    assert!(cut.notes().is_empty(), "{}", cut.stderr);
    assert_eq!(ask(folder.path(), "Hi", &["-n", "12", "--ignore-eos"]).ok().new_tokens(), 12);
    set("num_beams", json!(4));
    set("no_repeat_ngram_size", json!(0));
    let told = answer(folder.path()).ok();
    told.note(&["generation_config.json", "num_beams"]);
    assert_eq!(told.notes().len(), 1);
    set("top_p", json!(1.5));
    answer(folder.path()).error(&["generation_config.json", "top_p", "1.5"]);
}

#[test]
fn messages_may_begin_with_a_byte_order_mark() {
    let folder = demo();
    let file = folder.path().join("chat.json");
    fs::write(&file, [BOM, br#"[{"role": "user", "content": "Hi"}]"#].concat()).unwrap();
    let model = folder.path().display().to_string();
    let shown = run(&["render", "-m", &model, &file.display().to_string()]).ok().stdout;
    assert!(shown.contains("Hi"), "{shown}");
}

#[test]
fn fields_that_change_nothing_or_cannot_be_followed() {
    let folder = demo();
    let file = folder.path().join("generation_config.json");
    edit(&file, |json| drop(json.insert("suppress_tokens".into(), json!([]))));
    assert!(ask(folder.path(), "Hi", &["-n", "1"]).ok().notes().is_empty());
    edit(&file, |json| drop(json.insert("eos_token_id".into(), json!([2087, 999_999]))));
    ask(folder.path(), "Hi", &["-n", "1"]).ok().note(&["eos_token_id", "999999"]);
    edit(folder.path().join("tokenizer_config.json"), |json| drop(json.insert("eos_token".into(), json!(["<|end|>"]))));
    ask(folder.path(), "Hi", &["-n", "1"]).error(&["tokenizer_config.json", "eos_token", "a token"]);
}
