//! Command-line arguments.

mod bench;
mod grammar;
mod images;
mod models;
mod sampling;
#[cfg(feature = "server")]
mod serve;
mod values;

pub(super) use bench::{Bench, BenchCommand, BenchFormat, Kernels, all_threads};
pub(super) use images::ImageArgs;
pub(super) use models::Models;
#[cfg(feature = "hub")]
pub(super) use models::ModelsCommand;
pub(super) use sampling::SamplingArgs;
#[cfg(feature = "server")]
pub(super) use serve::Serve;

use crate::fetch::{self, Need};
use crate::thinking::Style;
use clap::{Args, Parser, Subcommand};
use phi3_model::QuantScheme;
use phi3_runner::text::ChatTemplate;
use phi3_runner::{Device, DeviceOptions, Engine, EngineBuilder, Result, RopePolicy, Source};
use phi3_tensor::KvType;
use phi3_tensor::cpu::{Activations, Isa, Repack};
use std::path::PathBuf;
use values::{activations, bytes, kv_type, level, pack, positive, threads};

/// Run Microsoft's Phi models on the CPU or on any GPU.
///
/// Without --model, a tiny demo model inside the program answers.
#[derive(Parser)]
#[command(name = "phi3-run", version, args_conflicts_with_subcommands = true, subcommand_precedence_over_arg = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) ask: Ask,
    /// Take models by name from the cache only, without network access [also: HF_HUB_OFFLINE=1]
    #[arg(long, global = true)]
    pub(super) offline: bool,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Chat in several turns
    Chat(Chat),
    /// Continue a text or token ids, without a chat template
    Generate(Generate),
    /// Answer requests of OpenAI's clients over HTTP
    #[cfg(feature = "server")]
    Serve(Box<Serve>),
    /// Write the logits of every token of a text to a file
    Logits(Logits),
    /// Compare a checkpoint with a golden of the reference implementation
    Verify(Verify),
    /// Turn text into token ids
    Tokenize(Tokenize),
    /// Print the prompt that the chat template renders from messages
    Render(Render),
    /// Write a checkpoint as a quantized GGUF file
    Quantize(Quantize),
    /// Show a checkpoint's metadata, tensors, types and sizes
    Inspect(Inspect),
    /// Show the memory that a model takes on a device, without loading it
    Plan(Plan),
    /// Measure the perplexity of a text, and the KL divergence of another model or device
    Perplexity(Perplexity),
    /// Time prompts and generation, with llama-bench's tests and formats
    Bench(Box<Bench>),
    /// Show the time of each operation, for a prompt and for generated tokens
    Profile(Profile),
    /// List the GPUs of this machine, their features, limits and kernels
    Devices(Devices),
    /// Show the models that have short names; list, fetch and remove models in the cache
    Models(Models),
}

/// Model and device.
#[derive(Args, Clone)]
pub(super) struct ModelArgs {
    /// Checkpoint folder (config.json, *.safetensors, tokenizer.json), GGUF file, or a folder that contains one of them;
    /// or a name to fetch from the Hugging Face hub: phi-4-mini, phi-4-mini:q4_k_m, owner/name@revision:file
    /// [default: the demo model inside the program]
    #[arg(long, short, value_name = "MODEL")]
    pub(super) model: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineArgs,
    /// Prompt tokens per pass
    #[arg(long, value_name = "N", value_parser = positive)]
    chunk: Option<usize>,
    /// LongRoPE factors: exact (as the reference), ahead (long from the start if prompt and --max-tokens exceed the
    /// original context length), long, or short
    #[arg(long, default_value = "exact", value_name = "RULE", value_parser = phi3_runner::rope_policy)]
    pub(super) longrope: RopePolicy,
    /// Quantize f32, f16 and bf16 weights while loading: q8_0, q6_k, q5_k_m, q4_k_m, q4_0, int4, … [default: unchanged]
    #[arg(long, value_name = "TYPE")]
    quant: Option<QuantScheme>,
    /// Type of the KV cache: f32 (exact), f16 or q8_0 [default: f16; f32 if activations are f32]
    #[arg(long, value_name = "TYPE", value_parser = kv_type)]
    kv: Option<KvType>,
    /// Memory of the KV cache for all requests together, in bytes, with K, M or G [default: three quarters of the memory that
    /// is free after loading]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    cache_memory: Option<u64>,
    /// Load even if memory does not seem to suffice
    #[arg(long)]
    force: bool,
    /// Print no progress, notes or statistics
    #[arg(long, short)]
    pub(super) quiet: bool,
}

/// Device, and options of its backend.
#[derive(Args, Clone)]
pub(super) struct MachineArgs {
    /// auto (a real GPU, else the CPU), cpu, gpu (a software adapter if there is no other), gpu:N, or part of an adapter's name
    #[arg(long, short, default_value = "auto", value_name = "DEVICE")]
    device: Device,
    /// Threads of the CPU backend, and of --quant while loading [default: all available to this process]
    #[arg(long, short, value_name = "N", value_parser = threads)]
    threads: Option<usize>,
    /// Instruction set of the CPU backend: amx, avx512-vnni, avx512, avx2, neon-dot, neon or portable [default: the widest]
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    level: Option<Isa>,
    /// Activations in matrix products: int8 (fast; on the CPU for quantized weights, on a GPU half precision for the rows of a prompt
    /// if it supports that) or f32 (exact) [default: int8; f32 for verify and logits]
    #[arg(long, value_name = "TYPE", value_parser = activations)]
    activations: Option<Activations>,
    /// When the CPU backend interleaves quantized weights: background (into a copy in memory, at first use or before), load
    /// (all at load) or never (the weights stay in the mapped file: slower tokens) [default: background; load for profile]
    #[arg(long, value_name = "WHEN", value_parser = pack)]
    pack: Option<Repack>,
    /// Kernels of the GPU backend: base, f16, subgroup or coop (matrix units) [default: the best that the adapter can run]
    #[arg(long, value_name = "TIER", value_parser = phi3_runner::TIERS)]
    tier: Option<String>,
    /// Largest binding of the GPU backend in bytes, with K, M or G [default: what the adapter allows]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_binding: Option<u64>,
}

/// A question.
#[derive(Args)]
pub(super) struct Ask {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    #[command(flatten)]
    pub(super) sampling: SamplingArgs,
    #[command(flatten)]
    pub(super) talk: TalkArgs,
    #[command(flatten)]
    pub(super) images: ImageArgs,
    #[command(flatten)]
    pub(super) prompt: PromptFile,
    /// The question; piped text is put before it, or is the whole question if there is none
    #[arg(value_name = "PROMPT", conflicts_with = "file")]
    pub(super) words: Vec<String>,
}

/// A prompt from a file.
#[derive(Args)]
pub(super) struct PromptFile {
    /// Read the prompt from a file; - is standard input
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct Chat {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    #[command(flatten)]
    pub(super) sampling: SamplingArgs,
    #[command(flatten)]
    pub(super) talk: TalkArgs,
    #[command(flatten)]
    pub(super) images: ImageArgs,
}

/// System message, chat template and display of a chat.
#[derive(Args)]
pub(super) struct TalkArgs {
    /// System message
    #[arg(long, short, value_name = "TEXT")]
    pub(super) system: Option<String>,
    #[command(flatten)]
    pub(super) template: TemplateArgs,
    /// Do not print the thinking of a reasoning model
    #[arg(long)]
    hide_thinking: bool,
}

impl TalkArgs {
    /// Display of thinking.
    pub(super) fn style(&self) -> Style {
        Style::of_output(self.hide_thinking)
    }
}

/// The chat template.
#[derive(Args)]
pub(super) struct TemplateArgs {
    /// Jinja file, or JSON file with a chat_template; name of one of the model's templates, such as tool_use; or phi-3,
    /// phi-3.5, phi-4, phi-4-mini, chatml, … [default: the model's default template]
    #[arg(long, value_name = "FILE|NAME")]
    chat_template: Option<String>,
}

impl TemplateArgs {
    /// The requested template, with the special tokens of a model.
    pub(super) fn template(&self, source: &Source) -> Result<Option<ChatTemplate>> {
        let Some(template) = &self.chat_template else { return Ok(None) };
        source.template_from(template).map(Some)
    }
}

#[derive(Args)]
pub(super) struct Generate {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    #[command(flatten)]
    pub(super) sampling: SamplingArgs,
    #[command(flatten)]
    pub(super) input: InputArgs,
    #[command(flatten)]
    pub(super) images: ImageArgs,
    /// Show special tokens in the text
    #[arg(long)]
    pub(super) raw: bool,
    /// Print one JSON object at the end: ids, text, finish_reason, usage, timings, device, seed, and with --logprobs
    /// logprobs
    #[arg(long)]
    pub(super) json: bool,
}

/// Text or token ids.
#[derive(Args)]
pub(super) struct InputArgs {
    /// The text; piped text is put before it, or is the whole text if there is none
    #[arg(long, short, value_name = "TEXT", conflicts_with_all = ["ids", "file"])]
    pub(super) prompt: Option<String>,
    /// Token ids in place of text, separated by spaces or commas
    #[arg(long, value_name = "IDS", conflicts_with = "file")]
    pub(super) ids: Option<String>,
    #[command(flatten)]
    pub(super) file: PromptFile,
}

#[derive(Args)]
pub(super) struct Logits {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    #[command(flatten)]
    pub(super) input: InputArgs,
    /// Write the hidden states too: hidden.0 … hidden.norm
    #[arg(long)]
    pub(super) hidden: bool,
    /// The safetensors file to write: tensor `logits` [tokens, vocabulary], f32
    #[arg(long, short, value_name = "FILE")]
    pub(super) out: PathBuf,
}

#[derive(Args)]
pub(super) struct Verify {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// Folder of golden.safetensors and golden.json [default: the checkpoint's]
    #[arg(long, value_name = "DIR")]
    pub(super) golden: Option<PathBuf>,
    /// Largest difference of a logit [default: 1e-4 on the CPU, 2e-4 on a GPU]
    #[arg(long, value_name = "X")]
    pub(super) tolerance: Option<f64>,
}

#[derive(Args)]
pub(super) struct Tokenize {
    /// Folder with a tokenizer (tokenizer.json, vocab.json with merges.txt, or a rank file *.tiktoken), GGUF file, or a
    /// model's name [default: the demo model]
    #[arg(long, short, value_name = "MODEL")]
    pub(super) model: Option<PathBuf>,
    /// Add the special tokens that the tokenizer puts around a text
    #[arg(long)]
    pub(super) special: bool,
    /// Print one JSON object with ids and decoded
    #[arg(long, conflicts_with = "jsonl")]
    pub(super) json: bool,
    /// Every input line is a JSON string, every output line a JSON object with ids and decoded
    #[arg(long)]
    pub(super) jsonl: bool,
    /// The text [default: standard input]
    #[arg(value_name = "TEXT")]
    pub(super) text: Option<String>,
}

#[derive(Args)]
pub(super) struct Render {
    /// Folder with a chat template (chat_template.jinja, tokenizer_config.json), GGUF file, or a model's name
    /// [default: the demo model]
    #[arg(long, short, value_name = "MODEL")]
    pub(super) model: Option<PathBuf>,
    #[command(flatten)]
    pub(super) template: TemplateArgs,
    /// Do not append the header of the assistant's answer
    #[arg(long)]
    pub(super) no_generation_prompt: bool,
    /// A JSON list of {"role", "content"}; "-" reads standard input
    #[arg(value_name = "MESSAGES.json")]
    pub(super) messages: PathBuf,
}

#[derive(Args)]
pub(super) struct Quantize {
    /// A checkpoint folder or GGUF file, or a model's name
    #[arg(value_name = "IN")]
    pub(super) input: PathBuf,
    /// The file to write
    #[arg(value_name = "OUT.gguf")]
    pub(super) output: PathBuf,
    /// Type of the weights: q4_k_m, q8_0, q6_k, q5_k_m, q4_0, int4, f16, bf16, …
    #[arg(long = "type", short = 't', value_name = "TYPE", default_value = "q4_k_m")]
    pub(super) scheme: QuantScheme,
    /// Print no progress or notes
    #[arg(long, short)]
    pub(super) quiet: bool,
}

#[derive(Args)]
pub(super) struct Inspect {
    /// A checkpoint folder or GGUF file, or a model's name [default: the demo model]
    #[arg(value_name = "MODEL")]
    pub(super) path: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct Plan {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// A checkpoint folder or GGUF file, or a model's name [default: that of --model]
    #[arg(value_name = "MODEL", conflicts_with = "model")]
    pub(super) path: Option<PathBuf>,
    /// Length of the text in tokens [default: the model's context]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub(super) context: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct Perplexity {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// The text
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Tokens of a window, at most
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(super) window: usize,
    /// Tokens from one window's start to the next
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(super) stride: usize,
    /// Another model, to measure its KL divergence from --model
    #[arg(long, value_name = "MODEL")]
    pub(super) against: Option<PathBuf>,
    /// Device of the other model [default: that of --device]
    #[arg(long, value_name = "DEVICE")]
    pub(super) against_device: Option<Device>,
    /// Quantize the weights of the other model while loading
    #[arg(long, value_name = "TYPE")]
    pub(super) against_quant: Option<QuantScheme>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// Tokens are arbitrary; nothing is sampled.
#[derive(Args)]
pub(super) struct Profile {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// Length of the prompt
    #[arg(long, short = 'p', value_name = "N", default_value = "128", value_parser = positive)]
    pub(super) n_prompt: usize,
    /// Number of tokens that are generated one by one
    #[arg(long, short, value_name = "N", default_value = "16")]
    pub(super) n_gen: usize,
    /// Write a flame graph as SVG; the width of a bar is its time
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args)]
pub(super) struct Devices {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Path of the model, fetched if it is a name that is not in the cache; the demo model for `None`.
pub(super) fn source(model: &Option<PathBuf>, need: Need, quiet: bool) -> Result<Source> {
    model.as_ref().map_or(Ok(Source::Demo), |model| Ok(Source::Path(fetch::path(model, need, quiet)?)))
}

impl MachineArgs {
    /// Options of the device.
    pub(super) fn device_options(&self) -> DeviceOptions {
        DeviceOptions {
            device: self.device.clone(),
            threads: self.threads,
            level: self.level,
            activations: self.activations.unwrap_or_default(),
            pack: self.pack.unwrap_or_default(),
            max_binding: self.max_binding,
            tier: self.tier.clone(),
            cache: phi3_runner::cache_folder(),
            ..DeviceOptions::default()
        }
    }
}

impl ModelArgs {
    /// Options of the device, and of the model on it.
    pub(super) fn device_options(&self) -> DeviceOptions {
        DeviceOptions { quant: self.quant, kv: self.kv, force: self.force, ..self.machine.device_options() }
    }

    /// The same arguments, with weights interleaved at load by default, for passes that are compared with each other.
    pub(super) fn loaded_whole(&self) -> Self {
        let pack = self.machine.pack.or(Some(Repack::AtLoad));
        Self { machine: MachineArgs { pack, ..self.machine.clone() }, ..self.clone() }
    }

    /// The same arguments, with activations in f32 by default.
    pub(super) fn exact(&self) -> Self {
        let activations = self.machine.activations.or(Some(Activations::F32));
        Self { machine: MachineArgs { activations, ..self.machine.clone() }, ..self.clone() }
    }

    /// Prompt tokens per pass, at most.
    pub(super) fn chunk(&self) -> usize {
        self.chunk.unwrap_or(usize::MAX)
    }

    /// Source of the model.
    pub(super) fn source(&self) -> Result<Source> {
        source(&self.model, Need::Weights, self.quiet)
    }

    /// Builder of an engine with these arguments.
    pub(super) fn engine<'a>(&self, source: Source) -> EngineBuilder<'a> {
        let builder = Engine::builder().source(source).device_options(self.device_options()).rope_policy(self.longrope);
        self.cache_memory.into_iter().fold(builder, EngineBuilder::cache_memory)
    }
}

/// Parses token ids separated by spaces or commas.
pub(super) fn ids(text: &str) -> Result<Vec<u32>> {
    text.split(|c: char| c.is_whitespace() || c == ',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            part.parse().map_err(|_| phi3_runner::Error::Argument {
                argument: "--ids",
                expected: "token ids such as \"1 2 3\"".into(),
                found: format!("{part:?}"),
            })
        })
        .collect()
}
