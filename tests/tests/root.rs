//! Tests of the whole engine, in one binary.

/// Damaged configurations and tensors of every class.
mod bad_classes;
/// Damaged and unusual checkpoints, each with its expected result.
mod bad_safetensors;
/// Texts at once on a GPU, with the bits of each alone.
mod company;
/// `config.json` in all forms written by programs and by hand.
mod configs;
/// Submits, dispatches and allocations of a decoded token.
mod counters;
/// The embedded demo model's published samples.
mod demo;
/// The seeds of the fuzz targets, without libFuzzer.
mod fuzz_corpus;
/// Every checkpoint of the oracle against its golden, on every backend.
mod golden;
/// LongRoPE's switch of factors: policies, events, the KV cache.
mod long_rope;
/// Setups for the tests.
mod machines;
/// Passes ahead of the host, with tokens chosen on the device.
mod pipeline;
/// GGUF files, quantization, cache types, perplexity.
mod quantized;
/// Misuse of sequences.
mod sequences;
/// Models of odd shapes, compared with the reference operations.
mod shapes;
/// Test vectors of text: tokenizer, streaming, chat templates, samplers.
mod text;
/// Pictures: vision towers against their goldens, and prompts with pictures.
mod vision;
