//! Ids, decoded text, and damaged files.

use phi3_runner::text::{Error, Tokenizer};
use phi3_runner::{ImageTag, PromptPiece, prompt_pieces};
use serde::Deserialize;
use serde_json::{Value, json};

use super::data::{DEMO, PHI_3, PHI_3_VISION, Random, json, path, tokenizers, vectors};

#[test]
fn all_vectors() {
    for (tokenizer, vectors) in tokenizers() {
        assert!(vectors.len() > 10);
        for vector in vectors {
            let text = &vector.text;
            assert_eq!(tokenizer.encode(text, false).unwrap(), vector.ids, "{text:?}");
            let with_special = vector.ids_with_special_tokens.as_ref().unwrap_or(&vector.ids);
            assert_eq!(&tokenizer.encode(text, true).unwrap(), with_special, "{text:?}");
            assert_eq!(tokenizer.decode(&vector.ids, false).unwrap(), vector.decoded, "{text:?}");
            assert_eq!(tokenizer.decode(&vector.ids, true).unwrap(), vector.decoded_skip_special, "{text:?}");
        }
    }
}

#[test]
fn text_between_images() {
    #[derive(Deserialize)]
    struct Prompt {
        text: String,
        num_img_tokens: Vec<usize>,
        ids: Vec<i64>,
    }
    for prompt in vectors::<Prompt>("tokenizer/phi-3-vision/image-prompts.json") {
        let mut ids = Vec::new();
        for piece in prompt_pieces(&PHI_3_VISION, ImageTag::Numbered, &prompt.text).unwrap() {
            match piece {
                PromptPiece::Tokens(tokens) => ids.extend(tokens.into_iter().map(i64::from)),
                PromptPiece::Image(i) => ids.extend(std::iter::repeat_n(-(i as i64 + 1), prompt.num_img_tokens[i])),
            }
        }
        assert_eq!(ids, prompt.ids, "{:?}", prompt.text);
    }
}

#[test]
fn vocabularies() {
    assert_eq!((PHI_3.vocab_size(), PHI_3_VISION.vocab_size(), DEMO.vocab_size()), (32_011, 32_045, 2_091));
    assert_eq!(PHI_3.token_to_id("<|end|>"), Some(32_007));
    assert_eq!(PHI_3.id_to_token(15_043).as_deref(), Some("▁Hello"));
    assert!(PHI_3.is_special(32_007) && PHI_3.is_special(0) && !PHI_3.is_special(2) && !PHI_3.is_special(15_043));
}

#[test]
fn ids_out_of_range_have_no_text() {
    assert_eq!(PHI_3.decode(&[15_043, 32_063, u32::MAX, 3_186], false).unwrap(), "Hello world");
    assert!(!PHI_3.is_special(u32::MAX));
    assert_eq!(PHI_3.id_to_token(u32::MAX), None);
}

#[test]
fn samples_of_the_demo_model() {
    let samples: Value = serde_json::from_str(phi3_demo::SAMPLES).unwrap();
    for sample in samples["samples"].as_array().unwrap() {
        let ids = |name: &str| serde_json::from_value::<Vec<u32>>(sample[name].clone()).unwrap();
        assert_eq!(DEMO.encode(sample["text"].as_str().unwrap(), false).unwrap(), ids("input_ids"));
        let text = DEMO.decode(&ids("output_ids"), true).unwrap();
        assert_eq!(text, sample["output_text"].as_str().unwrap());
    }
}

#[test]
fn faults_name_the_file() {
    let good: Value = serde_json::from_str(phi3_demo::TOKENIZER).unwrap();
    let broken = |change: &dyn Fn(&mut Value)| {
        let mut value = good.clone();
        change(&mut value);
        serde_json::to_vec(&value).unwrap()
    };
    let cases = [
        Vec::new(),
        b"{}".to_vec(),
        b"[1, 2".to_vec(),
        vec![0xFF; 64],
        broken(&|v| v["model"] = json!(null)),
        broken(&|v| v["model"]["type"] = json!("Quantum")),
        broken(&|v| v["model"]["vocab"] = json!([])),
        broken(&|v| v["model"]["merges"] = json!([["no", "such pieces"]])),
        broken(&|v| v["added_tokens"][5]["id"] = json!(1)),
        broken(&|v| v["added_tokens"][5]["id"] = json!(-1)),
        broken(&|v| v["post_processor"]["single"] = json!([{"SpecialToken": {"id": "<s>", "type_id": 0}}])),
        broken(&|v| v["decoder"]["decoders"][3]["stop"] = json!(9)),
        broken(&|v| v["normalizer"]["normalizers"][0]["type"] = json!("Nothing")),
    ];
    for (i, bytes) in cases.iter().enumerate() {
        match Tokenizer::from_bytes("dir/tokenizer.json", bytes) {
            Ok(tokenizer) => drop(tokenizer.decode(&[], false)),
            Err(error) => assert!(error.to_string().contains("dir/tokenizer.json"), "{i}: {error}"),
        }
    }
    for case in [0, 1, 4, 5, 8, 10] {
        assert!(Tokenizer::from_bytes("x", &cases[case]).is_err(), "{case}");
    }
    let missing = Tokenizer::from_file(path("nowhere/tokenizer.json")).unwrap_err();
    assert!(matches!(missing, Error::Read { .. }) && missing.to_string().contains("nowhere"), "{missing}");
}

#[test]
fn damaged_files_never_panic() {
    let mut random = Random(5);
    let good = phi3_demo::TOKENIZER.as_bytes();
    for _ in 0..40 {
        let mut bytes = good.to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len() as u32) as usize;
            bytes[at] = random.below(256) as u8;
        }
        if let Ok(tokenizer) = Tokenizer::from_bytes("damaged", &bytes) {
            let _ = tokenizer.encode("Who are you? ½ 🦙", true).map(|ids| tokenizer.decode(&ids, false));
        }
    }
}

#[test]
fn truncation_in_the_file_is_ignored() {
    let mut value: Value = json("tokenizer/phi-3/tokenizer.json");
    value["truncation"] = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    value["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": null, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "<unk>"});
    let tokenizer = Tokenizer::from_bytes("x", &serde_json::to_vec(&value).unwrap()).unwrap();
    assert_eq!(tokenizer.encode("Hello, world!", false).unwrap(), [15_043, 29_892, 3_186, 29_991]);
}

#[test]
fn steps_that_fill_the_memory_are_refused() {
    let double = json!({"type": "Replace", "pattern": {"String": "l"}, "content": "ll"});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    for (field, steps, step) in [
        ("normalizer", "normalizers", &double),
        ("normalizer", "normalizers", &json!({"type": "ByteLevel"})),
        ("normalizer", "normalizers", &json!({"type": "Sequence", "normalizers": [double, double]})),
        ("pre_tokenizer", "pretokenizers", &bytes),
        ("decoder", "decoders", &double),
    ] {
        for (count, good) in [(3, true), (60, false)] {
            let mut file = json!({"version": "1.0", "added_tokens": [], "model": {
                "type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?",
            }});
            file[field] = json!({"type": "Sequence", steps: vec![step; count]});
            match Tokenizer::from_bytes("tokenizer.json", file.to_string().as_bytes()) {
                Ok(_) => assert!(good, "{field}"),
                Err(error) => assert!(!good && error.to_string().contains(field), "{error}"),
            }
        }
    }
}
