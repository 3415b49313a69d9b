use std::path::Path;
use std::time::{Duration, Instant};

/// What the fuzz targets do with a file.
#[allow(dead_code, unreachable_pub)]
#[path = "../fuzz/src/lib.rs"]
mod targets;

/// Runs a target over its seeds: none may panic or take long.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 20);
    for path in paths {
        println!("{}", path.display());
        let bytes = std::fs::read(&path).unwrap();
        let start = Instant::now();
        run(&bytes);
        assert!(start.elapsed() < Duration::from_secs(10), "{}: took {:?}", path.display(), start.elapsed());
    }
}

#[test]
fn gguf() {
    replay("gguf", targets::gguf);
}

#[test]
fn safetensors() {
    replay("safetensors", targets::safetensors);
}

#[test]
fn tokenizer() {
    replay("tokenizer", targets::tokenizer);
}
