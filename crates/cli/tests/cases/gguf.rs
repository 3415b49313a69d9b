use crate::files::{Key, Tensor, blocks, demo, edit, folder, gguf_name, keys, save_gguf, save_model, tiny, tiny_gguf};
use crate::{continued, run};
use std::path::Path;

/// The logits of ids, as the bytes of the output file of `logits`.
fn logits(model: &Path, ids: &str) -> Vec<u8> {
    let out = folder();
    let file = out.path().join("logits");
    let (model, path) = (model.display().to_string(), file.display().to_string());
    run(&["logits", "-m", &model, "--ids", ids, "--device", "cpu", "--out", &path]).ok();
    std::fs::read(file).unwrap()
}

#[test]
fn a_missing_window_is_that_of_the_published_4k_models() {
    let folder = folder();
    let ids: Vec<String> = (0..2060).map(|i| (3 + i * 7 % 90).to_string()).collect();
    let ids = ids.join(" ");
    let of = |layers: usize, context: usize, key: Option<u32>| {
        let (config, tensors) = tiny(layers, context);
        let mut keys = keys(&config);
        keys.extend(key.map(|window| ("phi3.attention.sliding_window".to_owned(), Key::U32(window))));
        let file = folder.path().join(format!("{layers}-{context}-{key:?}.gguf"));
        let named = tensors.into_iter().map(|(name, tensor)| (gguf_name(&name), tensor)).collect();
        save_gguf(&file, &keys, &named);
        file
    };
    for layers in [32, 40] {
        let missing = of(layers, 4096, None);
        continued(&missing).ok().note(&["phi3.attention.sliding_window", "2047"]);
        assert_eq!(logits(&missing, &ids), logits(&of(layers, 4096, Some(2047)), &ids));
        let none = of(layers, 4096, Some(0));
        assert!(continued(&none).ok().notes().is_empty());
        assert_ne!(logits(&missing, &ids), logits(&none, &ids));
    }
    for (layers, context) in [(32, 8192), (31, 4096)] {
        let none = of(layers, context, None);
        assert!(continued(&none).ok().notes().is_empty());
        assert_eq!(logits(&none, &ids), logits(&of(layers, context, Some(0)), &ids));
    }
}

/// A file with one matrix of the given type.
fn typed(folder: &tempfile::TempDir, dtype: &'static str) -> std::path::PathBuf {
    // wide enough for whole blocks of every type
    tiny_gguf(folder, |_, tensors| {
        let (_, tensor) = tensors.iter_mut().find(|(name, _)| name == "blk.0.ffn_down.weight").unwrap();
        *tensor = blocks(
            dtype,
            &[32, if matches!(dtype, "MXFP4" | "Q4_0_4_4" | "Q4_0_8_8" | "IQ4_NL_4_4" | "99") { 32 } else { 256 }],
        );
    })
}

#[test]
fn types_without_kernels_are_named_and_are_no_damage() {
    for (dtype, instead) in
        [("MXFP4", "Q4_K"), ("Q4_0_4_4", "Q4_0 file"), ("Q4_0_8_8", "Q4_0 file"), ("IQ4_NL_4_4", "IQ4_NL file")]
    {
        let folder = folder();
        let file = typed(&folder, dtype);
        let error = continued(&file).error(&[dtype, instead, "ffn_down"]);
        for wrong in ["damaged", "incomplete", "fetch"] {
            assert!(!error.contains(wrong), "{error}");
        }
        let path = file.display().to_string();
        let out = folder.path().join("out.gguf").display().to_string();
        run(&["plan", &path, "--device", "cpu"]).error(&[dtype]);
        run(&["quantize", &path, &out, "--type", "q8_0"]).error(&[dtype]);
        assert!(run(&["inspect", &path]).ok().stdout.contains(dtype));
    }
}

#[test]
fn every_type_of_the_format_can_be_looked_at() {
    for dtype in ["NVFP4", "Q1_0", "IQ2_XXS", "TQ1_0"] {
        let folder = folder();
        let path = typed(&folder, dtype).display().to_string();
        let shown = run(&["inspect", &path]).ok().stdout;
        assert!(shown.lines().any(|line| line.contains("ffn_down") && line.contains(dtype)), "{shown}");
    }
    let folder = folder();
    continued(&typed(&folder, "99")).error(&["type 99"]);
}

/// Generates 24 tokens with a file that has these sampling keys.
fn sampled(sampling: &[(&str, Key)], more: &[&str]) -> crate::Ran {
    let folder = folder();
    let file = tiny_gguf(&folder, |keys, _| {
        keys.extend(sampling.iter().map(|(name, value)| (format!("general.sampling.{name}"), value.clone())));
    });
    let model = file.display().to_string();
    let args = ["generate", "-m", &model, "--ids", "5 6 7", "--ignore-eos", "--device", "cpu", "-n", "24"];
    run(&[&args[..], more].concat()).ok()
}

#[test]
fn sampling_keys_are_defaults_that_options_override() {
    let greedy = sampled(&[], &["--greedy"]).stdout;
    assert_eq!(sampled(&[("temp", Key::F32(0.0))], &[]).stdout, greedy);
    assert_eq!(sampled(&[("top_k", Key::I32(1))], &[]).stdout, greedy);
    let seed = ["--seed", "11"];
    let keys = [("temp", Key::F32(1.75)), ("top_k", Key::I32(7)), ("top_p", Key::F32(0.5)), ("min_p", Key::F32(0.05))];
    let typed = ["--temperature", "1.75", "--top-k", "7", "--top-p", "0.5", "--min-p", "0.05"];
    let drawn = sampled(&keys, &seed).stdout;
    assert_eq!(drawn, sampled(&[], &[&typed[..], &seed].concat()).stdout);
    assert_ne!(drawn, greedy);
    let over = ["--temperature", "2.5", "--top-k", "0", "--top-p", "1", "--min-p", "0"];
    let over = [&over[..], &seed].concat();
    assert_eq!(sampled(&keys, &over).stdout, sampled(&[], &over).stdout);
    let penalty = [("penalty_repeat", Key::F32(1.5)), ("penalty_last_n", Key::I32(64))];
    let told = sampled(&penalty, &["--greedy"]);
    told.note(&["penalty_last_n", "whole text"]);
    assert_eq!(told.stdout, sampled(&[], &["--greedy", "--repetition-penalty", "1.5"]).stdout);
    sampled(&[("mirostat", Key::I32(2))], &["--greedy"]).note(&["general.sampling.mirostat"]);
}

#[test]
fn quantized_files_sample_as_their_source() {
    let folder = demo();
    let out = folder.path().join("out.gguf");
    let (source, file) = (folder.path().display().to_string(), out.display().to_string());
    let ask = |model: &str, more: &[&str]| {
        run(&[&["-m", model, "--device", "cpu", "-n", "24"], more, &["Tell me a story"]].concat()).ok().stdout
    };
    edit(folder.path().join("generation_config.json"), |config| {
        config.insert("do_sample".into(), false.into());
    });
    run(&["quantize", &source, &file, "--type", "bf16"]).ok();
    assert_eq!(ask(&file, &[]), ask(&source, &[]));
    assert_eq!(ask(&file, &[]), ask(&file, &["--greedy"]));

    edit(folder.path().join("generation_config.json"), |config| {
        config.insert("do_sample".into(), true.into());
        config.insert("temperature".into(), 1.25.into());
        config.insert("top_k".into(), 5.into());
        config.insert("top_p".into(), 0.75.into());
        config.insert("repetition_penalty".into(), 1.125.into());
        config.insert("stop_strings".into(), vec!["fox"].into());
    });
    run(&["quantize", &source, &file, "--type", "bf16"]).ok().note(&["stop_strings", "GGUF"]);
    edit(folder.path().join("generation_config.json"), |config| drop(config.remove("stop_strings")));
    let seed = ["--seed", "3"];
    assert_eq!(ask(&file, &seed), ask(&source, &seed));
    // and from GGUF to GGUF
    let again = folder.path().join("again.gguf").display().to_string();
    run(&["quantize", &file, &again, "--type", "bf16"]).ok();
    assert_eq!(ask(&again, &seed), ask(&source, &seed));
}

#[test]
fn files_that_are_no_model_are_told_what_they_are() {
    let folder = folder();
    for (kind, words) in [
        ("adapter", "LoRA adapter"),
        ("imatrix", "importance matrix"),
        ("mmproj", "projector"),
        ("vocab", "without weights"),
    ] {
        let file = folder.path().join(format!("{kind}.gguf"));
        let architecture = ("general.architecture".to_owned(), Key::Text("phi3".into()));
        let keys = vec![architecture, ("general.type".into(), Key::Text(kind.into()))];
        let tensor = ("blk.0.attn_qkv.weight.lora_a".to_owned(), Tensor("F32", vec![4], vec![0; 16]));
        save_gguf(&file, &keys, &vec![tensor]);
        continued(&file).error(&[words]);
    }
}

#[test]
fn a_folder_with_weights_in_both_forms_is_its_safetensors() {
    let folder = folder();
    let (config, tensors) = tiny(2, 512);
    let file = tiny_gguf(&folder, |_, _| {});
    let expected = continued(&file).ok().stdout;
    assert_eq!(continued(folder.path()).ok().stdout, expected);
    save_model(folder.path(), &config, &tensors);
    assert_eq!(continued(folder.path()).ok().stdout, expected);
}

#[test]
fn without_types_special_tokens_are_known_by_their_names() {
    let folder = folder();
    let file = tiny_gguf(&folder, |keys, _| {
        keys.retain(|(name, _)| name != "tokenizer.ggml.token_type");
        let tokens = keys.iter_mut().find(|(name, _)| name == "tokenizer.ggml.tokens");
        if let Some((_, Key::Texts(tokens))) = tokens {
            tokens[5] = "<|end|>".into();
        }
    });
    let ran = run(&["tokenize", "-m", &file.display().to_string(), "<|end|><s>"]).ok();
    assert_eq!(ran.stdout, "5 1\n");
    ran.note(&["tokenizer.ggml.token_type", "missing"]);
}

#[test]
fn keys_with_a_number_for_each_layer_are_read_where_the_layers_are_alike() {
    const KEYS: [&str; 3] = ["phi3.attention.head_count", "phi3.attention.head_count_kv", "phi3.feed_forward_length"];
    let of = |change: fn(i32) -> Vec<i32>| {
        let folder = folder();
        let file = tiny_gguf(&folder, |keys, _| {
            for (_, value) in keys.iter_mut().filter(|(name, _)| KEYS.contains(&name.as_str())) {
                if let Key::U32(n) = *value {
                    *value = Key::Integers(change(n as i32));
                }
            }
        });
        continued(&file)
    };
    of(|n| vec![n, n]).ok();
    of(|n| vec![n, 2 * n]).error(&["head_count", "the same for all layers"]);
}

#[test]
fn an_architecture_of_another_family_is_refused_by_name() {
    let folder = folder();
    let file = tiny_gguf(&folder, |keys, _| {
        keys.iter_mut().filter(|(name, _)| name == "general.architecture").for_each(|(_, value)| {
            *value = Key::Text("gpt2".into());
        });
    });
    continued(&file).error(&["general.architecture", "gpt2", "phi3", "phi2", "phimoe", "llama", "not supported"]);
}
