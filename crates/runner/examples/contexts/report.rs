//! What was measured of each model, as a table.

use crate::fit::Cut;
use phi3_runner::{FinishReason, RopeSet, Summary};

/// Measurements of one model.
pub(crate) struct Report {
    /// The model's folder or file.
    pub(crate) model: String,
    /// Context length, in tokens.
    pub(crate) context: usize,
    pub(crate) text_tokens: usize,
    pub(crate) cut: Option<Cut>,
    /// Bytes of keys and values of prompt and answer.
    pub(crate) cache: u64,
    /// Bytes of keys and values of a full context.
    pub(crate) full_cache: u64,
    pub(crate) rope: RopeFactors,
    pub(crate) summary: Summary,
}

/// Rope factors of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RopeFactors {
    /// The model has one set: it is without LongRoPE.
    One,
    /// One of LongRoPE's sets, from the start to the end.
    Same(RopeSet),
    /// The answer crossed LongRoPE's border: the tokens before it were computed again.
    Switched { set: RopeSet, tokens: usize },
}

/// A table of the reports, one column each.
pub(crate) fn table(reports: &[Report]) -> String {
    type Row = (&'static str, fn(&Report) -> String);
    let rows: [Row; 14] = [
        ("model", |report| report.model.clone()),
        ("context, tokens", |report| report.context.to_string()),
        ("text, tokens", |report| report.text_tokens.to_string()),
        ("fits", |report| if report.cut.is_none() { "yes".into() } else { "no".into() }),
        ("left out of the text, tokens", |report| report.cut.map_or(0, |cut| cut.tokens).to_string()),
        ("prompt, tokens", |report| report.summary.usage.prompt_tokens.to_string()),
        ("prompt, tokens/s", |report| format!("{:.1}", report.summary.timings.prompt_per_second)),
        ("time to first token, s", |report| format!("{:.2}", report.summary.timings.first_token_ms / 1e3)),
        ("answer, tokens", |report| report.summary.usage.completion_tokens.to_string()),
        ("answer, tokens/s", |report| format!("{:.1}", report.summary.timings.decode_per_second)),
        ("KV cache, this request", |report| mebibytes(report.cache)),
        ("KV cache, full context", |report| mebibytes(report.full_cache)),
        ("LongRoPE factors", |report| rope(report.rope)),
        ("end of the answer", |report| finish(report.summary.finish_reason).into()),
    ];
    let mut lines: Vec<String> = rows.iter().map(|(name, _)| (*name).to_owned()).collect();
    for report in reports {
        // A column starts two spaces after the longest line so far.
        let start = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0) + 2;
        for (line, (_, value)) in lines.iter_mut().zip(rows) {
            *line = format!("{line:start$}{}", value(report));
        }
    }
    lines.join("\n") + "\n"
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20))
}

fn rope(factors: RopeFactors) -> String {
    match factors {
        RopeFactors::One => "none".into(),
        RopeFactors::Same(set) => name(set).into(),
        RopeFactors::Switched { set, tokens } => format!("{} after {tokens} tokens", name(set)),
    }
}

pub(crate) fn name(set: RopeSet) -> &'static str {
    match set {
        RopeSet::Short => "short",
        RopeSet::Long => "long",
    }
}

fn finish(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop token",
        FinishReason::Length => "length limit",
        FinishReason::Interrupted => "interrupted",
    }
}
