//! Runs models of the Phi family: text in, text out.
//!
//! ```
//! use phi3_runner::text::Message;
//! use phi3_runner::{Device, Engine, Event, GenerateOptions};
//!
//! let engine = Engine::builder().device(Device::Cpu).build()?; // .model("path/to/Phi-3-mini-4k-instruct")
//! let question = [Message::user("What is 47 + 38?")];
//! for event in engine.chat(&question, &GenerateOptions::default())? {
//!     if let Event::Token { text, .. } = event? {
//!         print!("{text}");
//!     }
//! }
//! # Ok::<(), phi3_runner::Error>(())
//! ```

pub mod bench;
mod builder;
pub mod constraint;
mod device;
mod encode;
mod engine;
mod error;
mod generate;
pub mod kernels;
pub mod perplexity;
pub mod profile;
mod quantize;
mod request;
pub mod sampler;
pub mod scheduler;
mod source;
mod sync;
pub mod system_memory;
pub mod text;
pub mod verify;
mod vision;

pub use builder::{EngineBuilder, Progress};
pub use constraint::Grammar;
pub use device::{Device, DeviceOptions, LoadedModel, TIERS, cache_folder};
pub use engine::Engine;
pub use engine::start::Prompt;
pub use error::{Cause, Error, Result};
pub use generate::{
    Completion, Event, FinishReason, GenerateOptions, Generation, Summary, Timings, Usage, rope_policy,
};
pub use phi3_image::{Orientation, Preparation};
pub use phi3_model::{ImageTag, QuantScheme, RopePolicy, RopeSet};
pub use quantize::{gguf_keys, quantize};
pub use sampler::SamplerOptions;
pub use source::Source;
pub use vision::{Image, ImageReader, PromptPiece, image_tag, image_tags, missing_tags, prompt_pieces, shown_images};
