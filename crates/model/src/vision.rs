//! Pictures: vision towers, and their features, which replace embeddings in a prompt.

mod features;
mod merge;
mod names;
mod positions;
mod processor;
mod spec;
mod table;
mod tower;

pub use features::{FeatureId, Features, Input, TowerInput};
pub(crate) use names::{CLIP, SIGLIP};
pub use processor::ImageProcessor;
pub use spec::{ImageTag, PatchEmbedding, PictureSpec, VisionSpec};
pub use table::published_vision_tensors;
pub(crate) use table::{
    VisionTensor, VisionValues, vision_parameters, vision_tensors, vision_unused, vision_weight_bytes,
};
pub(crate) use tower::{Tower, scratch_bytes};
