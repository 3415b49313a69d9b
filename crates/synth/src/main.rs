//! `cargo xtask synth`: a checkpoint with the names, shapes and files of a published one, or a GGUF file, with random weights.
//!
//! For measurements of speed and memory, and for tests of the loader, without a download.

mod config;
mod gguf;
mod random;
mod tensors;
mod write;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use clap::builder::PossibleValuesParser;
use phi3_model::{ModelSpec, QuantScheme};
use serde_json::{Map, Value};

/// Errors are sentences for the user.
type Result<T = (), E = String> = std::result::Result<T, E>;

/// Writes a full-size model with random weights.
#[derive(Parser)]
#[command(name = "cargo xtask synth")]
struct Arguments {
    /// The model whose configuration and tensors are written
    #[arg(value_parser = PossibleValuesParser::new(config::VARIANTS))]
    variant: String,
    /// The folder to write; with --type, the GGUF file
    path: PathBuf,
    /// Write a GGUF file with weights of this type
    #[arg(long = "type")]
    scheme: Option<QuantScheme>,
    /// The same seed gives the same files
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write fewer layers than the model has
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    layers: Option<u64>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result {
    let Arguments { variant, path, scheme, seed, layers } = arguments;
    let (mut config, generation) = config::of(variant)?;
    if let Some(layers) = layers {
        let all = config["num_hidden_layers"].as_u64().unwrap_or(0);
        config["num_hidden_layers"] = Value::from((*layers).min(all));
    }
    if let Some(scheme) = scheme {
        return gguf::write(variant, &config, &generation, path, *scheme, *seed);
    }
    let tensors = tensors::of(&config)?;
    let dtype = random::Dtype::of(config["torch_dtype"].as_str().unwrap_or(""))?;
    let bytes: u64 = tensors.iter().map(|tensor| tensor.elements() * dtype.size()).sum();

    std::fs::create_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))?;
    check_space(path, bytes)?;
    println!("{variant}: {} tensors, {:.2} GB of {}", tensors.len(), bytes as f64 / 1e9, dtype.name());
    write_small_files(path, &config, &generation)?;
    write::checkpoint(path, &tensors, dtype, *seed)
}

/// Writes all files but the weights.
fn write_small_files(folder: &Path, config: &Value, generation: &Value) -> Result {
    write_json(&folder.join("config.json"), config)?;
    write_json(&folder.join("generation_config.json"), generation)?;
    copy_tokenizer(config, folder)
}

/// The model spec of a config.
fn spec(config: &Value) -> Result<ModelSpec> {
    ModelSpec::parse("config.json".as_ref(), config.to_string().as_bytes()).map_err(|error| error.to_string())
}

/// Copies the tokenizer of the tests, for the models that have its vocabulary.
fn copy_tokenizer(config: &Value, folder: &Path) -> Result {
    if config["vocab_size"] != 32_064 {
        println!("no tokenizer is written: the repository has none of this model");
        return Ok(());
    }
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/tokenizer");
    let is_vision = config["model_type"] == "phi3_v";
    let own = data.join(if is_vision { "phi-3-vision" } else { "phi-3" });
    let mut tokenizer = read_json(&data.join("phi-3/tokenizer.json"))?;
    if is_vision {
        tokenizer.extend(read_json(&own.join("tokenizer-overlay.json"))?);
        copy(&own, folder, "preprocessor_config.json")?;
    }
    copy(&own, folder, "tokenizer_config.json")?;
    copy(&own, folder, "special_tokens_map.json")?;
    let file = folder.join("tokenizer.json");
    let text = Value::Object(tokenizer).to_string();
    std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))
}

fn copy(from: &Path, to: &Path, name: &str) -> Result {
    std::fs::copy(from.join(name), to.join(name)).map(|_| ()).map_err(|error| format!("{name}: {error}"))
}

fn read_json(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn write_json(path: &Path, value: &Value) -> Result {
    std::fs::write(path, format!("{value:#}\n")).map_err(|error| format!("{}: {error}", path.display()))
}

fn check_space(folder: &Path, bytes: u64) -> Result {
    let Some(free) = free_bytes(folder) else {
        println!("the free space of the disk is unknown; {:.2} GB are needed", bytes as f64 / 1e9);
        return Ok(());
    };
    // 1 GiB stays free
    let needed = bytes + (1 << 30);
    if free < needed {
        let [needed, free] = [needed, free].map(|bytes| bytes as f64 / 1e9);
        return Err(format!("{} has {free:.2} GB free, {needed:.2} GB are needed", folder.display()));
    }
    Ok(())
}

/// The free space that POSIX `df` prints; `None` if there is no such program.
fn free_bytes(folder: &Path) -> Option<u64> {
    let folder = folder.canonicalize().ok()?;
    let output = Command::new("df").arg("-Pk").arg(folder).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let kibibytes: u64 = text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kibibytes * 1024)
}
