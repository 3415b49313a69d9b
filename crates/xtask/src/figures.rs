//! `cargo xtask gpu-figures`: tests and measurements of a GPU, in one folder.
//!
//! Tests of the kernels, the adapter, every operation, a full-size model with random weights on every tier, and a profile of
//! it. Each step has a time limit. A failed step is recorded, and the others still run.

mod steps;
mod summary;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Result;
use crate::process::{cargo, command, output, root};
use steps::{Step, minutes};

/// Kernel tiers, lowest first.
const TIERS: [&str; 4] = ["base", "f16", "subgroup", "coop"];

/// Kinds of adapters, best first.
const KINDS: [&str; 5] = ["discrete", "integrated", "virtual", "other", "software"];

/// The measured variant. Its context is long enough for the depths, and every Phi-3-mini has its shapes.
const VARIANT: &str = "phi-3-mini-128k";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The folder to write
    #[arg(long, value_name = "DIR", default_value = "gpu-figures")]
    out: PathBuf,
    /// The adapter's number in `phi3-run devices` [default: the best]
    #[arg(long, value_name = "N")]
    adapter: Option<u64>,
    /// Tiny sizes, to try the command itself; a software adapter is enough
    #[arg(long)]
    quick: bool,
    /// Keep the generated models
    #[arg(long)]
    keep: bool,
}

/// An adapter, as `phi3-run devices` describes it.
struct Adapter {
    index: u64,
    name: String,
    tiers: Vec<&'static str>,
}

/// A measured model.
struct Model {
    name: &'static str,
    path: PathBuf,
    /// Quantization while loading.
    quant: Option<&'static str>,
}

pub(crate) fn run(arguments: &Arguments) -> Result {
    let start = Instant::now();
    let out = std::path::absolute(&arguments.out).map_err(|error| format!("{}: {error}", arguments.out.display()))?;
    std::fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let mut figures = Figures { quick: arguments.quick, program: program()?, done: Vec::new(), out };
    figures.cargo("build", &["build", "--release", "-p", "phi3-cli"], &[], minutes(60));
    let listed = figures.phi3_run("devices", "json", &["devices", "--json"], minutes(2));
    figures.phi3_run("devices", "txt", &["devices"], minutes(2));
    let adapter = match listed.as_deref().map(|file| adapter(file, arguments.adapter)) {
        Some(Ok(adapter)) => Some(adapter),
        Some(Err(reason)) => {
            println!("{reason}");
            None
        }
        None => None,
    };
    if let Some(adapter) = &adapter {
        println!("gpu:{} {}: tiers {}", adapter.index, adapter.name, adapter.tiers.join(", "));
        figures.tests(adapter);
        figures.kernels(adapter);
        let folder = figures.out.join("models");
        let models = figures.models(&folder);
        figures.speeds(adapter, &models);
        if !arguments.keep {
            // a failure only costs disk space
            let _ = std::fs::remove_dir_all(&folder);
        }
    }
    let commit = output(command("git").args(["rev-parse", "--short", "HEAD"])).unwrap_or_default();
    let text = summary::text(&figures.out, commit.trim(), figures.quick, &figures.done, start.elapsed());
    let file = figures.out.join("summary.md");
    std::fs::write(&file, &text).map_err(|error| format!("{}: {error}", file.display()))?;
    println!("\n{text}\n{}", file.display());
    if adapter.is_none() {
        return Err("no adapter could be measured; `cargo xtask test` installs or explains a software one".into());
    }
    Ok(())
}

/// Path of the measured program, in cargo's target folder.
fn program() -> Result<PathBuf> {
    let text = output(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let target = metadata["target_directory"].as_str().ok_or("cargo metadata names no target folder")?;
    Ok(Path::new(target).join("release").join(format!("phi3-run{}", std::env::consts::EXE_SUFFIX)))
}

/// The adapter with this number, or the best one, and its tiers.
fn adapter(file: &Path, index: Option<u64>) -> Result<Adapter> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let listed: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let usable = |adapter: &&Value| {
        adapter["tier"].is_string() && index.is_none_or(|index| adapter["index"].as_u64() == Some(index))
    };
    let place = |adapter: &&Value| KINDS.iter().position(|kind| adapter["kind"] == *kind).unwrap_or(KINDS.len());
    let found = listed["gpu"].as_array().into_iter().flatten().filter(usable).min_by_key(place);
    let found = found.ok_or("there is no such adapter, or none that can run the kernels")?;
    let has = |tier: &&str| match *tier {
        "base" => true,
        "f16" => found["f16"] == true,
        "subgroup" => found["subgroup"].is_array(),
        tier => found["tier"] == tier,
    };
    Ok(Adapter {
        index: found["index"].as_u64().unwrap_or(0),
        name: found["name"].as_str().unwrap_or_default().to_owned(),
        tiers: TIERS.into_iter().filter(has).collect(),
    })
}

/// The figures so far.
struct Figures {
    quick: bool,
    program: PathBuf,
    out: PathBuf,
    done: Vec<Step>,
}

impl Figures {
    /// The size for real figures, or the tiny one.
    fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Runs a step; returns its output file if it succeeded.
    fn step(
        &mut self,
        name: &str,
        ending: &str,
        command: &mut std::process::Command,
        limit: Duration,
    ) -> Option<PathBuf> {
        println!("== {name}");
        let file = self.out.join(format!("{name}.{ending}"));
        let step = steps::run(name, command, &file, limit);
        println!("== {name}: {} after {:.1} s", step.outcome, step.time.as_secs_f64());
        let ok = step.ok();
        self.done.push(step);
        ok.then_some(file)
    }

    fn cargo(&mut self, name: &str, arguments: &[&str], environment: &[(&str, &str)], limit: Duration) {
        let mut command = cargo();
        command.args(arguments).envs(environment.iter().copied());
        self.step(name, "txt", &mut command, limit);
    }

    fn phi3_run(&mut self, name: &str, ending: &str, arguments: &[&str], limit: Duration) -> Option<PathBuf> {
        let mut command = command(&self.program.display().to_string());
        command.args(arguments);
        self.step(name, ending, &mut command, limit)
    }

    /// Tests of the operations and the goldens, on every tier of the adapter.
    fn tests(&mut self, adapter: &Adapter) {
        let environment = [("PHI3_GPU", "require"), ("PHI3_ADAPTER", adapter.name.as_str())];
        let operations = ["test", "--release", "-p", "phi3-tensor", "--features", "gpu,reference", "--no-fail-fast"];
        let few = ["--test", "gpu", "--", "pieces"];
        let all = ["--test", "gpu", "--test", "sample", "--", "--nocapture"];
        let which: &[&str] = self.size(&all, &few);
        self.cargo("test-operations", &[&operations, which].concat(), &environment, minutes(45));
        let goldens = ["test", "--release", "-p", "phi3-tests", "--test", "root", "--no-fail-fast", "--"];
        let which: &[&str] = self.size(&["golden", "pipeline", "counters", "--nocapture"], &["golden::whole"]);
        self.cargo("test-goldens", &[&goldens, which].concat(), &environment, minutes(45));
    }

    /// Measures every operation on every tier.
    fn kernels(&mut self, adapter: &Adapter) {
        let device = format!("gpu:{}", adapter.index);
        let types = self.size("bf16,f16,q8_0,q4_k,q4_0", "bf16,q4_0");
        let (rows, repetitions) = (self.size("1,4,128,512", "1,4"), self.size("20", "2"));
        let tiers = self.size(adapter.tiers.as_slice(), &adapter.tiers[adapter.tiers.len() - 1..]).to_vec();
        for tier in tiers {
            let shapes = ["bench", "kernels", "--variant", VARIANT, "--type", types, "--rows", rows];
            let machine = ["--device", &device, "--tier", tier, "-r", repetitions, "-o", "jsonl"];
            self.phi3_run(&format!("kernels-{tier}"), "jsonl", &[&shapes[..], &machine].concat(), minutes(20));
        }
    }

    /// Generates the models.
    fn models(&mut self, folder: &Path) -> Vec<Model> {
        let plain = folder.join("bf16");
        let Ok(this) = std::env::current_exe() else { return Vec::new() };
        let mut synth = command(&this.display().to_string());
        synth.args(["synth", VARIANT]).arg(&plain);
        if self.quick {
            synth.args(["--layers", "1"]);
        }
        if self.step("synth", "txt", &mut synth, minutes(30)).is_none() {
            return Vec::new();
        }
        let mut models = vec![
            Model { name: "bf16", path: plain.clone(), quant: None },
            Model { name: "f16", path: plain.clone(), quant: Some("f16") },
        ];
        for name in ["q4_0", "q4_k_m"] {
            let path = folder.join(format!("{name}.gguf"));
            let (from, to) = (plain.display().to_string(), path.display().to_string());
            let quantized = self.phi3_run(
                &format!("quantize-{name}"),
                "txt",
                &["quantize", &from, &to, "--type", name],
                minutes(40),
            );
            if quantized.is_some() {
                models.push(Model { name, path, quant: None });
            }
        }
        for model in &models {
            let path = model.path.display().to_string();
            self.phi3_run(&format!("inspect-{}", model.name), "json", &["inspect", "--json", &path], minutes(2));
        }
        models
    }

    /// Measures prompts and tokens on every tier; on the best tier also an answer and a profile.
    fn speeds(&mut self, adapter: &Adapter, models: &[Model]) {
        let device = format!("gpu:{}", adapter.index);
        let best = adapter.tiers.last().copied().unwrap_or("base");
        for model in models {
            let path = model.path.display().to_string();
            let mut common = vec!["-m", &path, "--device", &device];
            common.extend(model.quant.into_iter().flat_map(|quant| ["--quant", quant]));
            let size = self.size(
                ["-p", "512", "-n", "128", "-d", "0,4096", "-r", "3", "-o", "jsonl"],
                ["-p", "16", "-n", "2", "-d", "0,16", "-r", "1", "-o", "jsonl"],
            );
            for tier in &adapter.tiers {
                let arguments = [&["bench"], &common[..], &["--tier", tier], &size].concat();
                self.phi3_run(&format!("bench-{}-{tier}", model.name), "jsonl", &arguments, minutes(15));
            }
            let tokens = self.size("256", "4");
            let greedy = ["--tier", best, "--greedy", "--ignore-eos", "--json", "--quiet", "--max-tokens", tokens];
            let arguments = [&["generate", "--ids", "1 2 3 4 5 6 7 8"], &common[..], &greedy].concat();
            self.phi3_run(&format!("generate-{}", model.name), "json", &arguments, minutes(10));
            if model.quant.is_none() {
                let svg = self.out.join(format!("profile-{}.svg", model.name)).display().to_string();
                let size = self.size(["-p", "512", "-n", "32"], ["-p", "16", "-n", "2"]);
                let arguments = [&["profile"], &common[..], &["--tier", best, "--svg", &svg], &size].concat();
                self.phi3_run(&format!("profile-{}", model.name), "txt", &arguments, minutes(10));
            }
        }
    }
}

/// Removes the workspace's path from a report.
fn short(text: &str) -> String {
    text.replace(&format!("{}{}", root().display(), std::path::MAIN_SEPARATOR), "")
}
