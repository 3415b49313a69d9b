//! `cargo xtask synth`: a checkpoint with the names, shapes and files of a published one, and random weights.
//!
//! For measurements of speed and memory and tests of the loader, without a download.

mod config;
mod random;
mod tensors;
mod write;

use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value};

use crate::Result;
use crate::process::{output, root};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model whose configuration and tensors are written
    #[arg(value_parser = PossibleValuesParser::new(config::VARIANTS))]
    variant: String,
    /// The folder to write
    folder: PathBuf,
    /// Seed of the weights; the same seed gives the same files
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write fewer layers than the model has
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    layers: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result {
    let Arguments { variant, folder, seed, layers } = arguments;
    let (mut config, generation) = config::of(variant)?;
    if let Some(layers) = layers {
        let all = config["num_hidden_layers"].as_u64().unwrap_or(0);
        config["num_hidden_layers"] = Value::from((*layers).min(all));
    }
    let tensors = tensors::of(&config)?;
    let dtype = random::Dtype::of(config["torch_dtype"].as_str().unwrap_or(""))?;
    let bytes: u64 = tensors.iter().map(|tensor| tensor.elements() * dtype.size()).sum();

    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    check_space(folder, bytes)?;
    println!("{variant}: {} tensors, {:.2} GB of {}", tensors.len(), bytes as f64 / 1e9, dtype.name());
    write_json(&folder.join("config.json"), &config)?;
    write_json(&folder.join("generation_config.json"), &generation)?;
    copy_tokenizer(&config, folder)?;
    write::checkpoint(folder, &tensors, dtype, *seed)
}

/// Copies the tokenizer of the tests, for models with its vocabulary.
fn copy_tokenizer(config: &Value, folder: &Path) -> Result {
    if config["vocab_size"] != 32_064 {
        println!("no tokenizer is written: this model's is not in the repository");
        return Ok(());
    }
    let data = root().join("tests/data/tokenizer");
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
        println!("the free disk space is unknown; {:.2} GB are needed", bytes as f64 / 1e9);
        return Ok(());
    };
    // 1 GiB is left free
    let needed = bytes + (1 << 30);
    if free < needed {
        let [needed, free] = [needed, free].map(|bytes| bytes as f64 / 1e9);
        return Err(format!("{} has {free:.2} GB free, {needed:.2} GB are needed", folder.display()));
    }
    Ok(())
}

/// Free bytes by POSIX `df`; `None` without it.
fn free_bytes(folder: &Path) -> Option<u64> {
    let folder = folder.canonicalize().ok()?;
    let text = output(std::process::Command::new("df").arg("-Pk").arg(folder)).ok()?;
    let kibibytes: u64 = text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kibibytes * 1024)
}
