//! `phi3-run bench kernels`: every operation at a variant's shapes, as a share of the measured bandwidth and arithmetic rate.

use crate::args::{BenchFormat, Kernels};
use crate::fetch::{self, Need};
use crate::output::{self, Outcome};
use crate::rows::{Record, Table, Writer, plain};
use phi3_model::{Checkpoint, ModelSpec, Slot, variant};
use phi3_runner::Result;
use phi3_runner::kernels::{self, Effort, Kernel, Machine, ModelShape, Op, Plan, Row};
use phi3_tensor::DType;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Default variant.
const VARIANT: &str = "phi-3-mini-4k";

/// Time for all samples of a case.
const TIME: Duration = Duration::from_secs(1);

pub(super) fn kernels(args: &Kernels) -> Result<Outcome> {
    let plan = plan(args)?;
    let without: Vec<&str> = Op::ALL.into_iter().filter(|op| !op.is_of(&plan.shape.spec)).map(|op| op.name()).collect();
    if !without.is_empty() {
        output::note(&format!("note     {}: not in this model, whose feed-forward has experts", without.join(", ")));
    }
    let stop = output::stop_on_ctrl_c();
    let mut out = Writer::new(args.output, Cases);
    let mut told = false;
    let measured = kernels::measure(&args.device_options(), &plan, &mut |machine, row| {
        if !told && args.output == BenchFormat::Md {
            output::print(&format!("{}\n\n", head(machine)))?;
        }
        told = true;
        output::print(&out.row(&record(&plan.shape, machine, &row)))?;
        Ok(if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    if told || measured.is_ok() {
        output::print(&out.end())?;
    }
    measured?;
    Ok(if stop.load(Ordering::Relaxed) { Outcome::Interrupted } else { Outcome::Done })
}

fn plan(args: &Kernels) -> Result<Plan> {
    let (spec, own) = match &args.model {
        None => (variant(args.variant.as_deref().unwrap_or(VARIANT))?, Vec::new()),
        Some(path) => described(path)?,
    };
    let types = if args.types.is_empty() { vec![DType::Bf16] } else { args.types.clone() };
    let named: Vec<Kernel> = types.iter().flat_map(|&dtype| with_weights().map(move |op| (op, Some(dtype)))).collect();
    let mut kernels = if args.types.is_empty() && !own.is_empty() { own } else { named };
    kernels.extend(Op::ALL.into_iter().filter(|op| !op.has_weights()).map(|op| (op, None)));
    let effort = Effort { samples: args.repetitions, time: TIME };
    let shape = ModelShape { spec, context: args.context, kv: args.kv };
    Ok(Plan { shape, kernels, rows: args.rows.clone(), effort })
}

fn with_weights() -> impl Iterator<Item = Op> {
    Op::ALL.into_iter().filter(|op| op.has_weights())
}

/// Sizes of a checkpoint or of a `config.json`, and the types of a checkpoint's weights.
fn described(path: &Path) -> Result<(ModelSpec, Vec<Kernel>)> {
    if path.extension().is_some_and(|extension| extension == "json") {
        return Ok((ModelSpec::read(path)?, Vec::new()));
    }
    let checkpoint = Checkpoint::open(&fetch::path(path, Need::Weights, false)?)?;
    let spec = checkpoint.spec().clone();
    let mut types = Vec::new();
    for op in with_weights().filter(|op| op.is_of(&spec)) {
        for dtype in types_of(&checkpoint, op)? {
            types.push((op, Some(dtype)));
        }
    }
    Ok((spec, types))
}

/// Types of an operation's weights, in the order of the layers.
fn types_of(checkpoint: &Checkpoint, op: Op) -> Result<Vec<DType>> {
    let spec = checkpoint.spec();
    let layers = if op.slot(0) == op.slot(1) { 1 } else { spec.layers.len() };
    let slots = (0..layers).filter_map(|layer| op.slot(layer)).map(|slot| match slot {
        Slot::Head if spec.tie_word_embeddings => Slot::Embedding,
        slot => slot,
    });
    let mut types = Vec::new();
    for slot in slots {
        for weight in checkpoint.matrices(&slot.tensor(spec))? {
            if !types.contains(&weight.dtype) {
                types.push(weight.dtype);
            }
        }
    }
    Ok(types)
}

/// Device, clock and measured limits.
fn head(machine: &Machine) -> String {
    let Machine { device, clock, limits } = machine;
    format!(
        "{device}; {clock}\nlimits: {:.1} GB/s of memory {}, {} of {}",
        limits.bandwidth / 1e9,
        limits.access,
        flops(limits.rate / 1e9),
        limits.numbers
    )
}

fn record(shape: &ModelShape, machine: &Machine, row: &Row) -> Record {
    let limits = machine.limits;
    let speed = row.speed(limits);
    let timing = row.timing.as_ref();
    let measured = |value: Option<f64>| value.map_or(Value::Null, Value::from);
    let Value::Object(record) = json!({
        "device": machine.device,
        "clock": machine.clock.to_string(),
        "limit_gb_per_s": limits.bandwidth / 1e9,
        "limit_access": limits.access,
        "limit_gflop_per_s": limits.rate / 1e9,
        "limit_numbers": limits.numbers,
        "op": row.op.name(),
        "shape": row.work.shape,
        "type": row.kind,
        "rows": row.rows,
        "context": shape.context,
        "copies": row.copies,
        "samples": timing.map_or(0, |timing| timing.samples),
        "runs": timing.map_or(0, |timing| timing.runs),
        "us": measured(timing.ok().map(|timing| timing.seconds * 1e6)),
        "bytes": row.work.bytes,
        "flop": row.work.flops,
        "gb_per_s": measured(speed.map(|speed| speed.bandwidth / 1e9)),
        "gflop_per_s": measured(speed.and_then(|speed| speed.rate).map(|rate| rate / 1e9)),
        "percent_of_bandwidth": measured(speed.map(|speed| speed.of_bandwidth)),
        "percent_of_rate": measured(speed.and_then(|speed| speed.of_rate)),
        "bound": speed.map(|speed| speed.bound.name()),
        "error": timing.err(),
    }) else {
        return Record::new();
    };
    record
}

/// Table with one row per case.
struct Cases;

impl Table for Cases {
    const NAME: &'static str = "kernel";
    const INTEGERS: &'static [&'static str] = &["rows", "context", "copies", "samples", "runs"];
    const REALS: &'static [&'static str] = &[
        "limit_gb_per_s",
        "limit_gflop_per_s",
        "us",
        "bytes",
        "flop",
        "gb_per_s",
        "gflop_per_s",
        "percent_of_bandwidth",
        "percent_of_rate",
    ];

    fn head(&self) -> String {
        "| op           | shape                                | type   | rows |         µs |     GB/s |       arithmetic | of bandwidth | of rate | bound  |\n\
         | ------------ | ------------------------------------ | ------ | ---: | ---------: | -------: | ---------------: | -----------: | ------: | ------ |\n"
            .into()
    }

    fn line(&self, record: &Record) -> String {
        let text = |name: &str| plain(&record[name]);
        let number = |name: &str| record[name].as_f64();
        let start = format!("| {:12} | {:36} | {:6} | {:>4} |", text("op"), text("shape"), text("type"), text("rows"));
        let Some(us) = number("us") else {
            return format!("{start} not measured: {} |\n", text("error").replace('|', "\\|"));
        };
        let share = |name: &str| number(name).map_or_else(String::new, |share| format!("{share:.1} %"));
        format!(
            "{start} {us:>10.2} | {:>8.2} | {:>16} | {:>12} | {:>7} | {:6} |\n",
            number("gb_per_s").unwrap_or(0.0),
            number("gflop_per_s").map_or_else(String::new, flops),
            share("percent_of_bandwidth"),
            share("percent_of_rate"),
            text("bound"),
        )
    }
}

fn flops(giga: f64) -> String {
    if giga < 1000.0 { format!("{giga:.1} GFLOP/s") } else { format!("{:.2} TFLOP/s", giga / 1000.0) }
}
