//! Summary of a folder's figures, compared with the targets.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::short;
use super::steps::Step;

/// Target of a prompt of 512 tokens on an NVIDIA H200, in tokens/s.
const PROMPT: f64 = 20_000.0;

/// Target of decoding, in percent of the copy bandwidth.
fn decode_target(model: &str) -> f64 {
    if model.starts_with("q4") { 50.0 } else { 70.0 }
}

pub(super) fn text(out: &Path, commit: &str, quick: bool, done: &[Step], time: Duration) -> String {
    let mut text = format!("# Figures of a GPU\n\nCommit {commit}, {:.0} minutes.\n\n", time.as_secs_f64() / 60.0);
    if quick {
        text += "**A trial of the command with tiny sizes (`--quick`): the figures below mean nothing.**\n\n";
    }
    let kernels: Vec<(&str, Vec<Value>)> = ok(done, "kernels-").map(|name| (name, lines(out, name))).collect();
    let best = kernels.iter().rev().find_map(|(_, rows)| rows.first());
    if let Some(row) = best {
        let number = |name: &str| row[name].as_f64().unwrap_or(0.0);
        text += &format!(
            "{}: {}. Memory {}: {:.0} GB/s. Arithmetic of {}: {:.1} TFLOP/s.\n\n",
            plain(&row["device"]),
            plain(&row["clock"]),
            plain(&row["limit_access"]),
            number("limit_gb_per_s"),
            plain(&row["limit_numbers"]),
            number("limit_gflop_per_s") / 1000.0
        );
    }
    let bandwidth = best.and_then(|row| row["limit_gb_per_s"].as_f64());
    text += &speeds(out, done, bandwidth);
    for (name, rows) in &kernels {
        text += &operations(name, rows);
    }
    text += "## Steps\n\n| step | outcome | seconds | command |\n| --- | --- | ---: | --- |\n";
    for step in done {
        let outcome = step.outcome.replace('|', "\\|");
        text +=
            &short(&format!("| {} | {outcome} | {:.1} | `{}` |\n", step.name, step.time.as_secs_f64(), step.command));
    }
    text
}

/// Names of the steps of a kind, failed ones included: they may have written some figures.
fn ok<'a>(done: &'a [Step], kind: &'a str) -> impl Iterator<Item = &'a str> {
    done.iter().map(|step| step.name.as_str()).filter(move |name| name.starts_with(kind))
}

/// The JSON lines of a file.
fn lines(out: &Path, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(out.join(format!("{name}.jsonl"))).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn json(out: &Path, name: &str) -> Value {
    let text = std::fs::read_to_string(out.join(format!("{name}.json"))).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn plain(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

/// Bytes of weights read per decoded token: all but the embedding, of which only one row is read.
fn read_by_a_token(inspected: &Value, total: f64) -> f64 {
    let embedding = inspected["tensors"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|tensor| ["model.embed_tokens.weight", "token_embd.weight"].contains(&plain(&tensor["name"])));
    total - embedding.and_then(|tensor| tensor["bytes"].as_f64()).unwrap_or(0.0)
}

/// Speeds of prompts and decoding in tokens/s, and decoding in percent of the bandwidth.
fn speeds(out: &Path, done: &[Step], bandwidth: Option<f64>) -> String {
    let mut text = String::from(
        "## Prompts and tokens\n\nDecoding counts the bytes of the weights that a token reads (rows at a depth have no target, because \
         keys and values are read too); its target is 70 % of the measured copy \
         bandwidth in bf16 and f16, 50 % in Q4. The target of a prompt of 512, 20,000 tokens/s, is that of an NVIDIA H200.\n\n\
         | model | tier | test | tokens/s | GB/s | of bandwidth | target | met |\n\
         | --- | --- | --- | ---: | ---: | ---: | ---: | --- |\n",
    );
    for name in ok(done, "bench-") {
        let Some((model, tier)) = name.trim_start_matches("bench-").rsplit_once('-') else { continue };
        let inspected = json(out, &format!("inspect-{model}"));
        for row in lines(out, name) {
            let number = |name: &str| row[name].as_f64().unwrap_or(0.0);
            let (prompt, generated, depth) = (number("n_prompt"), number("n_gen"), number("n_depth"));
            let deep = if depth > 0.0 { format!(" @ d{depth}") } else { String::new() };
            let speed = number("avg_ts");
            if generated > 0.0 && prompt == 0.0 {
                let read = speed * read_by_a_token(&inspected, number("model_size"));
                let target = (depth == 0.0).then(|| decode_target(model));
                text += &decoded(model, tier, &format!("tg{generated}{deep}"), speed, read, (bandwidth, target));
            } else {
                let is_target = prompt == 512.0 && depth == 0.0;
                let (target, met) = if is_target { ("20000 t/s", yes(speed >= PROMPT)) } else { ("", "") };
                text += &format!("| {model} | {tier} | pp{prompt}{deep} | {speed:.1} | | | {target} | {met} |\n");
            }
        }
    }
    for name in ok(done, "generate-") {
        let model = name.trim_start_matches("generate-");
        let answer = json(out, name);
        let Some(speed) = answer["timings"]["decode_per_second"].as_f64() else { continue };
        let inspected = json(out, &format!("inspect-{model}"));
        let total: f64 =
            inspected["tensors"].as_array().into_iter().flatten().filter_map(|tensor| tensor["bytes"].as_f64()).sum();
        let read = speed * read_by_a_token(&inspected, total);
        let reached = (bandwidth, Some(decode_target(model)));
        text += &decoded(model, "best", "answer, tokens chosen on the device", speed, read, reached);
    }
    text + "\n"
}

/// A table row of decoding. `bandwidth` is in GB/s, if measured; `target` in percent of it, if there is one.
fn decoded(
    model: &str,
    tier: &str,
    test: &str,
    speed: f64,
    read: f64,
    (bandwidth, target): (Option<f64>, Option<f64>),
) -> String {
    let share = bandwidth.map(|bandwidth| read / 1e7 / bandwidth);
    let of = share.map_or_else(|| "?".into(), |share| format!("{share:.1} %"));
    let (target, met) = match (share, target) {
        (Some(share), Some(target)) => (format!("{target:.0} %"), yes(share >= target)),
        (None, Some(target)) => (format!("{target:.0} %"), "?"),
        (_, None) => (String::new(), ""),
    };
    format!("| {model} | {tier} | {test} | {speed:.1} | {:.1} | {of} | {target} | {met} |\n", read / 1e9)
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// The operations of a tier: microseconds, and percent of the bandwidth and of the rate.
fn operations(name: &str, rows: &[Value]) -> String {
    let tier = name.trim_start_matches("kernels-");
    let mut text = format!(
        "## Operations, {tier}\n\n| op | type | rows | µs | of bandwidth | of rate |\n| --- | --- | ---: | ---: | ---: | ---: |\n"
    );
    let share = |value: &Value| value.as_f64().map_or_else(String::new, |share| format!("{share:.1} %"));
    for row in rows {
        let (op, kind, count) = (plain(&row["op"]), plain(&row["type"]), &row["rows"]);
        text += &match row["us"].as_f64() {
            Some(us) => {
                let (memory, rate) = (share(&row["percent_of_bandwidth"]), share(&row["percent_of_rate"]));
                format!("| {op} | {kind} | {count} | {us:.1} | {memory} | {rate} |\n")
            }
            None => format!("| {op} | {kind} | {count} | {} | | |\n", plain(&row["error"]).replace('|', "\\|")),
        };
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn targets_are_of_the_measured_bandwidth() {
        let inspected =
            json!({"tensors": [{"name": "token_embd.weight", "bytes": 1e9}, {"name": "output.weight", "bytes": 7e9}]});
        assert_eq!(read_by_a_token(&inspected, 8e9), 7e9);
        let row = |model, share: f64| {
            decoded(model, "coop", "tg128", 100.0, share * 40e9, (Some(4000.0), Some(decode_target(model))))
        };
        assert!(row("bf16", 70.0).ends_with("| 2800.0 | 70.0 % | 70 % | yes |\n"), "{}", row("bf16", 70.0));
        assert!(row("bf16", 69.0).ends_with("| no |\n") && row("q4_k_m", 51.0).ends_with("| 50 % | yes |\n"));
        assert!(decoded("f16", "base", "tg2", 1.0, 1e9, (None, Some(70.0))).ends_with("| ? | 70 % | ? |\n"));
        assert!(decoded("f16", "base", "tg2 @ d9", 1.0, 1e9, (Some(4.0), None)).ends_with("| 25.0 % |  |  |\n"));
    }
}
