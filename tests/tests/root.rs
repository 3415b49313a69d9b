//! Tests of the whole engine, in one binary.

/// Passes ahead of the host, whose tokens the device chooses.
mod ahead;
/// Damaged and unusual checkpoints: each ends as its list says.
mod bad_safetensors;
/// `config.json` in all the forms that programs and people give it.
mod configs;
/// Submits, dispatches and allocations of a decoded token.
mod counters;
/// The embedded demo model's published samples.
mod demo;
/// The seeds of the fuzz targets, without libFuzzer.
mod fuzz_corpus;
/// Every checkpoint of the oracle against its golden, on every machine.
mod golden;
/// LongRoPE's border: policies, events, the cache.
mod long_rope;
/// Machines that the tests run on.
mod machines;
/// GGUF files, quantizing, cache types, perplexity.
mod quantized;
/// Sequences where they do not belong.
mod sequences;
/// A model of another shape, with its golden made by the reference operations.
mod shapes;
/// Text against vectors: tokenizer, streaming, chat templates, samplers.
mod text;
/// Pictures: towers against their goldens, and prompts with pictures.
mod vision;
