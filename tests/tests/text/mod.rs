//! Tokenizer, streaming, chat templates and samplers.

mod chat;
mod data;
mod sampler;
mod stream;
mod tokenizer;
