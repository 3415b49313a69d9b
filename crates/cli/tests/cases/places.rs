use crate::files::{demo, folder, tiny_gguf};
use crate::{ask, continued};
use std::fs;
use std::path::Path;

const WHO: [&str; 2] = ["-n", "8"];

fn answer(model: &Path) -> crate::Ran {
    ask(model, "Who are you?", &WHO)
}

#[test]
fn files_and_folders_that_people_point_at_are_taken() {
    let demo = demo();
    let expected = answer(demo.path()).ok().stdout;
    for file in ["model.safetensors", "config.json"] {
        assert_eq!(answer(&demo.path().join(file)).ok().stdout, expected, "{file}");
    }
    let cache = folder();
    let model = cache.path().join("models--someone--phi");
    fs::create_dir_all(model.join("refs")).unwrap();
    fs::create_dir_all(model.join("snapshots/other")).unwrap();
    fs::write(model.join("refs/main"), "0123abcd").unwrap();
    fs::rename(demo.path(), model.join("snapshots/0123abcd")).unwrap();
    for place in ["", "snapshots", "snapshots/0123abcd"] {
        assert_eq!(answer(&model.join(place)).ok().stdout, expected, "{place}");
    }

    let folder = folder();
    let file = tiny_gguf(&folder, |_, _| {});
    let expected = continued(&file).ok().stdout;
    assert_eq!(continued(folder.path()).ok().stdout, expected);
    fs::copy(&file, folder.path().join("other.gguf")).unwrap();
    continued(folder.path()).error(&["m.gguf, other.gguf", "one of these"]);
}

#[test]
fn what_is_no_model_is_told() {
    let told = |files: &[(&str, &[u8])], words: &[&str]| {
        let folder = folder();
        for (name, bytes) in files {
            fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let model = match files {
            [(name, _)] if name.contains("m.") => folder.path().join(name),
            _ => folder.path().to_owned(),
        };
        let error = answer(&model).error(words);
        assert!(error.contains("hint: "), "{error}");
    };
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2393231072\n";
    told(&[("m.gguf", pointer)], &["git lfs pull", "2393231072"]);
    told(&[("m.gguf", b"<!DOCTYPE html>\n<html>")], &["web page"]);
    told(&[("m.gguf", b"Access to model is restricted")], &["Access to model is restricted"]);
    told(&[("m.gguf", b"\x1f\x8b\x08\0\0\0")], &["gzip", "unpack"]);
    told(&[("m.gguf", &[0; 4096])], &["zero bytes"]);
    let zip = [&b"PK\x03\x04"[..], &[0; 26], b"archive/data.pkl", &[0; 400]].concat();
    told(&[("m.bin", &zip)], &["PyTorch", "safetensors"]);
    told(&[("m.pt", b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46")], &["pickle"]);
    told(&[("m.onnx", b"\x08\x07\x12\x07pytorch")], &["ONNX"]);
    told(&[("adapter_config.json", b"{}"), ("adapter_model.safetensors", b"")], &["LoRA adapter", "merge"]);
    told(&[("config.json", b"{}"), ("pytorch_model.bin", &zip)], &["config.json"]);
    told(&[("genai_config.json", b"{}"), ("model.onnx", b"")], &["ONNX"]);
    told(&[("README.md", b"")], &["neither config.json nor a GGUF file"]);

    let demo = demo();
    fs::write(demo.path().join("model.safetensors"), pointer).unwrap();
    answer(demo.path()).error(&["model.safetensors", "git lfs pull"]);
    fs::remove_file(demo.path().join("model.safetensors")).unwrap();
    fs::write(demo.path().join("pytorch_model.bin"), &zip).unwrap();
    answer(demo.path()).error(&["pytorch_model.bin", "pickle"]);
    answer(&demo.path().join("nothing-here")).error(&["nothing-here"]);
}

#[test]
fn a_download_that_broke_off_is_told_as_such() {
    let folder = folder();
    let file = tiny_gguf(&folder, |_, _| {});
    let bytes = fs::read(&file).unwrap();
    for length in [bytes.len() - 100, bytes.len() / 2, 2000, 30, 10] {
        fs::write(&file, &bytes[..length]).unwrap();
        let error = continued(&file).error(&["m.gguf"]);
        assert!(["truncated", "incomplete", "ends in"].iter().any(|word| error.contains(word)), "{error}");
    }
}
