//! `quantize` and `inspect`: checkpoints as files.

use crate::args::{self, Inspect, Quantize};
use crate::fetch::{self, Need};
use crate::output::{self, Outcome};
use phi3_runner::{Result, Source};
use serde_json::json;
use std::sync::atomic::Ordering;

/// `phi3-run quantize`
pub(super) fn quantize(args: &Quantize) -> Result<Outcome> {
    let source = Source::Path(fetch::path(&args.input, Need::Weights, args.quiet)?);
    let bar = output::bar("writing", args.quiet);
    let stop = output::stop_on_ctrl_c();
    let mut notes = Vec::new();
    let complete = phi3_runner::quantize(&source, args.scheme, &args.output, &mut notes, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        !stop.load(Ordering::Relaxed)
    });
    bar.finish_and_clear();
    output::notes(&notes, args.quiet);
    if !complete? {
        output::note("interrupted: nothing was written");
        return Ok(Outcome::Interrupted);
    }
    if !args.quiet {
        let bytes = std::fs::metadata(&args.output).map_or(0, |file| file.len());
        let shown = args.output.display();
        output::note(&format!("wrote    {shown}: {} by {}", output::size(bytes), args.scheme));
    }
    Ok(Outcome::Done)
}

/// `phi3-run inspect`
pub(super) fn inspect(args: &Inspect) -> Result<Outcome> {
    let source = args::source(&args.path, Need::Weights, false)?;
    let checkpoint = source.checkpoint()?;
    output::notes(checkpoint.notes(), false);
    let spec = checkpoint.spec();
    let metadata = checkpoint.metadata();
    let keys = || metadata.into_iter().flat_map(|metadata| metadata.keys().map(move |key| (metadata, key)));
    if args.json {
        let tensors: Vec<_> = checkpoint
            .tensors()
            .map(|(name, dtype, shape, bytes)| json!({ "name": name, "type": dtype, "shape": shape, "bytes": bytes }))
            .collect();
        let metadata: serde_json::Map<_, _> =
            keys().map(|(metadata, key)| (key.to_owned(), metadata.json(key))).collect();
        output::print(&format!(
            "{}\n",
            json!({ "metadata": metadata, "tensors": tensors, "bytes": checkpoint.bytes() })
        ))?;
        return Ok(Outcome::Done);
    }
    for (metadata, key) in keys() {
        output::print(&format!("{key:48} {}\n", metadata.display(key)))?;
    }
    let heads = spec.heads;
    output::print(&format!(
        "Phi-3 decoder: {} layers, width {}, {} query and {} key heads of {}, feed-forward {}, {} tokens, context {}\n",
        spec.layers.len(),
        spec.hidden_size,
        heads.heads,
        heads.kv_heads,
        heads.head_dim,
        spec.widest_mlp(),
        spec.vocab_size,
        spec.max_position_embeddings,
    ))?;
    let (mut values, mut bytes) = (0u64, 0u64);
    let mut by_type = std::collections::BTreeMap::<&str, (u64, u64)>::new();
    for (name, dtype, shape, size) in checkpoint.tensors() {
        let dims = shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
        output::print(&format!("{name:48} {dtype:8} {dims:>16} {:>12}\n", output::size(size)))?;
        let count = shape.iter().map(|&d| d as u64).product::<u64>();
        (values, bytes) = (values + count, bytes + size);
        let of_type = by_type.entry(dtype).or_default();
        *of_type = (of_type.0 + 1, of_type.1 + size);
    }
    for (dtype, (tensors, size)) in by_type {
        output::print(&format!("{dtype:8} {tensors:5} tensors {:>12}\n", output::size(size)))?;
    }
    let bits = 8.0 * bytes as f64 / values.max(1) as f64;
    output::print(&format!("{values} values, {}, {bits:.2} bits a value\n", output::size(bytes)))?;
    Ok(Outcome::Done)
}
