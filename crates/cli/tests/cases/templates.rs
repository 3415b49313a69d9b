//! Chat templates by name, in folders and in GGUF files, and the time in templates.

use crate::files::{demo, edit, folder};
use crate::{Ran, ask, run};
use serde_json::json;
use std::path::Path;
use std::process::Command;

fn render(model: &Path, template: &str) -> Ran {
    let messages = folder();
    let file = messages.path().join("m.json");
    std::fs::write(&file, r#"[{"role": "user", "content": "Hi"}]"#).unwrap();
    let (model, file) = (model.display().to_string(), file.display().to_string());
    let args = ["render", "-m", &model, &file, "--chat-template", template];
    run(if template.is_empty() { &args[..4] } else { &args })
}

fn quantized(model: &Path, out: &Path) -> Ran {
    run(&["quantize", &model.display().to_string(), &out.display().to_string(), "--type", "f16"]).ok()
}

#[test]
fn named_templates_go_through_gguf_and_are_taken_by_name() {
    let folder = demo();
    edit(folder.path().join("tokenizer_config.json"), |config| {
        let named = |name: &str, text: &str| json!({"name": name, "template": text});
        config.insert(
            "chat_template".into(),
            json!([named("default", "D{{ bos_token }}"), named("tool_use", "T{{ tools }}"), named("rag-1", "R")]),
        );
    });
    let (first, second) = (folder.path().join("first.gguf"), folder.path().join("second.gguf"));
    let ran = quantized(folder.path(), &first);
    assert!(!ran.stderr.contains("template"), "{}", ran.stderr);
    quantized(&first, &second);
    let shown = run(&["inspect", &second.display().to_string(), "--json"]).ok().stdout;
    let metadata = serde_json::from_str::<serde_json::Value>(&shown).unwrap()["metadata"].take();
    assert_eq!(metadata["tokenizer.chat_templates"], json!(["rag_1", "tool_use"]));
    assert_eq!(metadata["tokenizer.chat_template.rag_1"], "R");
    for (model, name) in [(folder.path(), "rag-1"), (&first, "rag_1"), (&second, "rag_1")] {
        assert_eq!(render(model, "").ok().stdout, "D<s>");
        assert_eq!(render(model, "default").ok().stdout, "D<s>");
        assert_eq!(render(model, "tool_use").ok().stdout, "TNone");
        assert_eq!(render(model, name).ok().stdout, "R");
        assert!(render(model, "phi-4").ok().stdout.contains("<|im_start|>"));
        render(model, "tool").error(&["\"tool\"", "tool_use", name, "chatml"]);
    }
}

#[test]
fn templates_without_a_default_one_are_taken_by_name_only() {
    let folder = demo();
    edit(folder.path().join("tokenizer_config.json"), |config| {
        config.insert("chat_template".into(), json!([{"name": "tool_use", "template": "T"}]));
    });
    let file = folder.path().join("m.gguf");
    quantized(folder.path(), &file);
    for model in [folder.path(), &file] {
        render(model, "").error(&["default", "tool_use"]);
        assert_eq!(render(model, "tool_use").ok().stdout, "T");
    }
}

#[test]
fn templates_in_an_object_have_its_names_and_an_empty_prompt_is_told() {
    let folder = demo();
    edit(folder.path().join("tokenizer_config.json"), |config| {
        config.insert("chat_template".into(), json!({"default": "", "tool_use": "T"}));
    });
    assert_eq!(render(folder.path(), "tool_use").ok().stdout, "T");
    ask(folder.path(), "Hi", &[]).error(&["the chat template prints nothing"]);
}

#[test]
fn templates_print_the_local_time() {
    let folder = folder();
    let template = folder.path().join("now.jinja");
    std::fs::write(&template, "{{ strftime_now('%s %H:%M') }}").unwrap();
    let messages = folder.path().join("m.json");
    std::fs::write(&messages, "[]").unwrap();
    let now = |zone: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phi3-run"));
        let output = command.args(["render", "--chat-template"]).args([&template, &messages]).env("TZ", zone).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let (seconds, time) = text.split_once(' ').unwrap();
        (seconds.parse::<u64>().unwrap(), time.to_owned())
    };
    // `XXX-5:30` is five and a half hours ahead of UTC
    for (zone, offset) in [("UTC0", 0), ("XXX-5:30", 19_800), ("No/Such_Zone", 0)] {
        let (seconds, time) = now(zone);
        let minutes = (seconds + offset) / 60;
        assert_eq!(time, format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60), "{zone}");
    }
}
