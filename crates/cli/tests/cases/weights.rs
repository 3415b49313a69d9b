use crate::files::{
    Tensors, demo, edit, folder, load, reversed, save, save_gguf, save_model, tiny, tiny_gguf, widened,
};
use crate::{ask, continued, run};
use serde_json::json;
use std::fs;
use std::path::Path;

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// The demo model with changed tensors and `tie_word_embeddings`. The original is tied, with bf16 weights.
fn changed(tied: bool, change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let folder = demo();
    edit(folder.path().join("config.json"), |config| {
        config.insert("tie_word_embeddings".into(), tied.into());
    });
    let file = folder.path().join("model.safetensors");
    let mut tensors = load(&file);
    change(&mut tensors);
    save(&file, &tensors);
    folder
}

fn embedding(tensors: &Tensors) -> crate::files::Tensor {
    tensors.iter().find(|(name, _)| name == EMBEDDING).expect("the embedding").1.clone()
}

#[test]
fn a_head_of_other_values_is_used_though_config_json_ties_it() {
    let with_head = |tensors: &mut Tensors| {
        let head = reversed(&embedding(tensors));
        tensors.push((HEAD.into(), head));
    };
    let (tied, untied) = (changed(true, with_head), changed(false, with_head));
    let told = continued(tied.path()).ok();
    told.note(&["lm_head.weight", "tie_word_embeddings"]);
    let expected = continued(untied.path()).ok();
    assert!(expected.notes().is_empty(), "{}", expected.stderr);
    assert_eq!(told.stdout, expected.stdout);
    assert_ne!(told.stdout, continued(demo().path()).ok().stdout);

    // the same in a GGUF file, and with the head in another type
    let file = tied.path().join("out.gguf").display().to_string();
    run(&["quantize", &tied.path().display().to_string(), &file, "--type", "bf16"]).ok().note(&["lm_head.weight"]);
    assert_eq!(continued(Path::new(&file)).ok().stdout, expected.stdout);
    let wide = changed(true, |tensors| {
        let head = widened(&reversed(&embedding(tensors)));
        tensors.push((HEAD.into(), head));
    });
    assert_eq!(continued(wide.path()).ok().stdout, expected.stdout);
}

#[test]
fn one_of_two_tied_matrices_is_enough_and_an_equal_head_is_no_contradiction() {
    let expected = continued(demo().path()).ok().stdout;
    let only_head = changed(true, |tensors| {
        tensors.iter_mut().filter(|(name, _)| name == EMBEDDING).for_each(|(name, _)| *name = HEAD.into());
    });
    let equal = changed(true, |tensors| {
        let head = widened(&embedding(tensors));
        tensors.push((HEAD.into(), head));
    });
    for folder in [&only_head, &equal] {
        let answer = continued(folder.path()).ok();
        assert_eq!((answer.stdout.as_str(), answer.notes().len()), (expected.as_str(), 0), "{}", answer.stderr);
        let file = folder.path().join("out.gguf").display().to_string();
        run(&["quantize", &folder.path().display().to_string(), &file, "--type", "bf16"]).ok();
        assert_eq!(continued(Path::new(&file)).ok().stdout, expected);
    }
}

#[test]
fn a_missing_head_is_told_with_the_field_that_would_tie_it() {
    let folder = changed(false, |_| {});
    continued(folder.path()).error(&["lm_head.weight", "tie_word_embeddings"]);
}

/// The demo model with every tensor renamed, in one file or two shards.
fn renamed(shards: bool, rename: impl Fn(&str) -> String) -> tempfile::TempDir {
    let folder = changed(true, |tensors| tensors.iter_mut().for_each(|(name, _)| *name = rename(name)));
    if shards {
        let file = folder.path().join("model.safetensors");
        let mut first = load(&file);
        let second = first.split_off(first.len() / 2);
        fs::remove_file(file).unwrap();
        let mut map = serde_json::Map::new();
        for (i, tensors) in [first, second].iter().enumerate() {
            let name = format!("model-{:05}-of-00002.safetensors", i + 1);
            save(&folder.path().join(&name), tensors);
            map.extend(tensors.iter().map(|(tensor, _)| (tensor.clone(), name.clone().into())));
        }
        let index = json!({ "metadata": {}, "weight_map": map });
        fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    }
    folder
}

#[test]
fn names_of_wrappers_are_read_and_told() {
    let expected = continued(demo().path()).ok().stdout;
    for prefix in ["base_model.model.", "_orig_mod.", "module.", "language_model.", "module._orig_mod."] {
        for shards in [false, true] {
            let answer = continued(renamed(shards, |name| format!("{prefix}{name}")).path()).ok();
            answer.note(&[prefix, "are read as"]);
            assert_eq!((answer.stdout.as_str(), answer.notes().len()), (expected.as_str(), 1), "{prefix}");
        }
    }
    let bare = continued(renamed(false, |name| name.trim_start_matches("model.").into()).path()).ok();
    assert_eq!(bare.stdout, expected);
    let inner = continued(renamed(false, |name| name.replace("qkv_proj.", "qkv_proj.base_layer.")).path()).ok();
    inner.note(&["base_layer"]);
    assert_eq!(inner.stdout, expected);
}

#[test]
fn adapters_that_are_not_merged_and_unknown_names_are_told() {
    let folder = changed(true, |tensors| {
        for (name, _) in tensors.iter_mut() {
            *name = format!("base_model.model.{}", name.replace("qkv_proj.", "qkv_proj.base_layer."));
        }
        let lora = crate::files::Tensor("F32", vec![1, 1], vec![0; 4]);
        tensors.push(("base_model.model.model.layers.0.self_attn.qkv_proj.lora_A.default.weight".into(), lora));
    });
    continued(folder.path()).error(&["lora_A", "LoRA adapter", "merge"]);

    let other = renamed(false, |name| format!("decoder.{name}"));
    let error = continued(other.path()).error(&["; found decoder.model.", " instead"]);
    assert!(!error.contains("incomplete"), "{error}");
    let quantized = renamed(false, |name| name.replace("qkv_proj.weight", "qkv_proj.qweight"));
    continued(quantized.path()).error(&["qkv_proj.qweight"]);
    // a tensor of another layer does not replace the missing one
    let missing = changed(true, |tensors| tensors.retain(|(name, _)| !name.contains("layers.1.mlp.down_proj")));
    continued(missing.path()).error(&["layers.1.mlp.down_proj.weight", "is missing", "incomplete"]);
}

#[test]
fn gguf_files_may_have_the_published_names() {
    let (published, plain) = (folder(), folder());
    let (config, tensors) = tiny(2, 512);
    let file = published.path().join("m.gguf");
    save_gguf(&file, &crate::files::keys(&config), &tensors);
    let expected = continued(&tiny_gguf(&plain, |_, _| {})).ok().stdout;
    let answer = continued(&file).ok();
    answer.note(&["model.embed_tokens.weight", "token_embd.weight"]);
    assert_eq!(answer.stdout, expected);
}

#[test]
fn weights_under_other_names_are_taken_where_it_is_clear_which() {
    let folder = demo();
    let expected = ask(folder.path(), "Who are you?", &["-n", "8"]).ok().stdout;
    let (plain, tuned) = (folder.path().join("model.safetensors"), folder.path().join("tuned.safetensors"));
    fs::rename(&plain, &tuned).unwrap();
    let answer = ask(folder.path(), "Who are you?", &["-n", "8"]).ok();
    answer.note(&["tuned.safetensors"]);
    assert_eq!(answer.stdout, expected);
    assert_eq!(ask(&tuned, "Who are you?", &["-n", "8"]).ok().stdout, expected);
    fs::copy(&tuned, folder.path().join("other.safetensors")).unwrap();
    continued(folder.path()).error(&["no weights", "model.safetensors"]);
    // the given file is used
    assert_eq!(ask(&tuned, "Who are you?", &["-n", "8"]).ok().stdout, expected);

    let (config, tensors) = tiny(1, 128);
    let alone = crate::files::folder();
    save_model(alone.path(), &config, &tensors);
    fs::remove_file(alone.path().join("config.json")).unwrap();
    continued(&alone.path().join("model.safetensors")).error(&["config.json", "safetensors"]);
}

#[test]
fn layers_that_the_configuration_does_not_count_are_told() {
    let folder = demo();
    ask(folder.path(), "Hi", &["-n", "1"]).ok();
    edit(folder.path().join("config.json"), |config| drop(config.insert("num_hidden_layers".into(), json!(4))));
    let ran = ask(folder.path(), "Hi", &["-n", "1"]).ok();
    ran.note(&["layers up to 4", "the model has 4"]);
}

#[test]
fn the_weights_that_are_read_are_not_written_over() {
    let folder = demo();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let quantize = |model: &str, out: &str| run(&["quantize", model, out, "--type", "q8_0"]);
    let model = folder.path().display().to_string();
    quantize(&model, &path("model.safetensors")).error(&["model.safetensors", "that is read", "another file"]);
    quantize(&model, &path("q.gguf")).ok();
    quantize(&path("q.gguf"), &path("q.gguf")).error(&["q.gguf", "that is read"]);
    ask(folder.path(), "Hi", &["-n", "1"]).ok();
}

#[test]
fn names_in_an_index_may_say_that_they_stand_beside_it() {
    let folder = demo();
    let file = |name: &str| folder.path().join(name);
    std::fs::rename(file("model.safetensors"), file("model-00001-of-00001.safetensors")).unwrap();
    let names: Vec<String> =
        load(&file("model-00001-of-00001.safetensors")).into_iter().map(|(name, _)| name).collect();
    for before in ["", "./", ".\\"] {
        let map: serde_json::Map<String, serde_json::Value> = names
            .iter()
            .map(|name| (name.clone(), json!(format!("{before}model-00001-of-00001.safetensors"))))
            .collect();
        let index = json!({"weight_map": map}).to_string();
        std::fs::write(file("model.safetensors.index.json"), index).unwrap();
        ask(folder.path(), "Hi", &["-n", "1"]).ok();
    }
}
