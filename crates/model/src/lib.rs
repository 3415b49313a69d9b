//! The decoder of the Phi family: configuration, checkpoints, LongRoPE and the paged KV cache.
//!
//! A variant is data: [`ModelSpec`] is the normalised `config.json` or metadata of a GGUF file. [`Decoder`] computes that
//! description with the operations of a [`Backend`](phi3_tensor::Backend). No code of this crate depends on the device.
//!
//! ```
//! use phi3_model::{ModelSpec, RopePolicy, RopeSet};
//!
//! let json = br#"{"model_type": "phi3", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
//!     "num_attention_heads": 4, "vocab_size": 384}"#;
//! let spec = ModelSpec::parse("config.json".as_ref(), json)?;
//! assert_eq!(spec.heads.head_dim, 16);
//! assert_eq!(spec.rope.choose(RopePolicy::Exact, 5000, 5000), RopeSet::Short);
//! # Ok::<(), phi3_model::Error>(())
//! ```

mod checkpoint;
mod config;
mod decoder;
mod error;
mod export;
mod generation;
pub mod gguf;
mod json;
mod location;
mod pages;
mod plan;
mod prefill;
mod published;
mod quant_scheme;
mod reserve;
mod rope;
mod safetensors;
mod sequence;
mod session;
mod shard;
mod sniff;
mod spec;
mod table;
mod tensors;
mod variant;
mod vision;

pub use checkpoint::Checkpoint;
pub use decoder::{Decoder, DecoderOptions, Model, Outputs, Probe, RowInput, Segment, check_inputs, check_length};
pub use error::{Error, Result};
pub use export::{GgufLayout, destination, write_gguf};
pub use generation::{GenerationConfig, TURN_ENDS};
pub use json::json_text;
pub use location::Location;
pub use pages::{CacheRoot, PageId, PageTable, Prefix, PrefixNode, Write};
pub use plan::{Plan, parameters, plan, weight_bytes};
pub use prefill::{PrefillOptions, PrefillProgress};
pub use published::{PublishedTensor, published_tensors};
pub use quant_scheme::{QuantScheme, type_label};
pub use rope::{LongRope, Rope, RopePolicy, RopeSet};
pub use sequence::Sequence;
pub use session::{SequenceRows, Session};
pub use sniff::check_text;
pub use spec::{Block, LayerSpec, Mlp, ModelSpec, NormSpec};
pub use table::{Naming, Part, Slot, TensorSpec, tensors};
pub use variant::{variant, variants};
pub use vision::{
    FeatureId, Features, ImageProcessor, ImageTag, Input, PatchEmbedding, PictureSpec, TowerInput, VisionSpec,
    published_vision_tensors,
};
