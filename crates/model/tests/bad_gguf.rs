//! Damaged and unusual GGUF files (tests/data/oracle/bad/gguf): the right error, within limits of time, and never a panic.

use phi3_model::{Checkpoint, Decoder, DecoderOptions, Model, Outputs, PrefillOptions, RopePolicy, Session};
use phi3_tensor::cpu::{Activations, Cpu, Options};
use safetensors::SafeTensors;
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/oracle/bad/gguf")
}

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(folder().join("expected.json")).unwrap()).unwrap()
}

struct Prompt {
    ids: Vec<u32>,
    logits: Vec<f32>,
}

fn golden() -> Vec<Prompt> {
    let bytes = std::fs::read(folder().join("base.golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: &str| -> Vec<[u8; 4]> {
        tensors.tensor(name).unwrap().data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]).collect()
    };
    let names = tensors.names();
    let prompts = names.iter().filter_map(|name| name.strip_prefix("prompt.")?.strip_suffix(".input_ids"));
    let prompt = |name: &str| Prompt {
        ids: words(&format!("prompt.{name}.input_ids")).into_iter().map(u32::from_le_bytes).collect(),
        logits: words(&format!("prompt.{name}.logits")).into_iter().map(f32::from_le_bytes).collect(),
    };
    prompts.map(prompt).collect()
}

/// Loads a model and computes the logits of every prompt; errors are messages.
fn logits(path: &Path, prompts: &[Prompt]) -> Result<Vec<Vec<f32>>, String> {
    let text = |e: phi3_model::Error| e.to_string();
    let checkpoint = Checkpoint::open(path).map_err(text)?;
    let cpu = Cpu::new(Options { threads: Some(1), activations: Activations::F32, ..Options::default() }).unwrap();
    let mut model = Decoder::load(cpu, &checkpoint, DecoderOptions::default(), &mut |_| {}).map_err(text)?;
    let vocab = model.spec().vocab_size as u32;
    let one = |prompt: &Prompt| {
        // a changed file may have fewer tokens
        let ids: Vec<u32> = prompt.ids.iter().map(|id| id % vocab).collect();
        let mut session = Session::new(&mut model);
        let mut sequence = session.sequence();
        let settings =
            PrefillOptions { chunk: 512, policy: RopePolicy::Exact, budget: ids.len(), outputs: Outputs::All };
        let mut out = Vec::new();
        session
            .prefill(&mut sequence, &ids, settings, &mut out, None, &mut |_| ControlFlow::Continue(()))
            .map_err(|e| format!("{e}; {}", checkpoint.first_not_finite().unwrap_or_default()))?;
        Ok(out)
    };
    prompts.iter().map(one).collect()
}

fn same(got: &[Vec<f32>], want: &[Prompt]) -> bool {
    let close = |got: &[f32], want: &[f32]| {
        got.len() == want.len() && got.iter().zip(want).all(|(got, want)| (got - want).abs() <= 2e-4)
    };
    got.len() == want.len() && got.iter().zip(want).all(|(got, want)| close(got, &want.logits))
}

fn words<'a>(case: &'a Value, field: &str) -> Vec<&'a str> {
    case[field].as_array().into_iter().flatten().map(|word| word.as_str().unwrap()).collect()
}

/// The fault of an error message.
fn fault(message: &str, path: &Path, case: &Value) -> Option<String> {
    let must = words(case, "must_contain");
    let (file, must) = must.split_first().unwrap();
    if !message.contains(file) {
        return Some(format!("does not name {file}"));
    }
    // words in the path do not count
    let parent = path.parent().unwrap().display().to_string();
    let rest = message.replace(&path.display().to_string(), "").replace(&parent, "");
    if let Some(word) = must.iter().find(|word| !rest.contains(**word)) {
        return Some(format!("lacks {word}"));
    }
    let any = words(case, "must_contain_any");
    if !any.is_empty() && !any.iter().any(|word| rest.contains(word)) {
        return Some(format!("has none of {any:?}"));
    }
    let hints = words(case, "hint_any");
    let lower = rest.to_lowercase();
    if !hints.is_empty() && !hints.iter().any(|word| lower.contains(&word.to_lowercase())) {
        return Some(format!("gives none of the reasons {hints:?}"));
    }
    None
}

#[test]
fn every_case_ends_as_expected() {
    let (expected, golden) = (expected(), golden());
    assert!(!golden.is_empty());
    let limit = Duration::from_secs_f64(expected["limits"]["seconds"].as_f64().unwrap());
    let mut failed = Vec::new();
    let cases = expected["cases"].as_array().unwrap();
    for case in cases {
        let (name, expect) = (case["name"].as_str().unwrap(), case["expect"].as_str().unwrap());
        let path = folder().join(case["path"].as_str().unwrap());
        let start = Instant::now();
        let result = logits(&path, &golden);
        if start.elapsed() > limit {
            failed.push(format!("{name}: took {:?}", start.elapsed()));
        }
        let fault = match (&result, expect) {
            (Ok(_), "error") => Some("loads".to_owned()),
            (Ok(got), _) if case["logits"] == "base" && !same(got, &golden) => Some("other logits".to_owned()),
            (Ok(_), _) => None,
            (Err(message), "ok") => Some(format!("should load: {message}")),
            (Err(message), "error") => fault(message, &path, case).map(|fault| format!("{fault}: {message}")),
            (Err(_), _) => None,
        };
        failed.extend(fault.map(|fault| format!("{name}: {fault}")));
    }
    assert!(cases.len() >= 100 && failed.is_empty(), "{} of {}:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

#[test]
fn small_changes_never_panic() {
    let expected = expected();
    let base = std::fs::read(folder().join(expected["fuzz"]["of"].as_str().unwrap())).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("changed.gguf");
    let changes = expected["fuzz"]["changes"].as_array().unwrap();
    let golden = golden();
    let mut loaded = 0;
    for change in changes {
        let mut bytes = base.clone();
        for pair in change["set"].as_array().into_iter().flatten() {
            bytes[pair[0].as_u64().unwrap() as usize] = pair[1].as_u64().unwrap() as u8;
        }
        if let Some(len) = change["cut"].as_u64() {
            bytes.truncate(len as usize);
        }
        std::fs::write(&path, bytes).unwrap();
        let start = Instant::now();
        loaded += usize::from(logits(&path, &golden).is_ok());
        assert!(start.elapsed() < Duration::from_secs(10), "{change}");
    }
    println!("{loaded} of {} still load", changes.len());
    assert!(changes.len() >= 200 && loaded > 0);
}

#[test]
fn every_cut_is_an_error_and_any_byte_of_the_header_may_change() {
    let base = std::fs::read(folder().join("base.gguf")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("changed.gguf");
    for len in (0..600).chain((600..base.len() - 64).step_by(211)) {
        std::fs::write(&path, &base[..len]).unwrap();
        assert!(Checkpoint::open(&path).is_err(), "{len} bytes");
    }
    for at in (0..700).chain((700..9000).step_by(17)) {
        let mut bytes = base.clone();
        for value in [0, 0xff, base[at] ^ 0x80, base[at].wrapping_add(1)] {
            bytes[at] = value;
            std::fs::write(&path, &bytes).unwrap();
            // any result, but no panic
            let _ = Checkpoint::open(&path);
        }
    }
}

#[test]
fn bytes_in_memory_are_a_model_too_unless_they_are_one_file_of_several() {
    let base = std::fs::read(folder().join("base.gguf")).unwrap();
    let path = folder().join("base.gguf");
    let (memory, file) = (Checkpoint::from_gguf_memory("base", base).unwrap(), Checkpoint::open(&path).unwrap());
    assert_eq!(memory.spec(), file.spec());
    assert!(memory.tensors().eq(file.tensors()));
    let mut split = std::fs::read_dir(folder().join("split")).unwrap().map(|entry| entry.unwrap().path());
    let first = split.find(|path| path.to_string_lossy().contains("-00001-of-")).unwrap();
    let error = Checkpoint::from_gguf_memory("split", std::fs::read(first).unwrap()).err().unwrap().to_string();
    assert!(error.contains("split.count") && error.contains("first path"), "{error}");
    assert!(Checkpoint::from_gguf_memory("empty", []).is_err());
}
