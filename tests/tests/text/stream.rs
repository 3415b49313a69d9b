//! Streamed pieces of text compared with the text decoded as a whole.

use phi3_runner::text::Tokenizer;
use serde_json::{Map, Value, json};

use super::data::{DEMO, PHI_3, Random, json, tokenizers};

/// Checks the concatenation and returns the pieces.
fn check(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut pieces = Vec::new();
    for skip_special in [false, true] {
        let mut stream = tokenizer.stream(skip_special);
        pieces = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        pieces.push(stream.finish().unwrap());
        assert_eq!(pieces.concat(), tokenizer.decode(ids, skip_special).unwrap(), "{ids:?}");
    }
    pieces
}

#[test]
fn all_vectors() {
    for (tokenizer, vectors) in tokenizers() {
        for vector in vectors {
            check(tokenizer, &vector.ids);
            check(tokenizer, &vector.ids_with_special_tokens.unwrap_or_default());
        }
    }
}

#[test]
fn random_ids() {
    let mut random = Random(1);
    for round in 0..3000 {
        let length = random.below(40);
        let ids: Vec<u32> = (0..length)
            .map(|_| match random.below(if round % 2 == 0 { 4 } else { 6 }) {
                0 | 1 => 3 + random.below(256),
                2 => 32_000 + random.below(14),
                3 => [29_871, 1678, 13, 29_892][random.below(4) as usize],
                _ => random.below(32_064),
            })
            .collect();
        check(&PHI_3, &ids);
        check(&DEMO, &ids.iter().map(|id| id % 2_112).collect::<Vec<_>>());
    }
}

#[test]
fn text_comes_as_soon_as_it_is_certain() {
    let ids = PHI_3.encode("a 🦙 b", false).unwrap();
    let pieces = check(&PHI_3, &ids);
    assert_eq!(pieces.iter().filter(|piece| !piece.is_empty()).collect::<Vec<_>>(), ["a", " ", "🦙 b"]);
    let words = PHI_3.encode("The quick brown fox", false).unwrap();
    assert!(check(&PHI_3, &words)[..words.len()].iter().all(|piece| !piece.is_empty()));
}

#[test]
fn a_finished_stream_starts_anew() {
    let ids = PHI_3.encode("Hello", false).unwrap();
    let mut stream = PHI_3.stream(true);
    for _ in 0..2 {
        assert_eq!(ids.iter().map(|&id| stream.push(id).unwrap()).collect::<String>(), "Hello");
        assert_eq!(stream.finish().unwrap(), "");
    }
}

/// A vocabulary of single bytes and pairs in GPT-2's alphabet, as in Phi-2 and Phi-4.
fn byte_level(decoder: Value) -> Tokenizer {
    let letters = (0x21..=0x7Eu32).chain(0xA1..=0xAC).chain(0xAE..=0xFF).chain(0x100..=0x143);
    let letters: Vec<String> = letters.filter_map(char::from_u32).map(String::from).collect();
    let mut vocab: Map<String, Value> = Map::new();
    for letter in letters.iter().cloned().chain(letters.windows(2).map(|pair| pair.concat())) {
        let id = vocab.len();
        vocab.insert(letter, json!(id));
    }
    let size = vocab.len();
    let file = json!({
        "version": "1.0",
        "added_tokens": [
            {"id": size, "content": "<|end|>", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
            {"id": size + 1, "content": " ü ", "special": false, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": decoder,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    Tokenizer::from_bytes("byte-level", &serde_json::to_vec(&file).unwrap()).unwrap()
}

#[test]
fn byte_level_vocabularies() {
    let plain = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    for decoder in [plain.clone(), json!({"type": "Sequence", "decoders": [plain]}), Value::Null] {
        let tokenizer = byte_level(decoder);
        let size = tokenizer.vocab_size() as u32;
        let text = "Grüße, 🦙 ß 漢字\n\n ok";
        let ids = tokenizer.encode(text, false).unwrap();
        check(&tokenizer, &ids);
        let mut random = Random(2);
        for _ in 0..1000 {
            let ids: Vec<u32> = (0..random.below(30)).map(|_| random.below(size + 1)).collect();
            check(&tokenizer, &ids);
        }
    }
}

#[test]
fn other_decoders_wait_for_the_end() {
    let mut file: Value = json("tokenizer/phi-3/tokenizer.json");
    file["decoder"] = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let tokenizer = Tokenizer::from_bytes("metaspace", &serde_json::to_vec(&file).unwrap()).unwrap();
    check(&tokenizer, &[15_043, 29_892, 3_186, 32_007, 13]);
}
