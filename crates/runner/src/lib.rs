//! Runs models of the Phi-3 family: text in, text out.

pub mod sampler;
pub mod text;
