//! Arguments of `bench`.

use super::values::{
    Numbers, activations, all, bytes, dtype, kv_type, level, no_layers, numbers, pack, positive, rows, threads,
};
use super::{MachineArgs, source};
use crate::bench::pair;
use crate::fetch::Need;
use clap::builder::ArgPredicate;
use clap::{Args, Subcommand, ValueEnum};
use phi3_model::QuantScheme;
use phi3_runner::bench::{ParallelShape, Shape};
use phi3_runner::{Device, DeviceOptions, Error, Result, Source};
use phi3_tensor::cpu::{Activations, Isa, Repack};
use phi3_tensor::{DType, KvType};
use std::path::{Path, PathBuf};

/// Options that llama-bench also has mean the same; lists are separated by commas, and ranges are 4-8, 4-16+4 or 4-64*2.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) command: Option<BenchCommand>,
    /// Folders, GGUF files or names of models, each with its own -m [default: the demo model inside the program]
    #[arg(long, short, value_name = "MODEL")]
    model: Vec<PathBuf>,
    /// Lengths of prompts; with --parallel the default is 128
    #[arg(long, short = 'p', value_name = "N", default_value = "512", value_parser = numbers)]
    #[arg(default_value_if("parallel", ArgPredicate::IsPresent, "128"))]
    n_prompt: Vec<Numbers>,
    /// Numbers of tokens that are generated one by one
    #[arg(long, short, value_name = "N", default_value = "128", value_parser = numbers)]
    n_gen: Vec<Numbers>,
    /// A prompt and generated tokens after it, timed together; also -pg
    #[arg(long, value_name = "PP,TG", value_parser = pair)]
    pg: Vec<(usize, usize)>,
    /// Tokens in the KV cache before a test
    #[arg(long, short = 'd', value_name = "N", default_value = "0", value_parser = numbers)]
    n_depth: Vec<Numbers>,
    /// Numbers of sequences that are decoded at once, each with a prompt of its own: llama-batched-bench's tests and columns;
    /// also -np
    #[arg(long, value_name = "N", value_parser = rows, conflicts_with_all = ["pg", "n_depth"])]
    parallel: Vec<Numbers>,
    /// Timed runs of each test
    #[arg(long, short, value_name = "N", default_value = "5", value_parser = positive)]
    pub(crate) repetitions: usize,
    /// Numbers of threads [default: all available to this process]
    #[arg(long, short, value_name = "N", value_delimiter = ',', value_parser = threads)]
    threads: Vec<usize>,
    /// Prompt tokens per pass; also -ub
    #[arg(long, alias = "ubatch-size", value_name = "N", default_value = "512", value_parser = rows)]
    ubatch: Vec<Numbers>,
    /// Types of the KV cache
    #[arg(long, value_name = "TYPE", value_delimiter = ',', value_parser = kv_type)]
    kv: Vec<KvType>,
    /// Same as --kv; also -ctk
    #[arg(long, value_name = "TYPE", value_delimiter = ',', value_parser = kv_type, conflicts_with = "kv")]
    cache_type_k: Vec<KvType>,
    /// Same as --kv, because keys and values have one type; also -ctv
    #[arg(long, value_name = "TYPE", value_delimiter = ',', value_parser = kv_type, conflicts_with = "kv")]
    cache_type_v: Vec<KvType>,
    #[arg(long = "n-gpu-layers", hide = true, value_parser = no_layers)]
    _n_gpu_layers: Option<String>,
    /// auto, cpu, gpu, gpu:N, or part of an adapter's name
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: Device,
    /// Kernels of the GPU backend: base, f16, subgroup, coop [default: the best that the adapter can run]
    #[arg(long, value_name = "TIER", value_delimiter = ',', value_parser = phi3_runner::TIERS)]
    tier: Vec<String>,
    /// Largest binding of the GPU backend in bytes, with K, M or G
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    max_binding: Option<u64>,
    /// Instruction set of the CPU backend
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    level: Option<Isa>,
    /// Activations in matrix products: int8 (on a GPU half precision for the rows of a prompt) or f32
    #[arg(long, value_name = "TYPE", value_parser = activations)]
    activations: Option<Activations>,
    /// When the CPU backend interleaves quantized weights: load, background or never
    #[arg(long, default_value = "load", value_name = "WHEN", value_parser = pack)]
    pack: Repack,
    /// Quantize f32, f16 and bf16 weights while loading
    #[arg(long, value_name = "TYPE")]
    quant: Option<QuantScheme>,
    /// Load even if memory does not seem to suffice
    #[arg(long)]
    force: bool,
    /// Skip the untimed run before the timed ones
    #[arg(long)]
    pub(crate) no_warmup: bool,
    /// Format on standard output
    #[arg(long, short, value_enum, default_value = "md")]
    pub(crate) output: BenchFormat,
}

#[derive(Subcommand)]
pub(crate) enum BenchCommand {
    /// Time every operation at a variant's shapes, as a percentage of the measured bandwidth and arithmetic rate
    Kernels(Kernels),
}

/// Weights are arbitrary; lists are separated by commas.
#[derive(Args)]
pub(crate) struct Kernels {
    /// The model whose shapes are taken: phi-3-mini-4k, phi-3-medium-4k, phi-3.5-mini, phi-4, phi-4-mini, …
    /// [default: phi-3-mini-4k]
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    pub(crate) variant: Option<String>,
    /// A checkpoint folder, a GGUF file, a config.json or a model's name whose shapes are taken
    #[arg(long, short, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineArgs,
    /// Types of the weights: bf16, f16, q8_0, q4_k, q4_0, … [default: those of the model's weights, else bf16]
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = dtype)]
    pub(crate) types: Vec<DType>,
    /// Numbers of rows: 1 is a decoded token, more are a prompt
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,4,128,512", value_parser = positive)]
    pub(crate) rows: Vec<usize>,
    /// Positions that attention sees, the rows included
    #[arg(long, value_name = "N", default_value = "1024", value_parser = positive)]
    pub(crate) context: usize,
    /// Type of the KV cache
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = kv_type)]
    pub(crate) kv: KvType,
    /// Samples of each case, at most
    #[arg(long, short, value_name = "N", default_value = "20", value_parser = positive)]
    pub(crate) repetitions: usize,
    /// Format on standard output
    #[arg(long, short, value_enum, default_value = "md")]
    pub(crate) output: BenchFormat,
}

impl Kernels {
    /// DeviceOptions of the device.
    pub(crate) fn device_options(&self) -> DeviceOptions {
        self.machine.device_options()
    }
}

/// Output format of `bench`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchFormat {
    /// A Markdown table.
    Md,
    /// Comma-separated values.
    Csv,
    /// One JSON array.
    Json,
    /// One JSON object per line.
    Jsonl,
    /// SQL statements that create and fill a table.
    Sql,
}

impl Bench {
    /// The models; `None` is the demo. [`source`](Self::source) fetches a model given by name.
    pub(crate) fn models(&self) -> Vec<Option<&Path>> {
        match self.model.as_slice() {
            [] => vec![None],
            models => models.iter().map(|path| Some(path.as_path())).collect(),
        }
    }

    /// Source of a model.
    pub(crate) fn source(&self, model: Option<&Path>) -> Result<Source> {
        source(&model.map(Path::to_owned), Need::Weights, false)
    }

    /// Whether tiers are compared.
    pub(crate) fn by_tier(&self) -> bool {
        !self.tier.is_empty()
    }

    /// Types of the caches.
    fn caches(&self) -> Result<&[KvType]> {
        let shown = |types: &[KvType]| types.iter().map(KvType::to_string).collect::<Vec<_>>().join(",");
        match (self.cache_type_k.as_slice(), self.cache_type_v.as_slice()) {
            ([], []) => Ok(&self.kv),
            (keys, values) if keys == values || values.is_empty() => Ok(keys),
            ([], values) => Ok(values),
            (keys, values) => Err(Error::Argument {
                argument: "-ctk and -ctv",
                expected: "the same types, because keys and values have one type".into(),
                found: format!("{} and {}", shown(keys), shown(values)),
            }),
        }
    }

    /// Every test at every depth: prompts, then generation, then both together.
    pub(crate) fn shapes(&self) -> Vec<Shape> {
        let mut shapes = Vec::new();
        for depth in all(&self.n_depth) {
            let of = |prompt, generated| Shape { prompt, generated, depth };
            shapes.extend(all(&self.n_prompt).filter(|&n| n > 0).map(|n| of(n, 0)));
            shapes.extend(all(&self.n_gen).filter(|&n| n > 0).map(|n| of(0, n)));
            shapes.extend(self.pg.iter().map(|&(prompt, generated)| of(prompt, generated)));
        }
        shapes
    }

    /// Tests of several sequences, in llama-batched-bench's order; none without --parallel.
    pub(crate) fn parallel_shapes(&self) -> Vec<ParallelShape> {
        let mut shapes = Vec::new();
        for prompt in all(&self.n_prompt) {
            for generated in all(&self.n_gen).filter(|generated| prompt > 0 || *generated > 0) {
                shapes.extend(all(&self.parallel).map(|sequences| ParallelShape { prompt, generated, sequences }));
            }
        }
        shapes
    }

    /// Whether several sequences are decoded at once.
    pub(crate) fn is_parallel(&self) -> bool {
        !self.parallel.is_empty()
    }

    /// Every combination of pass sizes, threads, cache types and tiers.
    pub(crate) fn all_options(&self) -> Result<Vec<DeviceOptions>> {
        let mut all_options = vec![DeviceOptions {
            device: self.device.clone(),
            level: self.level,
            activations: self.activations.unwrap_or_default(),
            pack: self.pack,
            quant: self.quant,
            force: self.force,
            max_binding: self.max_binding,
            cache: phi3_runner::cache_folder(),
            ..DeviceOptions::default()
        }];
        let rows: Vec<usize> = all(&self.ubatch).collect();
        spread(&mut all_options, &rows, |device_options, rows| device_options.max_rows = Some(*rows));
        spread(&mut all_options, &self.threads, |device_options, threads| device_options.threads = Some(*threads));
        spread(&mut all_options, self.caches()?, |device_options, kv| device_options.kv = Some(*kv));
        spread(&mut all_options, &self.tier, |device_options, tier| device_options.tier = Some(tier.clone()));
        Ok(all_options)
    }
}

/// Replaces each device_options by one per choice; no choices leave the all_options unchanged.
fn spread<T>(all_options: &mut Vec<DeviceOptions>, choices: &[T], set: impl Fn(&mut DeviceOptions, &T)) {
    if choices.is_empty() {
        return;
    }
    let with = |device_options: &DeviceOptions, choice: &T| {
        let mut device_options = device_options.clone();
        set(&mut device_options, choice);
        device_options
    };
    *all_options = all_options
        .iter()
        .flat_map(|device_options| choices.iter().map(move |choice| with(device_options, choice)))
        .collect();
}

/// Default number of threads of the CPU backend.
pub(crate) fn all_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
