//! Tokenizer, streaming, chat templates and samplers.

mod built;
mod chat;
mod companions;
mod constraint;
mod data;
mod family;
mod sampler;
mod stream;
mod tokenizer;
