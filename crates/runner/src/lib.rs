//! Runs models of the Phi family: text in, text out.
//!
//! ```
//! use phi3_runner::text::Message;
//! use phi3_runner::{Device, Engine, Event, GenerateOptions};
//!
//! let mut engine = Engine::builder().device(Device::Cpu).build()?; // .model("path/to/Phi-3-mini-4k-instruct")
//! let question = [Message::user("What is 47 + 38?")];
//! for event in engine.chat(&question, &GenerateOptions::default())? {
//!     if let Event::Token { text, .. } = event? {
//!         print!("{text}");
//!     }
//! }
//! # Ok::<(), phi3_runner::Error>(())
//! ```

pub mod bench;
mod device;
mod engine;
mod error;
mod generate;
pub mod kernels;
pub mod memory;
pub mod perplexity;
pub mod profile;
mod quantise;
pub mod sampler;
pub mod text;
pub mod verify;
mod vision;

pub use device::{Device, Placed, Setup, TIERS, cache_folder};
pub use engine::{Engine, EngineBuilder, Progress, Source};
pub use error::{Cause, Error, Result};
pub use generate::{
    Completion, Event, FinishReason, GenerateOptions, Generation, Summary, Timings, Usage, rope_policy,
};
pub use phi3_image::{Orientation, Preparation};
pub use phi3_model::ImageTag;
pub use phi3_model::{Recipe, RopePolicy, RopeSet};
pub use quantise::quantise;
pub use sampler::SamplerOptions;
pub use vision::{Image, ImageReader, PromptPiece, image_tag, image_tags, missing_tags, prompt_pieces, shown_images};
