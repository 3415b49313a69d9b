use std::path::Path;
use std::time::{Duration, Instant};

/// The functions of the fuzz targets.
#[allow(dead_code, unreachable_pub)]
#[path = "../fuzz/src/lib.rs"]
mod targets;

/// Runs a target over its seeds: none may panic or take long, and `whole` of them are valid.
fn replay(target: &str, run: fn(&[u8]) -> bool, whole: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 20);
    let mut good = 0;
    for path in paths {
        println!("{}", path.display());
        let bytes = std::fs::read(&path).unwrap();
        let start = Instant::now();
        good += usize::from(run(&bytes));
        assert!(start.elapsed() < Duration::from_secs(10), "{}: took {:?}", path.display(), start.elapsed());
    }
    assert_eq!(good, whole, "{target}");
}

#[test]
fn gguf() {
    replay("gguf", targets::gguf, 7);
}

#[test]
fn safetensors() {
    replay("safetensors", targets::safetensors, 2);
}

#[test]
fn tokenizer() {
    replay("tokenizer", targets::tokenizer, 21);
}
