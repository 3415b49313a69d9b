use crate::machines::{data, on};
use phi3_model::{Checkpoint, RopePolicy};
use phi3_runner::Device;
use phi3_runner::verify::{Golden, VerifyOptions, logits, verify};
use serde::Deserialize;
use std::path::Path;
use std::time::{Duration, Instant};

#[derive(Deserialize)]
struct Expected {
    golden: String,
    limits: Limits,
    fuzz: Fuzz,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Limits {
    seconds: u64,
}

#[derive(Deserialize)]
struct Fuzz {
    of: String,
    changes: Vec<Change>,
}

#[derive(Deserialize)]
struct Change {
    #[serde(default)]
    set: Vec<(usize, u8)>,
    cut: Option<usize>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    path: String,
    expect: String,
    logits: Option<String>,
    #[serde(default)]
    must_contain: Vec<String>,
    #[serde(default)]
    must_contain_any: Vec<String>,
}

fn expected() -> Expected {
    let text = std::fs::read_to_string(data("oracle/bad/safetensors/expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Loads a checkpoint and computes a few logits.
fn run(folder: &Path, golden: Option<&Golden>) -> Result<(), String> {
    let message = |e: phi3_runner::Error| e.to_string();
    let checkpoint = Checkpoint::open(folder).map_err(|e| e.to_string())?;
    let mut loaded = on(Device::Cpu).load(&checkpoint, &mut |_| {}).map_err(message)?;
    logits(&mut *loaded.model, &[1, 2, 3], usize::MAX, RopePolicy::Exact, None).map_err(message)?;
    if let Some(golden) = golden {
        let options = VerifyOptions { tolerance: 2e-4, chunk: usize::MAX };
        let report = verify(&mut *loaded.model, golden, options).map_err(message)?;
        if !report.ok() {
            return Err(format!("wrong logits\n{report}"));
        }
    }
    Ok(())
}

/// Reads `base.golden.safetensors` through a folder with the file name of goldens.
fn base_golden(name: &str) -> Golden {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(data("oracle/bad/safetensors").join(name), folder.path().join("golden.safetensors")).unwrap();
    Golden::read(folder.path()).unwrap()
}

#[test]
fn every_case_ends_as_it_should() {
    let expected = expected();
    let golden = base_golden(&expected.golden);
    assert!(expected.cases.len() >= 99);
    let mut wrong = Vec::new();
    for case in &expected.cases {
        let folder = data("oracle/bad/safetensors").join(&case.path);
        let start = Instant::now();
        let result = run(&folder, case.logits.as_ref().map(|_| &golden));
        if start.elapsed() > Duration::from_secs(expected.limits.seconds) {
            wrong.push(format!("{}: took {:?}", case.name, start.elapsed()));
        }
        let problem = match (case.expect.as_str(), &result) {
            ("ok", Err(message)) => Some(message.clone()),
            ("any", Err(message)) if message.starts_with("wrong logits") => Some(message.clone()),
            ("error", Ok(())) => Some("loaded".to_owned()),
            ("error", Err(message)) => misses(case, message, &folder),
            ("ok" | "any", _) => None,
            (other, _) => Some(format!("unknown expectation {other}")),
        };
        wrong.extend(problem.map(|problem| format!("{}: {problem}", case.name)));
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// The fault of a message: a line break, a missing file name, or words missing outside the path.
fn misses(case: &Case, message: &str, folder: &Path) -> Option<String> {
    if message.contains('\n') {
        return Some(format!("more than one line: {message}"));
    }
    let rest = message.replace(&folder.display().to_string(), "");
    let missing = case.must_contain.iter().find(|word| !rest.contains(word.as_str()));
    if let Some(word) = missing {
        return Some(format!("{word:?} is not in: {message}"));
    }
    let any = &case.must_contain_any;
    let lower = rest.to_lowercase();
    let found = any.is_empty() || any.iter().any(|word| rest.contains(word.as_str()) || lower.contains(word.as_str()));
    (!found).then(|| format!("none of {any:?} is in: {message}"))
}

#[test]
fn small_changes_never_panic() {
    let Fuzz { of, changes } = expected().fuzz;
    let base = data("oracle/bad/safetensors").join(of);
    let bytes = std::fs::read(&base).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(base.with_file_name("config.json"), folder.path().join("config.json")).unwrap();
    assert!(changes.len() >= 200);
    let mut refused = 0;
    for change in changes {
        let mut damaged = bytes.clone();
        for (at, byte) in change.set {
            damaged[at] = byte;
        }
        damaged.truncate(change.cut.unwrap_or(usize::MAX));
        std::fs::write(folder.path().join("model.safetensors"), damaged).unwrap();
        refused += usize::from(run(folder.path(), None).is_err());
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn text_that_would_fill_the_memory_is_refused() {
    let error = |config: &str, header: &str| {
        let mut weights = (header.len() as u64).to_le_bytes().to_vec();
        weights.extend_from_slice(header.as_bytes());
        Checkpoint::from_memory("folder", config, weights).err().unwrap().to_string()
    };
    let config = std::fs::read_to_string(data("oracle/bad/safetensors/base/config.json")).unwrap();
    let numbers = "0,".repeat(5000) + "0";
    let long = error(&config, &format!(r#"{{"x":{{"dtype":"F32","shape":[{numbers}],"data_offsets":[0,0]}}}}"#));
    assert!(long.contains("tensor x") && long.contains("at most 4096"), "{long}");
    let long = error(&format!("[{}0]", "0,".repeat(9 << 20)), "{}");
    assert!(long.contains("config.json") && long.contains("at most 16777216"), "{long}");
}
