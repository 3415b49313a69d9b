//! `logits` and `verify`: exact outputs of a model.

use crate::args::{Logits, ModelArgs, Verify};
use crate::ask;
use crate::load;
use crate::output::{self, Outcome};
use phi3_runner::verify::{self, Golden, Hidden, VerifyOptions};
use phi3_runner::{Error, Result, RopePolicy, Source};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// `phi3-run logits`
pub(super) fn logits(args: &Logits) -> Result<Outcome> {
    let input = ask::input(&args.input)?;
    let engine = load::engine(&args.model.exact())?;
    let ids = ask::input_ids(&engine, &input)?;
    if ids.is_empty() {
        return Err(Error::EmptyPrompt { hint: "give some text or ids" });
    }
    let (vocab, width) = (engine.spec().vocab_size, engine.spec().hidden_size);
    let (count, wants_hidden, chunk, policy) = (ids.len(), args.hidden, args.model.chunk(), args.model.longrope);
    let computed = engine.with_model(move |model| {
        let mut hidden = Hidden::new();
        let logits = verify::logits(model, &ids, chunk, policy, wants_hidden.then_some(&mut hidden))?;
        Ok((logits, hidden))
    })?;
    let (logits, hidden) = computed.map_err(|error| engine.source().explain(error))?;
    let mut tensors = vec![("logits".to_owned(), vec![count, vocab], logits)];
    tensors.extend(hidden.into_iter().map(|(name, rows)| (name, vec![count, width], rows)));
    write(&args.out, &tensors)?;
    if !args.model.quiet {
        output::note(&format!("wrote    {count} tokens to {}", args.out.display()));
    }
    Ok(Outcome::Done)
}

/// Writes f32 tensors as safetensors. An existing file is overwritten in place, so pipes and devices work, too.
fn write(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Result<()> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape, values) in tensors {
        let begin = end;
        end += 4 * values.len();
        header.insert(name.clone(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, end] }));
    }
    let mut header = serde_json::Value::Object(header).to_string();
    // the data begins at a multiple of eight
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for value in tensors.iter().flat_map(|(_, _, values)| values) {
            file.write_all(&value.to_le_bytes())?;
        }
        file.flush()
    };
    write().map_err(|error: std::io::Error| Error::File {
        action: "write",
        path: path.to_owned(),
        source: error.into(),
        hint: "does the folder exist, and is there room?",
    })
}

/// `phi3-run verify`
pub(super) fn verify(args: &Verify) -> Result<Outcome> {
    if args.golden.is_none() && args.model.model.is_none() {
        return Err(Error::Argument {
            argument: "--golden",
            expected: "the folder of a golden (the demo model has none)".into(),
            found: "nothing".into(),
        });
    }
    let wrong =
        |argument, expected: &str, found: String| Error::Argument { argument, expected: expected.into(), found };
    if args.model.longrope != RopePolicy::Exact {
        return Err(wrong("--longrope", "exact: goldens follow the reference", format!("{:?}", args.model.longrope)));
    }
    if let Some(tolerance) = args.tolerance.filter(|t| !(t.is_finite() && *t >= 0.0)) {
        return Err(wrong("--tolerance", "a number of at least 0", tolerance.to_string()));
    }
    let source = args.model.source()?;
    let golden = Golden::read(args.golden.as_deref().unwrap_or_else(|| source.path()))?;
    let loaded = load(&source, &args.model.exact())?;
    let mut model = loaded.model;
    let on_cpu = model.device().kind == phi3_tensor::DeviceKind::Cpu;
    let tolerance = args.tolerance.unwrap_or(if on_cpu { 1e-4 } else { 2e-4 });
    let report = verify::verify(&mut *model, &golden, VerifyOptions { tolerance, chunk: args.model.chunk() })
        .map_err(|error| source.explain(error))?;
    output::print(&report.to_string())?;
    if report.checks.is_empty() {
        output::note("the golden holds nothing to compare");
    }
    let ok = report.ok();
    let verdict = if ok { "all checks passed" } else { "FAILED" };
    output::print(&format!("{verdict} (logits within {tolerance:.0e} on {})\n", loaded.reason))?;
    Ok(if ok { Outcome::Done } else { Outcome::Failed })
}

fn load(source: &Source, args: &ModelArgs) -> Result<phi3_runner::LoadedModel> {
    let checkpoint = source.checkpoint()?;
    output::notes(checkpoint.notes(), args.quiet);
    args.device_options().load(&checkpoint, &mut |_| {})
}
