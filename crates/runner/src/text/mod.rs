//! From messages to token ids and from token ids back to text.

pub(crate) mod clock;
mod error;
mod gguf;
mod json;
mod message;
mod namespaces;
pub(crate) mod stop;
mod stream;
mod template;
mod to_gguf;
mod tokenizer;

pub use error::{Error, Result};
pub use message::Message;
pub use stream::TextStream;
pub use template::ChatTemplate;
pub use to_gguf::{placeholder, vocabulary};
pub use tokenizer::Tokenizer;
