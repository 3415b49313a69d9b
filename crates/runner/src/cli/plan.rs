//! `phi3-run plan`

use super::args::{self, Plan};
use super::output::{self, Outcome, size};
use phi3_model::Checkpoint;
use phi3_runner::{Result, Setup};
use phi3_tensor::KvType;
use serde_json::json;

/// Types to suggest, finest first.
const SMALLER: [&str; 6] = ["q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k_m"];

pub(super) fn plan(args: &Plan) -> Result<Outcome> {
    let source = args::source(&args.path.clone().or_else(|| args.model.model.clone()));
    let checkpoint = source.checkpoint()?;
    let config = checkpoint.config();
    let setup = args.model.setup();
    let tokens = args.context.unwrap_or(config.max_position_embeddings);
    phi3_model::check_length(config, tokens)?;
    let (plan, device) = setup.plan(&checkpoint)?;
    let decoder = setup.decoder();
    let (cache, total) = (plan.cache(config, decoder, tokens), plan.total(config, decoder, tokens));
    let available = available(&device);
    let fits = available.map(|available| total <= available);
    if args.json {
        let object = json!({
            "device": device, "weights": plan.weights, "mapped": plan.mapped, "cache_per_token": plan.cache_per_token,
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
        None => "how much memory this device has is not known".to_owned(),
        Some(available) if total <= available => format!("fits: {} are available", size(available)),
        Some(available) => {
            let instead = instead(&checkpoint, &setup, tokens, available)?;
            format!("does not fit: {} are available; {instead}", size(available))
        }
    };
    output::print(&format!("{verdict}\n"))?;
    Ok(Outcome::Done)
}

/// What would fit: another cache, finer types before coarser ones, else a shorter text.
fn instead(checkpoint: &Checkpoint, setup: &Setup, tokens: usize, available: u64) -> Result<String> {
    let config = checkpoint.config();
    let total = |setup: &Setup, tokens: usize| -> Result<u64> {
        Ok(setup.plan(checkpoint)?.0.total(config, setup.decoder(), tokens))
    };
    for kv in [KvType::F16, KvType::Q8_0] {
        if total(&Setup { kv: Some(kv), ..setup.clone() }, tokens)? <= available {
            return Ok(format!("--kv {kv} would fit"));
        }
    }
    for quant in SMALLER {
        let smaller = Setup { quant: Some(quant.parse()?), kv: Some(KvType::F16), ..setup.clone() };
        if total(&smaller, tokens)? <= available {
            return Ok(format!("--quant {quant} --kv f16 would fit"));
        }
    }
    let least = Setup { quant: Some("q2_k_m".parse()?), kv: Some(KvType::Q8_0), ..setup.clone() };
    let mut shorter = tokens;
    while shorter > 16 {
        shorter /= 2;
        if total(&least, shorter)? <= available {
            return Ok(format!("--quant q2_k_m --kv q8_0 --context {shorter} would fit"));
        }
    }
    Ok("nothing smaller would fit either".into())
}

/// Memory that can be had, where the system says: Linux's MemAvailable, for the processor and for drivers that compute on
/// it. wgpu does not tell what a card has.
fn available(device: &str) -> Option<u64> {
    let ours = device.starts_with("CPU") || device.contains("llvmpipe");
    let text = ours.then(|| std::fs::read_to_string("/proc/meminfo").ok()).flatten()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
