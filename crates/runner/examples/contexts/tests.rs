//! The comparison with models made of the demo model's weights, with other contexts.

use super::*;
use phi3_runner::{FinishReason, RopeSet};
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

/// The demo model with other fields in `config.json`.
fn model(fields: &[(&str, Value)]) -> TempDir {
    let mut config: Value = serde_json::from_str(phi3_demo::CONFIG).unwrap();
    for (name, value) in fields {
        config[*name] = value.clone();
    }
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write("config.json", config.to_string().as_bytes());
    write("generation_config.json", phi3_demo::GENERATION_CONFIG.as_bytes());
    write("tokenizer.json", phi3_demo::TOKENIZER.as_bytes());
    write("tokenizer_config.json", phi3_demo::TOKENIZER_CONFIG.as_bytes());
    write("model.safetensors", phi3_demo::weights());
    folder
}

/// A model with LongRoPE, whose border is at `border` tokens.
fn long_model(border: usize) -> TempDir {
    let scaling = json!({"type": "longrope", "short_factor": vec![1.0; 16], "long_factor": vec![1.5; 16]});
    let lengths = [("max_position_embeddings", json!(8192)), ("original_max_position_embeddings", json!(border))];
    let [longest, original] = lengths;
    model(&[longest, original, ("sliding_window", Value::Null), ("rope_scaling", scaling)])
}

/// The options of a comparison, with a text of some sections.
fn options(short: &TempDir, long: &TempDir, sections: usize) -> (TempDir, Options) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.md");
    let section = |number| format!("# Day {number}\n\nThe fox saw a boat. The owl told a story.\n\n");
    fs::write(&file, (0..sections).map(section).collect::<String>()).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let words = ["--short", &path(short.path()), "--long", &path(long.path()), "--device", "cpu"];
    let more = ["--text", &path(&file), "--question", "What did the fox see?", "--max-tokens", "12"];
    (folder, super::options(Arguments::of(&[&words[..], &more[..]].concat())).unwrap())
}

fn compared(options: &Options) -> (Vec<Report>, String) {
    let mut out = Vec::new();
    let reports = compare(options, &mut out).unwrap();
    (reports, String::from_utf8(out).unwrap())
}

#[test]
fn a_short_and_a_long_context() {
    let (short, long) = (model(&[("max_position_embeddings", json!(512))]), long_model(256));
    let (_folder, options) = options(&short, &long, 60);
    let (reports, out) = compared(&options);
    let [short, long] = &reports[..] else { panic!() };

    assert_eq!((short.context, long.context), (512, 8192));
    assert_eq!(short.text_tokens, long.text_tokens);
    assert!(short.text_tokens > 512, "{}", short.text_tokens);
    let cut = short.cut.unwrap();
    assert!(cut.tokens > short.text_tokens - 500 && cut.tokens < short.text_tokens, "{cut:?}");
    assert!(out.contains(&format!("The text does not fit: {} of {} tokens", cut.tokens, short.text_tokens)), "{out}");
    assert!(short.summary.usage.prompt_tokens <= 500 && short.summary.usage.total_tokens <= 512);

    assert_eq!(long.cut, None);
    assert!(out.contains(&format!("The text fits: {} tokens.", long.text_tokens)), "{out}");
    assert!(long.summary.usage.prompt_tokens > long.text_tokens);
    assert_eq!((short.rope, long.rope), (RopeFactors::One, RopeFactors::Same(RopeSet::Long)));
    for report in &reports {
        assert!(report.summary.usage.completion_tokens > 0 && report.summary.timings.first_token_ms > 0.0);
        assert!(report.cache > 0 && report.cache <= report.full_cache);
        assert!(matches!(report.summary.finish_reason, FinishReason::Stop | FinishReason::Length));
    }
    // keys and values in f16: 5 layers, 2 heads of 32, in pages of 16 positions
    let bytes = |tokens: usize| (tokens.next_multiple_of(16) * 5 * 2 * 2 * 32 * 2) as u64;
    assert_eq!(long.cache, bytes(long.summary.usage.total_tokens));
    assert_eq!(long.full_cache, bytes(8192));
    let table = table(&reports);
    assert!(out.ends_with(&table) && table.contains("left out of the text, tokens"), "{out}");
}

#[test]
fn the_switch_of_longrope_is_reported() {
    let none = long_model(4096);
    let (_folder, same) = options(&none, &none, 2);
    let (reports, _) = compared(&same);
    assert_eq!(reports[0].rope, RopeFactors::Same(RopeSet::Short));
    let prompt = reports[0].summary.usage.prompt_tokens;

    let switching = long_model(prompt + 1);
    let (_folder, options) = options(&none, &switching, 2);
    let (reports, out) = compared(&options);
    assert_eq!(reports[1].rope, RopeFactors::Switched { set: RopeSet::Long, tokens: prompt + 1 });
    assert!(out.contains(&format!("long after {} tokens", prompt + 1)), "{out}");
}

#[test]
fn both_are_the_demo_model_by_default() {
    let text = tempfile::NamedTempFile::new().unwrap();
    fs::write(text.path(), "A brave fox found a key.\n").unwrap();
    let words = ["--device", "cpu", "--max-tokens", "8", "--text", text.path().to_str().unwrap()];
    let (reports, out) = compared(&super::options(Arguments::of(&words)).unwrap());
    assert_eq!(reports.iter().map(|report| report.context).collect::<Vec<_>>(), [4096, 4096]);
    assert_eq!(out.matches("tiny-phi, context of 4096 tokens").count(), 2);
    assert_eq!(out.matches("Question: How are pages").count(), 2);
}

#[test]
fn texts_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("empty.txt", &b" \n"[..]), ("latin.txt", b"caf\xe9")] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains(name));
    }
    assert!(read(&folder.path().join("absent.txt")).is_err());
}

#[test]
fn room_for_the_answer() {
    assert_eq!(budget(4096, 128).unwrap(), 3968);
    assert!(budget(128, 128).unwrap_err().to_string().contains("--max-tokens"));
    assert!(budget(128, 500).is_err());
}
