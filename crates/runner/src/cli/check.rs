//! `logits` and `verify`: what a model computes, exactly.

use super::args::{self, Logits, ModelArgs, Verify};
use super::ask;
use super::output::{self, Outcome};
use phi3_runner::verify::{self, Golden, Hidden, VerifyOptions};
use phi3_runner::{Error, Result};
use safetensors::tensor::{Dtype, TensorView};
use std::path::Path;

/// `phi3-run logits`
pub(super) fn logits(args: &Logits) -> Result<Outcome> {
    let input = ask::input(&args.input)?;
    let mut engine = output::load(&args.model)?;
    let ids = ask::input_ids(&engine, &input)?;
    if ids.is_empty() {
        return Err(Error::EmptyPrompt { hint: "give some text or ids" });
    }
    let (vocab, width) = (engine.config().vocab_size, engine.config().hidden_size);
    let mut hidden = Hidden::new();
    let wanted = args.hidden.then_some(&mut hidden);
    let logits = verify::logits(engine.model(), &ids, args.model.chunk(), args.model.longrope, wanted)?;
    let mut tensors = vec![("logits".to_owned(), vec![ids.len(), vocab], logits)];
    tensors.extend(hidden.into_iter().map(|(name, rows)| (name, vec![ids.len(), width], rows)));
    write(&args.out, &tensors)?;
    if !args.model.quiet {
        output::note(&format!("wrote    {} tokens to {}", ids.len(), args.out.display()));
    }
    Ok(Outcome::Done)
}

fn write(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Result<()> {
    let fail = |message: String| Error::File {
        action: "write",
        path: path.to_owned(),
        message,
        hint: "does the folder exist, and is there room?",
    };
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, safetensors::SafeTensorError>>();
    let views = views.map_err(|e| fail(e.to_string()))?;
    safetensors::serialize_to_file(views, None, path).map_err(|e| fail(e.to_string()))
}

/// `phi3-run verify`
pub(super) fn verify(args: &Verify) -> Result<Outcome> {
    let Some(folder) = args.golden.as_ref().or(args.model.model.as_ref()) else {
        return Err(Error::Argument {
            argument: "--golden",
            expected: "the folder of a golden (the demo model has none)".into(),
            found: "nothing".into(),
        });
    };
    let golden = Golden::read(folder)?;
    let placed = load(&args.model)?;
    let mut model = placed.model;
    let on_cpu = model.device().kind == phi3_tensor::DeviceKind::Cpu;
    let tolerance = args.tolerance.unwrap_or(if on_cpu { 1e-4 } else { 2e-4 });
    let report = verify::verify(&mut *model, &golden, VerifyOptions { tolerance, chunk: args.model.chunk() })?;
    output::print(&report.to_string())?;
    let ok = report.ok();
    let verdict = if ok { "all checks passed" } else { "FAILED" };
    output::print(&format!("{verdict} (logits within {tolerance:.0e} on {})\n", placed.reason))?;
    Ok(if ok { Outcome::Done } else { Outcome::Failed })
}

fn load(args: &ModelArgs) -> Result<phi3_runner::Placed> {
    let checkpoint = args::source(&args.model).checkpoint()?;
    args.setup().load(&checkpoint, &mut |_| {})
}
