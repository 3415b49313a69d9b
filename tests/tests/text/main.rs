//! Text against the vectors of `tests/data`: tokenizer, streaming, chat templates, samplers.

mod chat;
mod data;
mod sampler;
mod stream;
mod tokenizer;
