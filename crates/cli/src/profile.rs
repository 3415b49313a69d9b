//! `phi3-run profile`: time of each operation.

use crate::args::Profile;
use crate::output::{self, Outcome};
use phi3_runner::profile::{self, Phase, Plan};
use phi3_runner::{Error, Result};
use phi3_tensor::Limits;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

pub(super) fn profile(args: &Profile) -> Result<Outcome> {
    let checkpoint = args.model.source()?.checkpoint()?;
    let stop = output::stop_on_ctrl_c();
    let watch = &mut || match stop.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let plan = Plan { prompt: args.n_prompt, generated: args.n_gen };
    let device_options = args.model.loaded_whole().device_options();
    let Some(profile) = profile::profile(&device_options, &checkpoint, plan, watch)? else {
        return Ok(Outcome::Interrupted);
    };
    if let Some(path) = &args.svg {
        std::fs::write(path, profile::flame(&profile)).map_err(|error| Error::File {
            action: "write",
            path: path.clone(),
            source: error.into(),
            hint: "does the folder exist, and is it writable?",
        })?;
    }
    output::print(&if args.json { format!("{}\n", object(&profile)) } else { text(&profile) })?;
    Ok(Outcome::Done)
}

fn text(profile: &profile::Profile) -> String {
    let limits = profile.limits;
    let mut text = format!(
        "{}; {}\nlimits: {:.1} GB/s of memory {}, {:.1} GFLOP/s of {}\n",
        profile.device,
        profile.clock,
        limits.bandwidth / 1e9,
        limits.access,
        limits.rate / 1e9,
        limits.numbers
    );
    for (name, phase) in [("prompt", &profile.prompt), ("decode", &profile.decode)] {
        if phase.passes > 0 {
            text.push_str(&table(name, phase, limits));
        }
    }
    text
}

fn table(name: &str, phase: &Phase, limits: Limits) -> String {
    let tokens = phase.tokens.max(1) as f64;
    let passes = phase.passes.max(1) as f64;
    let mut text = format!(
        "\n{name}: tokens {}, passes {}, {:.2} ms a token, {:.1} tokens/s\n\
         {:22} {:>11} {:>12} {:>7} {:>9} {:>9} {}\n",
        phase.tokens,
        phase.passes,
        phase.seconds * 1e3 / tokens,
        tokens / phase.seconds.max(1e-12),
        "operation",
        "calls/pass",
        "µs/token",
        "share",
        "GB/s",
        "of limit",
        "bound",
    );
    let share = |seconds: f64| 100.0 * seconds / phase.seconds.max(1e-12);
    for part in phase.by_op() {
        let rate = part.read as f64 / part.seconds.max(1e-12);
        let read = match part.of_limit(limits) {
            None => String::new(),
            Some((share, bound)) => format!("{:>9.2} {share:>7.0} % {}", rate / 1e9, bound.name()),
        };
        let line = format!(
            "{:22} {:>11.0} {:>12.1} {:>5.1} % {read}",
            part.label.op,
            part.calls as f64 / passes,
            part.seconds * 1e6 / tokens,
            share(part.seconds),
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let outside = (phase.seconds - phase.inside()).max(0.0);
    text.push_str(&format!(
        "{:22} {:>11} {:>12.1} {:>5.1} %\n",
        "host and waiting",
        "",
        outside * 1e6 / tokens,
        share(outside)
    ));
    text
}

fn object(profile: &profile::Profile) -> Value {
    let phase = |phase: &Phase| {
        let parts: Vec<Value> = phase
            .parts
            .iter()
            .map(|part| {
                let label = &part.label;
                json!({ "op": label.op, "layer": label.layer, "bytes": label.bytes, "calls": part.calls,
                    "seconds": part.seconds, "flop": part.flops })
            })
            .collect();
        json!({ "tokens": phase.tokens, "passes": phase.passes, "seconds": phase.seconds, "parts": parts })
    };
    let limits = profile.limits;
    json!({
        "device": profile.device, "clock": profile.clock.to_string(),
        "limits": { "bandwidth": limits.bandwidth, "access": limits.access, "rate": limits.rate, "numbers": limits.numbers },
        "prompt": phase(&profile.prompt), "decode": phase(&profile.decode),
    })
}
