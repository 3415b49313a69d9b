//! `phi3-run bench --parallel`: llama-batched-bench's tests, columns and fields.

use super::{BUILD, BUILD_NUMBER, Run, Subject, rows};
use crate::args::{self, BenchFormat};
use crate::output::{self, Outcome};
use crate::rows::{Record, Table};
use phi3_model::Model;
use phi3_runner::bench::{ParallelSample, ParallelShape, measure_parallel};
use phi3_runner::{DeviceOptions, Result};
use phi3_tensor::{DeviceInfo, DeviceKind};
use serde_json::{Value, json};

/// The format that is printed: JSON is one object per line, as that of llama-batched-bench.
pub(super) fn format(format: BenchFormat) -> BenchFormat {
    match format {
        BenchFormat::Json => BenchFormat::Jsonl,
        other => other,
    }
}

/// Runs every test of a model.
pub(super) fn measure_tests(
    run: &mut Run<'_, Parallel>,
    subject: &Subject,
    device_options: &DeviceOptions,
    model: &mut dyn Model,
) -> Result<()> {
    let shapes = run.args.parallel_shapes();
    let largest = shapes.iter().map(|shape| shape.positions()).max().unwrap_or(0);
    output::print(&run.out.section(&title(subject, device_options, model.device())))?;
    for shape in shapes {
        match measure_parallel(model, shape, run.options(device_options), &mut run.watch()) {
            Ok(None) => {
                run.outcome = Outcome::Interrupted;
                return Ok(());
            }
            Ok(Some(sample)) => {
                let record = record(subject, device_options, model.device(), largest, &sample);
                output::print(&run.out.row(&record))?;
            }
            Err(error) => run.failed(&format!("{}: {shape}", subject.filename), error),
        }
    }
    Ok(())
}

/// The model and its settings, which are not columns of the table.
fn title(subject: &Subject, device_options: &DeviceOptions, device: &DeviceInfo) -> String {
    let Subject { filename, kind, .. } = subject;
    let (kv, rows) = (device_options.kv_type(), rows(device_options));
    format!("{filename}: {kind}, {device}, KV cache {kv}, {rows} tokens per pass")
}

/// llama-batched-bench's fields in its order, then the model and its settings. `largest` is the number of positions of the largest
/// test: the KV cache grows to it.
fn record(
    subject: &Subject,
    device_options: &DeviceOptions,
    device: &DeviceInfo,
    largest: usize,
    sample: &ParallelSample,
) -> Record {
    let ParallelShape { prompt, generated, sequences } = sample.shape;
    let threads = device_options.threads.unwrap_or_else(args::all_threads);
    let kv = device_options.kv_type().to_string();
    let Value::Object(record) = json!({
        "n_kv_max": largest,
        "n_batch": rows(device_options),
        "n_ubatch": rows(device_options),
        // scores are never stored as a whole
        "flash_attn": 1,
        "is_pp_shared": 0,
        "n_gpu_layers": if device.kind == DeviceKind::Cpu { 0 } else { 99 },
        "n_threads": threads,
        "n_threads_batch": threads,
        "pp": prompt,
        "tg": generated,
        "pl": sequences,
        "n_kv": sample.shape.positions(),
        "t_pp": sample.prompt.as_secs_f64(),
        "speed_pp": sample.prompt_rate(),
        "t_tg": sample.generated.as_secs_f64(),
        "speed_tg": sample.generated_rate(),
        "t": sample.total().as_secs_f64(),
        "speed": sample.rate(),
        "model_filename": subject.filename,
        "model_type": subject.kind,
        "type_k": kv,
        "type_v": kv,
        "devices": device.to_string(),
    }) else {
        return Record::new();
    };
    record
}

/// llama-batched-bench's columns.
pub(super) struct Parallel;

impl Table for Parallel {
    const NAME: &'static str = "llama_batched_bench";
    const INTEGERS: &'static [&'static str] = &[
        "n_kv_max",
        "n_batch",
        "n_ubatch",
        "flash_attn",
        "is_pp_shared",
        "n_gpu_layers",
        "n_threads",
        "n_threads_batch",
        "pp",
        "tg",
        "pl",
        "n_kv",
    ];
    const REALS: &'static [&'static str] = &["t_pp", "speed_pp", "t_tg", "speed_tg", "t", "speed"];

    fn head(&self) -> String {
        let names =
            "|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |";
        let line =
            "|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|";
        format!("{names}\n{line}\n")
    }

    fn line(&self, record: &Record) -> String {
        let count = |name: &str| record[name].as_u64().unwrap_or(0);
        let number = |name: &str| record[name].as_f64().unwrap_or(0.0);
        let phase = |time: &str, speed: &str| format!(" {:8.3} | {:8.2} |", number(time), number(speed));
        format!(
            "|{:6} | {:6} | {:4} | {:6} |{}{}{}\n",
            count("pp"),
            count("tg"),
            count("pl"),
            count("n_kv"),
            phase("t_pp", "speed_pp"),
            phase("t_tg", "speed_tg"),
            phase("t", "speed"),
        )
    }

    fn foot(&self) -> String {
        format!("\nbuild: {BUILD} ({BUILD_NUMBER})\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Writer;
    use std::time::Duration;

    fn record() -> Record {
        let subject =
            Subject { filename: "a.gguf".into(), kind: "phi3 3.8B Q4_0".into(), bytes: 1, parameters: 3_820_000_000 };
        let device = DeviceInfo { kind: DeviceKind::Cpu, name: "CPU".into(), detail: "AVX2, 2 threads".into() };
        let shape = ParallelShape { prompt: 128, generated: 64, sequences: 4 };
        let sample = ParallelSample { shape, prompt: Duration::from_secs(2), generated: Duration::from_millis(500) };
        super::record(&subject, &DeviceOptions::default(), &device, 1536, &sample)
    }

    #[test]
    fn rows_are_those_of_llama_batched_bench() {
        let mut writer = Writer::new(BenchFormat::Md, Parallel);
        let text = format!("{}{}{}", writer.section("one"), writer.row(&record()), writer.section("two"));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[1], lines[5], lines[6]), ("one", "", "", "two"));
        let row =
            "|   128 |     64 |    4 |    768 |    2.000 |   256.00 |    0.500 |   512.00 |    2.500 |   307.20 |";
        assert!(lines[4] == row && lines[2..4].iter().all(|line| line.len() == row.len()), "{text}");
        // a table below every title
        assert!(writer.row(&record()).starts_with("|    PP |"));
        assert_eq!(Writer::new(BenchFormat::Csv, Parallel).section("one"), "");
    }

    #[test]
    fn every_numeric_column_is_declared() {
        for (name, value) in &record() {
            let declared = Parallel::INTEGERS.contains(&name.as_str()) || Parallel::REALS.contains(&name.as_str());
            assert_eq!(declared, value.is_number(), "{name}");
        }
        assert_eq!(record()["n_kv_max"], 1536);
        assert_eq!((format(BenchFormat::Json), format(BenchFormat::Md)), (BenchFormat::Jsonl, BenchFormat::Md));
    }
}
