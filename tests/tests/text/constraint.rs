//! Constraints of byte-level vocabularies.

use super::built::FAMILY;
use super::data::Random;
use phi3_runner::constraint::{ConstraintFactory, Grammar};
use serde_json::json;

/// Compares the bytes of every token with what a stream says in the middle of a text, and draws a number and a word.
#[test]
fn byte_level_vocabularies_have_constraints() {
    let mut random = Random(9);
    let schema = json!({"type": "array", "items": {"enum": ["é\n", 12, "a b"]}, "minItems": 2, "maxItems": 4});
    for built in FAMILY.iter() {
        let tokenizer = &built.tokenizer;
        let end = tokenizer.token_to_id("<|endoftext|>").unwrap();
        let factory = ConstraintFactory::new(tokenizer, &[end]).unwrap();
        let [x] = tokenizer.encode("x", false).unwrap()[..] else { panic!() };
        for id in 0..factory.vocab_size() as u32 {
            let mut stream = tokenizer.stream(false);
            let mut said = stream.push(x).unwrap() + &stream.push(id).unwrap();
            said += &stream.finish().unwrap();
            let bytes = factory.token_bytes(id);
            match bytes {
                // the byte that no UTF-8 has, and gaps
                [] => assert!(said == "x" || said.contains('\u{FFFD}'), "{}: {id}: {said:?}", built.name),
                [0xFF, name @ ..] => assert_eq!(&said.as_bytes()[1..], name, "{}", built.name),
                _ => assert_eq!(&said[1..], String::from_utf8_lossy(bytes), "{}: {id}", built.name),
            }
            assert!(!tokenizer.is_special(id) || bytes.first() == Some(&0xFF), "{}: {id}", built.name);
        }
        for _ in 0..3 {
            let mut constraint = factory.compile(&Grammar::JsonSchema(schema.clone())).unwrap();
            let (mut text, mut stream, mut mask) = (String::new(), tokenizer.stream(true), Vec::new());
            while !constraint.is_complete() {
                constraint.mask(&mut mask).unwrap();
                let allowed: Vec<u32> =
                    (0..factory.vocab_size() as u32).filter(|t| mask[*t as usize / 32] >> (t % 32) & 1 == 1).collect();
                let token = allowed[random.below(allowed.len() as u32) as usize];
                constraint.advance(token).unwrap();
                text += &stream.push(token).unwrap();
            }
            let found: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
            assert!((2..=4).contains(&found.len()), "{text}");
        }
    }
}
