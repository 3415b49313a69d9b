//! A tiny chat model of the Phi-3 architecture, embedded in the crate.
//!
//! 3.9 million parameters, trained from scratch on generated text, for demonstrations of Phi-3 programs without a download.
//! File names, fields, tensor names, tokenizer format and chat template are those of the published Phi-3 checkpoints. The
//! model is not made by Microsoft and contains no weights of theirs. `model/README.md` is its model card: abilities,
//! accuracy, and training.

/// The model's name.
pub const NAME: &str = "tiny-phi";

/// `config.json`.
pub const CONFIG: &str = include_str!("../model/config.json");

/// `generation_config.json`: the stop tokens.
pub const GENERATION_CONFIG: &str = include_str!("../model/generation_config.json");

/// `tokenizer.json`.
pub const TOKENIZER: &str = include_str!("../model/tokenizer.json");

/// `tokenizer_config.json`: the chat template and the names of the special tokens.
pub const TOKENIZER_CONFIG: &str = include_str!("../model/tokenizer_config.json");

/// `samples.json`: prompts with their greedy continuations, and the perplexity of [`HELDOUT`], computed by transformers.
pub const SAMPLES: &str = include_str!("../model/samples.json");

/// `heldout.txt`: plain stories that are not in the training set.
pub const HELDOUT: &str = include_str!("../model/heldout.txt");

/// `model.safetensors`: the weights, in bf16. The bytes are aligned to 16, so that tensors that the file aligns can be viewed
/// in place.
pub fn weights() -> &'static [u8] {
    &WEIGHTS.bytes
}

static WEIGHTS: &Aligned<[u8]> = &Aligned { bytes: *include_bytes!("../model/model.safetensors") };

#[repr(C, align(16))]
struct Aligned<T: ?Sized> {
    bytes: T,
}

#[cfg(test)]
mod tests {
    use safetensors::{Dtype, SafeTensors};
    use serde_json::Value;

    use super::*;

    #[test]
    fn texts_are_json() {
        for text in [CONFIG, GENERATION_CONFIG, TOKENIZER, TOKENIZER_CONFIG, SAMPLES] {
            serde_json::from_str::<Value>(text).unwrap();
        }
    }

    #[test]
    fn weights_are_aligned_and_fit_the_config() {
        assert_eq!(weights().as_ptr().addr() % 16, 0);
        let config: Value = serde_json::from_str(CONFIG).unwrap();
        let tensors = SafeTensors::deserialize(weights()).unwrap();
        let embedding = tensors.tensor("model.embed_tokens.weight").unwrap();
        let rows = config["vocab_size"].as_u64().unwrap() as usize;
        let columns = config["hidden_size"].as_u64().unwrap() as usize;
        assert_eq!((embedding.dtype(), embedding.shape()), (Dtype::BF16, &[rows, columns][..]));
    }
}
