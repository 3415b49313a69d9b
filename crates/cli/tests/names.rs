//! Models by name: the program against a hub on the loopback interface.

#[allow(dead_code, reason = "some faults are used in the hub crate's tests only")]
#[path = "../../hub/tests/hub/server.rs"]
mod server;

use server::{Fault, File, Repo, Server, noise};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const WHO: &str = "I am a tiny Phi-3 model with about 4 million parameters. I can tell little stories, do small sums \
                   and answer simple questions.\n";

/// The files of the demo model.
fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/model")
}

fn demo_repo(name: &str) -> Repo {
    let file = |name: &str| std::fs::read(demo().join(name)).expect("a file of the demo");
    let small = ["config.json", "generation_config.json", "special_tokens_map.json", "tokenizer_config.json"];
    let mut files: Vec<File> = small.iter().map(|name| File::small(name, file(name))).collect();
    files.extend(["model.safetensors", "tokenizer.json"].map(|name| File::large(name, file(name))));
    files.push(File::large("pytorch_model.bin", noise(1000, 1)));
    Repo::new(name, files)
}

/// A hub and an empty cache.
struct Place {
    server: Server,
    cache: TempDir,
}

impl Place {
    fn new(repos: Vec<Repo>) -> Self {
        Self { server: Server::new(repos, None), cache: tempfile::tempdir().expect("a folder") }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_phi3-run"));
        command.args(args).stdin(Stdio::null()).env("HF_HUB_CACHE", self.cache.path());
        command.env("HF_HOME", self.cache.path().join("home")).env("HF_ENDPOINT", &self.server.url);
        for name in
            ["HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program starts")
    }
}

fn stdout(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn assert_error(output: &Output, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    let error = text.lines().last().unwrap_or("");
    assert!(error.starts_with("error: ") && error.contains("hint: "), "{text}");
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {text}");
    }
}

const ASK: [&str; 4] = ["--device", "cpu", "--greedy", "Who are you?"];

#[test]
fn a_question_is_asked_of_a_model_by_name() {
    let place = Place::new(vec![demo_repo("someone/tiny")]);
    let first = place.run(&[&["-m", "someone/tiny"][..], &ASK].concat());
    assert_eq!(stdout(&first), WHO);
    let notes = stderr(&first);
    for line in [
        "fetching 6 files, 7966.7 kB",
        "fetched  config.json: 745 B",
        "fetched  model.safetensors: 7889.8 kB",
        "device   CPU",
    ] {
        assert!(notes.lines().any(|known| known.starts_with(line)), "{line}: {notes}");
    }
    // a cached model needs no requests and prints nothing
    place.server.requests();
    for more in [&[][..], &["--offline"]] {
        let again = place.run(&[&["-q", "-m", "someone/tiny@main"][..], more, &ASK].concat());
        assert_eq!((stdout(&again).as_str(), stderr(&again).as_str()), (WHO, ""));
    }
    assert!(place.server.requests().is_empty());
    assert_error(
        &place.run(&[&["--offline", "-m", "someone/other"][..], &ASK].concat()),
        &["someone/other", "switched off"],
    );
    assert!(place.server.requests().is_empty());
    assert_error(
        &place.run(&[&["-m", "someone/other"][..], &ASK].concat()),
        &["no repository someone/other", "no file or folder"],
    );
    assert_error(&place.run(&[&["-m", "phi-9"][..], &ASK].concat()), &["phi-9", "phi-4-mini", "no file or folder"]);
    assert_error(&place.run(&[&["-m", "someone/tiny:q4_k_m"][..], &ASK].concat()), &["no GGUF files"]);
}

#[test]
fn quiet_is_quiet_and_a_hub_that_breaks_is_asked_again() {
    let place = Place::new(vec![demo_repo("someone/tiny")]);
    let quiet = place.run(&[&["-q", "-m", "someone/tiny"][..], &ASK].concat());
    assert_eq!((stdout(&quiet).as_str(), stderr(&quiet).as_str()), (WHO, ""));
    let place = Place::new(vec![demo_repo("someone/tiny")]);
    let weights = demo_repo("someone/tiny").file("model.safetensors").etag();
    place.server.fault(&format!("/store/{weights}"), 1, Fault::Cut(1_000_000));
    let output = place.run(&["models", "pull", "someone/tiny"]);
    assert!(stderr(&output).contains("retry    "), "{}", stderr(&output));
    let path = stdout(&output);
    assert!(path.ends_with(&format!("{}\n", demo_repo("someone/tiny").commit)), "{path}");
    assert_eq!(stdout(&place.run(&["models", "path", "someone/tiny"])), path);
}

#[test]
fn text_needs_no_weights() {
    let place = Place::new(vec![demo_repo("someone/tiny")]);
    let ids = stdout(&place.run(&["tokenize", "-m", "someone/tiny", "Who are you?"]));
    assert_eq!(ids, stdout(&place.run(&["tokenize", "Who are you?"])));
    let messages = place.cache.path().join("messages.json");
    std::fs::write(&messages, r#"[{"role": "user", "content": "Hi"}]"#).unwrap();
    let messages = messages.display().to_string();
    assert_eq!(
        stdout(&place.run(&["render", "-m", "someone/tiny", &messages])),
        stdout(&place.run(&["render", &messages]))
    );
    assert!(place.server.requests().iter().all(|request| !request.path.contains("safetensors")));
    assert_error(&place.run(&["models", "path", "someone/tiny"]), &["someone/tiny", "models pull"]);
}

#[test]
fn every_command_with_a_model_takes_a_name() {
    let quantized = tempfile::tempdir().unwrap();
    let gguf = quantized.path().join("tiny.gguf");
    let place = Place::new(vec![demo_repo("someone/tiny")]);
    let out = gguf.display().to_string();
    assert_eq!(place.run(&["quantize", "someone/tiny", &out, "-t", "q8_0", "-q"]).status.code(), Some(0));
    let files = vec![
        File::large("q/tiny-Q8_0.gguf", std::fs::read(&gguf).unwrap()),
        File::large("tiny-F16.gguf", noise(10, 1)),
    ];
    place.server.publish(Repo::new("someone/tiny-GGUF", files));
    let name = "someone/tiny-GGUF:q8_0";
    assert_eq!(stdout(&place.run(&[&["-m", name][..], &ASK].concat())), WHO);
    let cpu = |args: &[&str]| stdout(&place.run(&[args, &["--device", "cpu"]].concat()));
    assert!(stdout(&place.run(&["inspect", name])).contains("Q8_0"));
    assert!(cpu(&["plan", name]).contains("weights") && cpu(&["plan", "-m", name]).contains("weights"));
    assert!(cpu(&["generate", "-m", name, "--prompt", "Once", "-n", "2"]).len() > 4);
    assert!(!stdout(&place.run(&["tokenize", "-m", name, "Hi"])).is_empty());
    assert!(cpu(&["bench", "-m", name, "-p", "2", "-n", "0", "-r", "1", "-o", "json"]).contains(name));
    assert!(cpu(&["bench", "kernels", "-m", name, "--rows", "1", "-r", "1", "-o", "csv"]).contains("q8_0"));
    assert!(cpu(&["profile", "-m", name, "-p", "2", "-n", "1"]).contains("decode"));
    let heldout = demo().join("heldout.txt").display().to_string();
    let score = cpu(&["perplexity", "-q", "-m", "someone/tiny", "--against", name, "--json", &heldout]);
    assert!(score.contains("kl_mean"), "{score}");
    let logits = quantized.path().join("logits").display().to_string();
    cpu(&["logits", "-m", name, "--ids", "1 2", "--out", &logits]);
    assert!(cpu(&["chat", "-q", "-m", name]).is_empty());
    // the golden is expected beside the model
    assert_error(
        &place.run(&["verify", "-m", "someone/tiny", "--device", "cpu"]),
        &["golden", "models--someone--tiny"],
    );
    // a missing model costs its own rows only
    let some = place.run(&[
        "bench",
        "-m",
        "someone/none",
        "-m",
        name,
        "-p",
        "2",
        "-n",
        "0",
        "-r",
        "1",
        "-o",
        "json",
        "--device",
        "cpu",
    ]);
    assert!(some.status.code() == Some(2) && stderr(&some).contains("someone/none"), "{}", stderr(&some));
    assert!(String::from_utf8_lossy(&some.stdout).contains(name));
}

#[test]
fn what_is_there_is_taken_and_paths_are_not_asked_of_the_hub() {
    let place = Place::new(vec![demo_repo("someone/tiny")]);
    let here = tempfile::tempdir().unwrap();
    std::fs::create_dir(here.path().join("someone")).unwrap();
    let local = here.path().join("someone/tiny");
    std::fs::create_dir(&local).unwrap();
    let in_here = |args: &[&str]| place.command(args).current_dir(here.path()).output().expect("the program starts");
    // an empty folder with that name
    assert_error(&in_here(&[&["-m", "someone/tiny"][..], &ASK].concat()), &["someone/tiny"]);
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(demo().join(name), local.join(name)).unwrap();
    }
    assert_eq!(stdout(&in_here(&[&["-m", "someone/tiny"][..], &ASK].concat())), WHO);
    for path in ["./none", "../none/x", "a/b/c", "x.gguf", "someone/x.gguf", "none/", "/none/x"] {
        assert_error(&in_here(&[&["-m", path][..], &ASK].concat()), &[path.trim_end_matches('/')]);
    }
    assert!(place.server.requests().is_empty());
    // the hub's settings are not read if no hub is needed
    let broken = |args: &[&str]| {
        place.command(args).env("HF_ENDPOINT", "nonsense").env("HF_HUB_ETAG_TIMEOUT", "x").output().unwrap()
    };
    assert_eq!(stdout(&broken(&ASK)), WHO);
    assert_eq!(stdout(&broken(&[&["-m", &demo().display().to_string()][..], &ASK].concat())), WHO);
    assert_error(&broken(&["models", "list"]), &["HF_", "expected"]);
}

#[test]
fn models_are_listed_found_and_removed() {
    let place = Place::new(vec![
        demo_repo("someone/tiny"),
        Repo::new("a/b-GGUF", vec![File::large("b-Q8_0.gguf", noise(20_000, 1))]),
    ]);
    let table = stdout(&place.run(&["models"]));
    for word in ["phi-3-mini-4k", "microsoft/Phi-4-mini-instruct", "bartowski/phi-4-GGUF", "131072", "14.7B"] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let json: serde_json::Value = serde_json::from_str(&stdout(&place.run(&["models", "--json"]))).unwrap();
    let rows = json.as_array().unwrap();
    let mini = rows.iter().find(|row| row["name"] == "phi-3-mini-4k").unwrap();
    assert_eq!((rows.len(), &mini["parameters"]), (21, &"3.8B".into()));
    let empty: serde_json::Value = serde_json::from_str(&stdout(&place.run(&["models", "list", "--json"]))).unwrap();
    assert_eq!(empty, serde_json::json!([]));

    let paths = stdout(&place.run(&["models", "pull", "-q", "someone/tiny", "a/b-GGUF:q8_0"]));
    assert_eq!(paths.lines().count(), 2);
    assert!(paths.lines().all(|path| Path::new(path).exists()), "{paths}");
    let shown = place.run(&["models", "list"]);
    assert!(stderr(&shown).starts_with("cache    "));
    let shown = stdout(&shown);
    assert!(
        shown.contains("b-Q8_0.gguf")
            && shown.contains("6 files")
            && shown.contains("main")
            && shown.contains("together"),
        "{shown}"
    );
    let json: serde_json::Value = serde_json::from_str(&stdout(&place.run(&["models", "list", "--json"]))).unwrap();
    assert_eq!(
        (&json[0]["repo"], &json[0]["bytes"], &json[0]["revisions"][0]["refs"][0]),
        (&"a/b-GGUF".into(), &20_000.into(), &"main".into())
    );

    let removed = place.run(&["models", "rm", "a/b-GGUF", "someone/tiny"]);
    assert!(
        removed.status.success() && stderr(&removed).contains("removed  a/b-GGUF: 1 files, 20.0 kB"),
        "{}",
        stderr(&removed)
    );
    assert_error(&place.run(&["models", "rm", "someone/tiny"]), &["someone/tiny", "not in the cache"]);
    assert_error(&place.run(&["models", "pull", "--offline", "someone/tiny"]), &["switched off"]);
    assert_error(&place.run(&["models", "path", "../x"]), &["../x"]);
    assert_error(&place.run(&["models", "frobnicate"]), &["frobnicate"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_has_arrived() {
    let place = Place::new(vec![demo_repo("someone/tiny")]);
    place.server.fault("/store/", 100, Fault::Slow(40_000, Duration::from_millis(10)));
    let child = place
        .command(&[&["-m", "someone/tiny"][..], &ASK].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.expect("the program starts");
    while place.server.count_at_store() < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("the next run goes on"), "{}", stderr(&output));
    place.server.heal();
    place.server.requests();
    let again = place.run(&[&["-m", "someone/tiny"][..], &ASK].concat());
    assert_eq!(stdout(&again), WHO);
    assert!(stderr(&again).contains("resuming model.safetensors at "), "{}", stderr(&again));
    let requests = place.server.requests();
    let weights = requests.iter().find(|request| request.at_store && request.from() > 0);
    assert!(weights.is_some(), "{requests:?}");
}
