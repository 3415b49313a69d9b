//! Pictures: the CLIP tower of Phi-3-vision, its HD transform, and the features that stand in a prompt in place of embeddings.

mod features;
mod merge;
mod processor;
mod spec;
mod table;
mod tower;

pub use features::{Crops, FeatureId, Features, Input};
pub use processor::ImageProcessor;
pub use spec::VisionSpec;
pub(crate) use table::{VisionTensor, vision_tensors};
pub(crate) use tower::{Tower, scratch_bytes};
