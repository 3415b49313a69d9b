//! `phi3-run bench`: llama-bench's tests, columns and formats.

mod parallel;

use self::parallel::Parallel;
use crate::args::{self, Bench, BenchCommand, BenchFormat};
use crate::fetch;
use crate::kernels;
use crate::output::{self, Outcome};
use crate::rows::{Record, Table, Writer, plain};
use phi3_model::{Checkpoint, Model, type_label};
use phi3_runner::bench::{BenchOptions, Samples, Shape, measure, statistics};
use phi3_runner::{DeviceOptions, Error, Result, RopePolicy, Source, TIERS};
use phi3_tensor::DeviceKind;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) fn bench(args: &Bench) -> Result<Outcome> {
    if let Some(BenchCommand::Kernels(args)) = &args.command {
        return kernels::kernels(args);
    }
    match args.is_parallel() {
        false => Run::new(args, args.output, Tests { by_tier: args.by_tier() }).all(measure_tests),
        true => Run::new(args, parallel::format(args.output), Parallel).all(parallel::measure_tests),
    }
}

/// Commit of the build, or the version if the commit is not known.
const BUILD: &str = match option_env!("PHI3_COMMIT") {
    Some(commit) => commit,
    None => env!("CARGO_PKG_VERSION"),
};

/// Number of commits up to that of the build: not known.
const BUILD_NUMBER: u32 = 0;

/// A run of all tests of a command line.
struct Run<'a, T: Table> {
    args: &'a Bench,
    stop: Arc<AtomicBool>,
    out: Writer<T>,
    outcome: Outcome,
}

/// Runs every test of a model that was loaded with these options.
type RunTests<T> = fn(&mut Run<'_, T>, &Subject, &DeviceOptions, &mut dyn Model) -> Result<()>;

impl<'a, T: Table> Run<'a, T> {
    fn new(args: &'a Bench, format: BenchFormat, table: T) -> Self {
        Self { args, stop: output::stop_on_ctrl_c(), out: Writer::new(format, table), outcome: Outcome::Done }
    }

    /// Runs `tests` for every model with every set of device options.
    fn all(mut self, tests: RunTests<T>) -> Result<Outcome> {
        let args = self.args;
        let all_options = args.all_options()?;
        for path in args.models() {
            let source = match args.source(path) {
                Ok(source) => source,
                Err(error) if fetch::is_stopped(&error) => return Err(error),
                Err(error) => {
                    self.failed(&name(path), error);
                    continue;
                }
            };
            for device_options in &all_options {
                if self.outcome != Outcome::Interrupted {
                    self.subject(path, &source, device_options, tests)?;
                }
            }
        }
        output::print(&self.out.end())?;
        Ok(self.outcome)
    }

    /// Reports an error. Other rows are still measured.
    fn failed(&mut self, what: &str, error: Error) {
        output::note(&format!("{what} left out:"));
        output::complain(&error);
        self.outcome = Outcome::Error;
    }

    /// Loads a model with one set of device options and runs `tests`.
    fn subject(
        &mut self,
        path: Option<&Path>,
        source: &Source,
        device_options: &DeviceOptions,
        tests: RunTests<T>,
    ) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            self.outcome = Outcome::Interrupted;
            return Ok(());
        }
        let loaded = source.checkpoint().and_then(|checkpoint| {
            let loaded = device_options.load(&checkpoint, &mut |_| {})?;
            Ok((Subject::new(path, &checkpoint, device_options, loaded.weights), loaded.model))
        });
        match loaded {
            Ok((subject, mut model)) => tests(self, &subject, device_options, &mut *model),
            Err(error) => {
                self.failed(&name(path), error);
                Ok(())
            }
        }
    }

    /// Options of a test.
    fn options(&self, device_options: &DeviceOptions) -> BenchOptions {
        BenchOptions {
            repetitions: self.args.repetitions,
            warm_up: !self.args.no_warmup,
            chunk: rows(device_options),
            policy: RopePolicy::Ahead,
        }
    }

    /// Function that a measurement asks whether to go on.
    fn watch(&self) -> impl FnMut() -> ControlFlow<()> + use<T> {
        let stop = self.stop.clone();
        move || match stop.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// Runs llama-bench's tests of a model.
fn measure_tests(
    run: &mut Run<'_, Tests>,
    subject: &Subject,
    device_options: &DeviceOptions,
    model: &mut dyn Model,
) -> Result<()> {
    for shape in run.args.shapes() {
        match measure(model, shape, run.options(device_options), &mut run.watch()) {
            Ok(None) => {
                run.outcome = Outcome::Interrupted;
                return Ok(());
            }
            Ok(Some(samples)) => {
                let record = subject.record(device_options, model.device(), &samples);
                output::print(&run.out.row(&record))?;
            }
            Err(error) => run.failed(&format!("{}: {shape}", subject.filename), error),
        }
    }
    Ok(())
}

/// Name of a model in rows and messages.
fn name(path: Option<&Path>) -> String {
    path.map_or_else(|| "demo".to_owned(), |path| path.display().to_string())
}

/// The model that is measured.
struct Subject {
    filename: String,
    /// Architecture, size and type.
    kind: String,
    /// Bytes of the weights as they are loaded.
    bytes: u64,
    parameters: u64,
}

impl Subject {
    fn new(path: Option<&Path>, checkpoint: &Checkpoint, device_options: &DeviceOptions, bytes: u64) -> Self {
        let count = |shape: &[usize]| shape.iter().map(|&d| d as u64).product::<u64>();
        let parameters = checkpoint.tensors().map(|(_, _, shape, _)| count(shape)).sum();
        let kind = format!("phi3 {} {}", billions(parameters), type_label(checkpoint, device_options.quant));
        Self { filename: name(path), kind, bytes, parameters }
    }

    /// llama-bench's fields, in its order.
    fn record(&self, device_options: &DeviceOptions, device: &phi3_tensor::DeviceInfo, samples: &Samples) -> Record {
        let ns: Vec<f64> = samples.ns.iter().map(|&ns| ns as f64).collect();
        let rates = samples.rates();
        let ((avg_ns, stddev_ns), (avg_ts, stddev_ts)) = (statistics(&ns), statistics(&rates));
        let gpu = device.kind != DeviceKind::Cpu;
        let kv = device_options.kv_type().to_string();
        let Value::Object(record) = json!({
            "build_commit": BUILD,
            "build_number": BUILD_NUMBER,
            "cpu_info": processor(),
            "gpu_info": if gpu { device.name.as_str() } else { "" },
            "backends": if gpu { "wgpu" } else { "CPU" },
            "model_filename": self.filename,
            "model_type": self.kind,
            "model_size": self.bytes,
            "model_n_params": self.parameters,
            "n_batch": rows(device_options),
            "n_ubatch": rows(device_options),
            "n_threads": device_options.threads.unwrap_or_else(args::all_threads),
            "cpu_mask": "0x0",
            "cpu_strict": false,
            // llama.cpp's default: waiting threads poll for a while, then sleep
            "poll": 50,
            "type_k": kv,
            "type_v": kv,
            "n_gpu_layers": if gpu { 99 } else { 0 },
            "split_mode": "none",
            "main_gpu": 0,
            "no_kv_offload": false,
            // scores are never stored as a whole
            "flash_attn": true,
            "devices": device.to_string(),
            "tensor_split": "0.00",
            "tensor_buft_overrides": "none",
            "use_mmap": true,
            "embeddings": false,
            "n_prompt": samples.shape.prompt,
            "n_gen": samples.shape.generated,
            "n_depth": samples.shape.depth,
            "test_time": samples.started,
            "avg_ns": avg_ns as u64,
            "stddev_ns": stddev_ns as u64,
            "avg_ts": avg_ts,
            "stddev_ts": stddev_ts,
            "samples_ns": samples.ns,
            "samples_ts": rates,
        }) else {
            return Record::new();
        };
        record
    }
}

/// Tokens per pass, at most.
fn rows(device_options: &DeviceOptions) -> usize {
    device_options.decoder().max_rows
}

fn billions(parameters: u64) -> String {
    match parameters {
        0..1_000_000_000 => format!("{:.0}M", parameters as f64 / 1e6),
        _ => format!("{:.1}B", parameters as f64 / 1e9),
    }
}

/// Name of the processor, or its architecture if the system does not report a name.
fn processor() -> String {
    let named = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    named.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// llama-bench's columns, and one for the tier if tiers are compared.
struct Tests {
    by_tier: bool,
}

impl Tests {
    /// Cell of the tier column; empty if tiers are not compared.
    fn tier(&self, cell: &str) -> String {
        if self.by_tier { format!(" {cell:>8} |") } else { String::new() }
    }
}

impl Table for Tests {
    const NAME: &'static str = "llama_bench";
    const INTEGERS: &'static [&'static str] = &[
        "build_number",
        "model_size",
        "model_n_params",
        "n_batch",
        "n_ubatch",
        "n_threads",
        "cpu_strict",
        "poll",
        "n_gpu_layers",
        "main_gpu",
        "no_kv_offload",
        "flash_attn",
        "use_mmap",
        "embeddings",
        "n_prompt",
        "n_gen",
        "n_depth",
        "avg_ns",
        "stddev_ns",
    ];
    const REALS: &'static [&'static str] = &["avg_ts", "stddev_ts"];

    fn head(&self) -> String {
        let (name, line) = (self.tier("tier"), self.tier("-------:"));
        format!(
            "| model                    |       size |     params | backend    | threads |   kv |{name}            test |                  t/s |\n\
             | ------------------------ | ---------: | ---------: | ---------- | ------: | ---: |{line} --------------: | -------------------: |\n"
        )
    }

    fn line(&self, record: &Record) -> String {
        // the device names the tier in use, which is below the requested one if that failed its self-check
        let device = plain(&record["devices"]);
        let tier = TIERS.into_iter().find(|tier| device.contains(&format!("{tier} kernels"))).unwrap_or("");
        markdown(record, &self.tier(tier))
    }

    fn foot(&self) -> String {
        format!("\nbuild: {BUILD} ({BUILD_NUMBER})\n")
    }
}

fn markdown(record: &Record, tier: &str) -> String {
    let number = |name: &str| record[name].as_f64().unwrap_or(0.0);
    let count = |name: &str| record[name].as_u64().unwrap_or(0) as usize;
    let shape = Shape { prompt: count("n_prompt"), generated: count("n_gen"), depth: count("n_depth") };
    let size = number("model_size");
    let size =
        if size < 1e9 { format!("{:.2} MiB", size / 1048576.0) } else { format!("{:.2} GiB", size / 1073741824.0) };
    let parameters = number("model_n_params");
    let parameters =
        if parameters < 1e9 { format!("{:.2} M", parameters / 1e6) } else { format!("{:.2} B", parameters / 1e9) };
    format!(
        "| {:24} | {size:>10} | {parameters:>10} | {:10} | {:>7} | {:>4} |{tier} {:>15} | {:>20} |\n",
        plain(&record["model_type"]),
        plain(&record["backends"]),
        plain(&record["n_threads"]),
        plain(&record["type_k"]),
        shape.to_string(),
        format!("{:.2} ± {:.2}", number("avg_ts"), number("stddev_ts")),
    )
}

/// Parses two numbers separated by a comma.
pub(super) fn pair(text: &str) -> std::result::Result<(usize, usize), String> {
    let both = text.split_once(',').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    both.filter(|&(a, b)| a > 0 || b > 0)
        .ok_or_else(|| "expected a prompt's length and a number of tokens: 512,128".into())
}

/// Long form of llama.cpp's options of several letters after one dash.
pub(super) fn long_option(word: &str) -> Option<&'static str> {
    Some(match word {
        "-pg" => "--pg",
        "-ub" => "--ubatch",
        "-np" => "--parallel",
        "-ctk" => "--cache-type-k",
        "-ctv" => "--cache-type-v",
        "-ngl" => "--n-gpu-layers",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let subject = Subject {
            filename: "a \"b\".gguf".into(),
            kind: "phi3 3.8B Q4_0".into(),
            bytes: 2_150_000_000,
            parameters: 3_820_000_000,
        };
        let device =
            phi3_tensor::DeviceInfo { kind: DeviceKind::Cpu, name: "CPU".into(), detail: "AVX2, 2 threads".into() };
        let samples = Samples {
            shape: Shape { prompt: 512, generated: 0, depth: 0 },
            started: "2026-01-02T03:04:05Z".into(),
            ns: vec![1_000_000_000, 2_000_000_000],
        };
        subject.record(&DeviceOptions { threads: Some(2), ..DeviceOptions::default() }, &device, &samples)
    }

    #[test]
    fn formats_are_read_as_what_they_are() {
        let of = |format| {
            let mut writer = Writer::new(format, Tests { by_tier: false });
            format!("{}{}{}", writer.row(&record()), writer.row(&record()), writer.end())
        };
        let json: Value = serde_json::from_str(&of(BenchFormat::Json)).expect("JSON");
        assert_eq!((json[1]["avg_ts"].as_f64(), json[0]["n_prompt"].as_u64()), (Some(384.0), Some(512)));
        assert_eq!(
            of(BenchFormat::Jsonl).lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count(),
            2
        );
        // fields that llama.cpp's scripts/compare-llama-bench.py reads
        for key in "cpu_info gpu_info backends n_gpu_layers tensor_buft_overrides model_filename model_type n_batch n_ubatch \
                    embeddings cpu_mask cpu_strict poll n_threads type_k type_v use_mmap no_kv_offload split_mode main_gpu \
                    tensor_split flash_attn n_prompt n_gen n_depth build_commit test_time avg_ts"
            .split_whitespace()
        {
            assert!(!json[0][key].is_null(), "{key}");
        }
        // every numeric column is declared
        for (name, value) in &record() {
            let declared = Tests::INTEGERS.contains(&name.as_str()) || Tests::REALS.contains(&name.as_str());
            assert_eq!(declared, value.is_number() || value.is_boolean(), "{name}");
        }
        let csv = of(BenchFormat::Csv);
        assert_eq!(csv.lines().count(), 3);
        assert!(csv.contains("\"a \"\"b\"\".gguf\"") && csv.lines().all(|line| !line.contains("samples")));
        let sql = of(BenchFormat::Sql);
        assert!(sql.matches("INSERT INTO llama_bench (build_commit, ").count() == 2 && sql.contains("avg_ts REAL"));
        let md = of(BenchFormat::Md);
        assert!(md.lines().count() == 6 && md.ends_with(&format!("\n\nbuild: {BUILD} (0)\n")), "{md}");
        assert!(md.contains(" 384.00 ± 181.02 |"), "{md}");
    }
}
