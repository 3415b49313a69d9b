//! `phi3-run plan`

use crate::advice;
use crate::args::{self, Plan};
use crate::fetch::Need;
use crate::output::{self, Outcome, size};
use phi3_runner::{Result, system_memory};
use serde_json::json;

pub(super) fn plan(args: &Plan) -> Result<Outcome> {
    let model = args.path.clone().or_else(|| args.model.model.clone());
    let source = args::source(&model, Need::Weights, args.model.quiet)?;
    let checkpoint = source.checkpoint()?;
    output::notes(checkpoint.notes(), args.model.quiet);
    let config = checkpoint.spec();
    let device_options = args.model.device_options();
    let tokens = args.context.unwrap_or(config.max_position_embeddings);
    phi3_model::check_length(config, tokens)?;
    let (plan, device) = device_options.plan(&checkpoint)?;
    let decoder = device_options.decoder();
    let (cache, total) = (plan.cache(config, decoder, tokens), plan.total(config, decoder, tokens));
    let available = system_memory::available(&device);
    let fits = available.map(|available| total <= available);
    if args.json {
        let object = json!({
            "device": device.to_string(), "weights": plan.weights, "mapped": plan.mapped, "cache_per_token": plan.cache_per_token,
            "context": tokens, "cache": cache, "scratch": plan.scratch, "total": total, "available": available, "fits": fits,
        });
        output::print(&format!("{object}\n"))?;
        return Ok(Outcome::Done);
    }
    let row = |name: &str, bytes: u64, note: &str| format!("{name:10} {:>12}  {bytes:>14} bytes{note}\n", size(bytes));
    let mapped =
        if plan.mapped > 0 { format!(", {} of them in the file's mapping", size(plan.mapped)) } else { String::new() };
    let each = format!(": {tokens} tokens, {} bytes each", plan.cache_per_token);
    output::print(&format!(
        "device     {device}\n{}{}{}{}",
        row("weights", plan.weights, &mapped),
        row("cache", cache, &each),
        row("scratch", plan.scratch, ""),
        row("total", total, ""),
    ))?;
    let verdict = match available {
        None => "the memory of this device is not known".to_owned(),
        Some(available) if total <= available => format!("fits: {} are available", size(available)),
        Some(available) => {
            let instead = system_memory::instead(&device_options, &checkpoint, tokens, available)?.map_or_else(
                || "nothing smaller would fit either".to_owned(),
                |smaller| format!("{} would fit", advice::options(&smaller)),
            );
            format!("does not fit: {} are available; {instead}", size(available))
        }
    };
    output::print(&format!("{verdict}\n"))?;
    Ok(Outcome::Done)
}
