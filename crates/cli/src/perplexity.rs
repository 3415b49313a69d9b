//! `phi3-run perplexity`

use crate::args::{self, Perplexity};
use crate::fetch::Need;
use crate::output::{self, Outcome};
use phi3_runner::perplexity::{self, Score, Windows};
use phi3_runner::{DeviceOptions, LoadedModel, Result, Source};
use serde_json::json;

pub(super) fn perplexity(args: &Perplexity) -> Result<Outcome> {
    let text = output::read_text(&args.file)?;
    let source = args.model.source()?;
    let tokenizer = source.tokenizer()?.ok_or_else(|| source.no_tokenizer())?;
    let ids = tokenizer.encode(&text, false)?;
    let windows = Windows { window: args.window, stride: args.stride };
    let mut first = load(&source, args.model.device_options(), args.model.quiet)?;
    let mut second = match other(args)? {
        Some((source, device_options)) => Some(load(&source, device_options, args.model.quiet)?),
        None => None,
    };

    let bar = output::bar("windows", args.model.quiet);
    let (chunk, policy) = (args.model.chunk(), args.model.longrope);
    let watch = &mut |done: usize, total: usize| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    };
    let result = match &mut second {
        None => {
            perplexity::perplexity(&mut *first.model, &ids, windows, chunk, policy, watch).map(|score| (score, None))
        }
        Some(second) => {
            let (first, second) = (&mut *first.model, &mut *second.model);
            perplexity::compare(first, second, &ids, windows, chunk, policy, watch)
                .map(|(score, other, distance)| (score, Some((other, distance))))
        }
    };
    bar.finish_and_clear();
    let (score, other) = result?;
    if args.json {
        let of = |s: &Score| json!({ "perplexity": s.perplexity(), "nll": s.nll, "tokens": s.tokens });
        let against = other.as_ref().map(|(score, d)| {
            json!({ "score": of(score), "kl_mean": d.mean, "kl_median": d.median, "kl_largest": d.largest, "same_top": d.same_top })
        });
        output::print(&format!("{}\n", json!({ "score": of(&score), "against": against })))?;
        return Ok(Outcome::Done);
    }
    output::print(&format!(
        "perplexity {:.6} ({} of {} tokens counted, nll {:.6})\n",
        score.perplexity(),
        score.tokens,
        ids.len(),
        score.nll
    ))?;
    if let Some((other, distance)) = other {
        output::print(&format!(
            "against    {:.6}\nKL divergence mean {:.3e}, median {:.3e}, largest {:.3e} nats\nsame most likely token: {:.2} %\n",
            other.perplexity(),
            distance.mean,
            distance.median,
            distance.largest,
            100.0 * distance.same_top
        ))?;
    }
    Ok(Outcome::Done)
}

/// The model to compare with, if one was requested.
fn other(args: &Perplexity) -> Result<Option<(Source, DeviceOptions)>> {
    if args.against.is_none() && args.against_device.is_none() && args.against_quant.is_none() {
        return Ok(None);
    }
    let model = args.against.clone().or_else(|| args.model.model.clone());
    let source = args::source(&model, Need::Weights, args.model.quiet)?;
    let own = args.model.device_options();
    let device = args.against_device.clone().unwrap_or_else(|| own.device.clone());
    let quant = args.against_quant.or(own.quant.filter(|_| args.against.is_none() && args.against_quant.is_none()));
    Ok(Some((source, DeviceOptions { device, quant, ..own })))
}

fn load(source: &Source, device_options: DeviceOptions, quiet: bool) -> Result<LoadedModel> {
    let bar = output::bar("loading", quiet);
    let checkpoint = source.checkpoint()?;
    output::notes(checkpoint.notes(), quiet);
    let total = checkpoint.bytes();
    let loaded = device_options.load(&checkpoint, &mut |done| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let loaded = loaded?;
    if !quiet {
        output::note(&format!("device   {}", loaded.reason));
    }
    Ok(loaded)
}
