//! Files of `tests/data`.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use phi3_runner::text::Tokenizer;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// A text, its ids and their decoded text.
#[derive(Deserialize)]
pub(crate) struct TextVector {
    pub(crate) text: String,
    pub(crate) ids: Vec<u32>,
    pub(crate) ids_with_special_tokens: Option<Vec<u32>>,
    pub(crate) decoded: String,
    pub(crate) decoded_skip_special: String,
}

#[derive(Deserialize)]
struct Vectors<T> {
    vectors: Vec<T>,
}

pub(crate) static PHI_3: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_file(path("tokenizer/phi-3/tokenizer.json")).unwrap());

/// Phi-3-vision's tokenizer. It differs from Phi-3's in added tokens and post-processor; only those are stored.
pub(crate) static PHI_3_VISION: LazyLock<Tokenizer> = LazyLock::new(|| {
    let mut tokenizer: Map<String, Value> = json("tokenizer/phi-3/tokenizer.json");
    tokenizer.extend(json::<Map<String, Value>>("tokenizer/phi-3-vision/tokenizer-overlay.json"));
    Tokenizer::from_bytes("phi-3-vision", &serde_json::to_vec(&tokenizer).unwrap()).unwrap()
});

pub(crate) static DEMO: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_bytes("demo", phi3_demo::TOKENIZER.as_bytes()).unwrap());

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

pub(crate) fn json<T: DeserializeOwned>(name: &str) -> T {
    let text = std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) fn vectors<T: DeserializeOwned>(name: &str) -> Vec<T> {
    json::<Vectors<T>>(name).vectors
}

/// Both tokenizers with their vectors.
pub(crate) fn tokenizers() -> [(&'static Tokenizer, Vec<TextVector>); 2] {
    [(&PHI_3, vectors("tokenizer/phi-3/vectors.json")), (&PHI_3_VISION, vectors("tokenizer/phi-3-vision/vectors.json"))]
}

/// Pseudorandom numbers, the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        ((self.0 >> 33) % u64::from(limit)) as u32
    }
}
