//! Conversion of messages to token ids, and of token ids to text.

mod added;
mod around;
pub(crate) mod clock;
mod companions;
mod compare;
mod error;
mod find_template;
mod folder;
mod gguf;
mod guarded;
mod message;
mod outline;
mod ranks;
mod rules;
pub(crate) mod stop;
mod stream;
mod template;
mod templates;
mod thinking;
mod to_gguf;
mod token_bytes;
mod tokenizer;

pub(crate) use compare::compare;
pub use error::{Error, Result};
pub use find_template::SpecialTokens;
pub use message::Message;
pub use stream::TextStream;
pub use template::{ChatTemplate, SystemMessages};
pub use templates::ChatTemplates;
pub use thinking::{Span, ThinkingSplitter};
pub(crate) use to_gguf::{placeholder, vocabulary};
pub use token_bytes::{TokenBytes, TokenTable};
pub use tokenizer::Tokenizer;
