//! Comparison of a model with goldens of the reference implementation.
//!
//! A golden is `golden.safetensors` with `golden.json`: per prompt N its `prompt.N.input_ids`, `prompt.N.logits` and
//! optionally `prompt.N.hidden.*`; greedy continuations `greedy.N.ids` and `greedy.N.logits`; log-probabilities
//! `logprobs.N.token`; and in `golden.json` under `batch` the prompts to run together as one batch.

mod pictures;

use crate::{Cause, Error, Result};
use phi3_model::{Input, Model, Outputs, PrefillOptions, RopePolicy, Sequence, SequenceRows, Session};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A golden, read and checked.
pub struct Golden {
    path: PathBuf,
    floats: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    ids: BTreeMap<String, Vec<u32>>,
    /// Ids of prompts with pictures: the tokens of picture k are -k.
    pictured: BTreeMap<String, Vec<i32>>,
    /// Pictures `[height, width, 3]`.
    bytes: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
    /// Names of each prompt's pictures.
    pictures: BTreeMap<String, Vec<String>>,
    batch: Vec<String>,
}

/// Options of a verification.
#[derive(Clone, Copy, Debug)]
pub struct VerifyOptions {
    /// Largest allowed difference of a logit. Hidden states may differ by twice as much times `1 + |x|`.
    pub tolerance: f64,
    /// Tokens per pass.
    pub chunk: usize,
}

/// One comparison.
#[derive(Clone, Debug)]
pub struct Check {
    /// Prompt, and the values that are compared.
    pub name: String,
    /// Largest difference, for hidden states divided by `1 + |x|`; absent for ids, and where the numbers of values differ.
    pub difference: Option<f64>,
    /// Place of the largest difference, or a description.
    pub place: String,
    /// Whether the difference is allowed.
    pub ok: bool,
}

/// Result of a verification.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Every comparison.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether all comparisons passed; `false` if there is none.
    pub fn ok(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.ok)
    }

    /// Name of the first hidden state that differs.
    pub fn first_layer(&self) -> Option<&str> {
        let hidden = self.checks.iter().find(|check| !check.ok && check.name.contains(" hidden."));
        hidden.map(|check| check.name.as_str())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0).max(5);
        writeln!(f, "{:width$}  {:>10}  {:6}  where", "check", "difference", "result")?;
        for check in &self.checks {
            let difference = check.difference.map_or("-".into(), |d| format!("{d:.2e}"));
            let result = if check.ok { "ok" } else { "FAILED" };
            writeln!(f, "{:width$}  {difference:>10}  {result:6}  {}", check.name, check.place)?;
        }
        if let Some(name) = self.first_layer() {
            writeln!(f, "first that differs: {name} (hidden.0 is the embedding, hidden.i the output of layer i - 1)")?;
        }
        Ok(())
    }
}

fn file_error(path: &Path, source: impl Into<Cause>) -> Error {
    let hint = "a golden is golden.safetensors with golden.json, made by the scripts in tests/data/oracle";
    Error::File { action: "read", path: path.to_owned(), source: source.into(), hint }
}

impl Golden {
    /// Reads `golden.safetensors` and `golden.json` of a folder, or, for a file `NAME.gguf`, `NAME.golden.safetensors` and
    /// `NAME.golden.json` beside it.
    pub fn read(of: &Path) -> Result<Self> {
        let (path, json) = match of.is_file() {
            true => (of.with_extension("golden.safetensors"), of.with_extension("golden.json")),
            false => (of.join("golden.safetensors"), of.join("golden.json")),
        };
        let bytes = std::fs::read(&path).map_err(|e| file_error(&path, e))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| file_error(&path, e))?;
        let mut golden = Self {
            path: path.clone(),
            floats: BTreeMap::new(),
            ids: BTreeMap::new(),
            pictured: BTreeMap::new(),
            bytes: BTreeMap::new(),
            pictures: BTreeMap::new(),
            batch: Vec::new(),
        };
        for (name, view) in tensors.iter() {
            let words = view.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
            match view.dtype() {
                Dtype::F32 => {
                    let values = words.map(f32::from_le_bytes).collect();
                    golden.floats.insert(name.to_owned(), (view.shape().to_vec(), values));
                }
                Dtype::I32 => {
                    let ids: Vec<i32> = words.map(i32::from_le_bytes).collect();
                    match ids.iter().map(|&id| u32::try_from(id)).collect() {
                        Ok(ids) => golden.ids.insert(name.to_owned(), checked(&path, name, ids)?).map(|_| ()),
                        Err(_) => golden.pictured.insert(name.to_owned(), ids).map(|_| ()),
                    };
                }
                Dtype::U8 => {
                    golden.bytes.insert(name.to_owned(), (view.shape().to_vec(), view.data().to_vec()));
                }
                _ => {}
            }
        }
        if let Some(json) = read_json(&json)? {
            golden.batch = strings(json.get("batch"));
            let prompts = json.get("prompts").and_then(|prompts| prompts.as_object());
            for (name, prompt) in prompts.into_iter().flatten() {
                golden.pictures.insert(name.clone(), strings(prompt.get("images")));
            }
        }
        Ok(golden)
    }

    /// Names of the prompts.
    fn prompts(&self) -> Vec<String> {
        let name = |key: &String| Some(key.strip_prefix("prompt.")?.strip_suffix(".input_ids")?.to_owned());
        self.ids.keys().chain(self.pictured.keys()).filter_map(name).collect()
    }

    /// Prompts with greedy continuations, and the expected ids.
    pub fn greedy(&self) -> Vec<(&[u32], &[u32])> {
        let prompt = |key: &str| self.prompt(key.strip_prefix("greedy.")?.strip_suffix(".ids")?).ok();
        self.ids.iter().filter_map(|(key, ids)| Some((prompt(key)?, ids.as_slice()))).collect()
    }

    fn prompt(&self, name: &str) -> Result<&[u32]> {
        let key = format!("prompt.{name}.input_ids");
        self.ids.get(&key).map(Vec::as_slice).ok_or_else(|| file_error(&self.path, format!("{key} is missing")))
    }

    fn rows(&self, key: &str) -> Option<&[f32]> {
        self.floats.get(key).map(|(_, values)| values.as_slice())
    }
}

/// Returns the ids of a tensor; no ids are an error.
fn checked(path: &Path, name: &str, ids: Vec<u32>) -> Result<Vec<u32>> {
    match ids.is_empty() {
        true => Err(file_error(path, format!("{name}: expected at least one token id, found none"))),
        false => Ok(ids),
    }
}

fn read_json(path: &Path) -> Result<Option<serde_json::Value>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read(path).map_err(|e| file_error(path, e))?;
    let text = phi3_model::json_text(path, &text)?;
    Ok(Some(serde_json::from_slice(&text).map_err(|e| file_error(path, e))?))
}

fn strings(list: Option<&serde_json::Value>) -> Vec<String> {
    let list = list.and_then(|list| list.as_array());
    list.map_or(Vec::new(), |list| list.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

/// Runs every prompt of a golden, and compares the results with it.
pub fn verify(model: &mut dyn Model, golden: &Golden, options: VerifyOptions) -> Result<Report> {
    let mut report = Report::default();
    let features = pictures::verify_pictures(model, golden, options, &mut report)?;
    for name in golden.prompts() {
        let inputs = golden.inputs(&name, &features)?;
        verify_prompt(model, golden, (&name, &inputs), options, &mut report)?;
        verify_greedy(model, golden, (&name, &inputs), options, &mut report)?;
    }
    verify_batch(model, golden, options, &mut report)?;
    Ok(report)
}

/// Hidden states of a whole text, by name, in the order of computation.
pub type Hidden = Vec<(String, Vec<f32>)>;

/// Logits of every token of a text, `[tokens, vocab_size]`, and its hidden states if `hidden` is given.
pub fn logits<'a, T>(
    model: &mut dyn Model,
    ids: &'a [T],
    chunk: usize,
    policy: RopePolicy,
    hidden: Option<&mut Hidden>,
) -> Result<Vec<f32>>
where
    Input: From<&'a T>,
{
    let mut session = Session::new(model);
    let mut sequence = session.sequence();
    let mut out = Vec::new();
    let settings = PrefillOptions { chunk, policy, budget: ids.len(), outputs: Outputs::All };
    let watch = &mut |_| ControlFlow::Continue(());
    match hidden {
        None => session.prefill(&mut sequence, ids, settings, &mut out, None, watch)?,
        Some(hidden) => {
            let mut probe = |name: &str, rows: &[f32]| match hidden.iter_mut().find(|(known, _)| known == name) {
                Some((_, all)) => all.extend_from_slice(rows),
                None => hidden.push((name.to_owned(), rows.to_vec())),
            };
            session.prefill(&mut sequence, ids, settings, &mut out, Some(&mut probe), watch)?
        }
    };
    Ok(out)
}

fn verify_prompt(
    model: &mut dyn Model,
    golden: &Golden,
    (name, ids): (&str, &[Input]),
    options: VerifyOptions,
    report: &mut Report,
) -> Result<()> {
    let mut hidden = Hidden::new();
    let wants_hidden = golden.rows(&format!("prompt.{name}.hidden.0")).is_some();
    let got = logits(model, ids, options.chunk, RopePolicy::Exact, wants_hidden.then_some(&mut hidden))?;
    for (state, got) in &hidden {
        if let Some(want) = golden.rows(&format!("prompt.{name}.{state}")) {
            report.checks.push(compare_hidden(&format!("{name} {state}"), want, got, ids.len(), options.tolerance));
        }
    }
    let vocab = model.spec().vocab_size;
    if let Some(want) = golden.rows(&format!("prompt.{name}.logits")) {
        report.checks.push(compare(&format!("{name} logits"), want, &got, vocab, options.tolerance));
    }
    if let Some(want) = golden.rows(&format!("logprobs.{name}.token")) {
        let next = ids[1..].iter().filter_map(Input::token);
        let got: Vec<f32> = got.chunks_exact(vocab).zip(next).map(|(row, id)| log_probability(row, id)).collect();
        report.checks.push(compare(&format!("{name} log-probabilities"), want, &got, 1, options.tolerance));
    }
    Ok(())
}

/// Natural-log probability of `id`.
pub fn log_probability(logits: &[f32], id: u32) -> f32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&v| f64::from(v - most).exp()).sum();
    (f64::from(logits[id as usize] - most) - sum.ln()) as f32
}

fn verify_greedy(
    model: &mut dyn Model,
    golden: &Golden,
    (name, prompt): (&str, &[Input]),
    options: VerifyOptions,
    report: &mut Report,
) -> Result<()> {
    let Some(want) = golden.ids.get(&format!("greedy.{name}.ids")) else { return Ok(()) };
    let (got, rows) = greedy(model, prompt, want.len(), options.chunk)?;
    let agree = got.iter().zip(want).take_while(|(a, b)| a == b).count();
    let place = match got.get(agree) {
        None => format!("all {} ids agree", want.len()),
        Some(id) => format!("id {agree} is {id}, expected {}", want[agree]),
    };
    report.checks.push(Check { name: format!("{name} greedy"), difference: None, place, ok: agree == want.len() });
    if let Some(want) = golden.rows(&format!("greedy.{name}.logits")) {
        let vocab = model.spec().vocab_size;
        report.checks.push(compare(&format!("{name} greedy logits"), want, &rows, vocab, options.tolerance));
    }
    Ok(())
}

/// Greedy decoding of `count` tokens without regard to stop tokens: the new ids, and the logits that they were chosen from.
pub fn greedy<'a, T>(model: &mut dyn Model, prompt: &'a [T], count: usize, chunk: usize) -> Result<(Vec<u32>, Vec<f32>)>
where
    Input: From<&'a T>,
{
    greedy_from(model, prompt.iter().map(Input::from).collect(), count, chunk)
}

fn greedy_from(
    model: &mut dyn Model,
    mut inputs: Vec<Input>,
    count: usize,
    chunk: usize,
) -> Result<(Vec<u32>, Vec<f32>)> {
    let mut session = Session::new(model);
    let mut sequence = session.sequence();
    let (mut ids, mut rows, mut row) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        let new = inputs[sequence.len()..].to_vec();
        let settings = PrefillOptions { chunk, policy: RopePolicy::Exact, budget: 0, outputs: Outputs::Last };
        session.prefill(&mut sequence, &new, settings, &mut row, None, &mut |_| ControlFlow::Continue(()))?;
        rows.extend_from_slice(&row);
        let best = (0..row.len()).reduce(|best, i| if row[i] > row[best] { i } else { best });
        let best = best.unwrap_or(0) as u32;
        inputs.push(Input::Token(best));
        ids.push(best);
    }
    Ok((ids, rows))
}

/// Runs the prompts of the golden's batch in the same passes, and compares the logits of each with those of the prompt alone.
fn verify_batch(model: &mut dyn Model, golden: &Golden, options: VerifyOptions, report: &mut Report) -> Result<()> {
    if golden.batch.is_empty() {
        return Ok(());
    }
    let prompts = golden.batch.iter().map(|name| golden.prompt(name)).collect::<Result<Vec<_>>>()?;
    let got = batch_logits(model, &prompts, options.chunk)?;
    let vocab = model.spec().vocab_size;
    for (name, got) in golden.batch.iter().zip(got) {
        if let Some(want) = golden.rows(&format!("prompt.{name}.logits")) {
            report.checks.push(compare(&format!("{name} in a batch"), want, &got, vocab, options.tolerance));
        }
    }
    Ok(())
}

/// Logits of every token of several texts that are computed together, at most `chunk` tokens of each in a pass.
pub fn batch_logits(model: &mut dyn Model, prompts: &[&[u32]], chunk: usize) -> Result<Vec<Vec<f32>>> {
    let most = model.max_rows().min(model.max_outputs());
    let chunk = chunk.clamp(1, (most / prompts.len().max(1)).max(1));
    let vocab = model.spec().vocab_size;
    let prompts: Vec<Vec<Input>> = prompts.iter().map(|ids| ids.iter().map(Input::from).collect()).collect();
    let rope = model.spec().rope.clone();
    let mut session = Session::new(model);
    let mut sequences: Vec<Sequence> =
        prompts.iter().map(|ids| session.sequence().with_rope(rope.choose(RopePolicy::Exact, ids.len(), 0))).collect();
    let mut all = vec![Vec::new(); prompts.len()];
    let mut out = Vec::new();
    loop {
        let mut owners = Vec::new();
        let mut parts = Vec::new();
        for (i, (sequence, ids)) in sequences.iter_mut().zip(&prompts).enumerate() {
            let part = &ids[sequence.len()..];
            let part = &part[..part.len().min(chunk)];
            if !part.is_empty() {
                owners.push((i, part.len()));
                parts.push(SequenceRows { sequence, inputs: part, outputs: Outputs::All });
            }
        }
        if parts.is_empty() {
            return Ok(all);
        }
        session.forward(&mut parts, &mut out, None)?;
        let mut rest = out.as_slice();
        for (owner, rows) in owners {
            let (mine, others) = rest.split_at(rows * vocab);
            all[owner].extend_from_slice(mine);
            rest = others;
        }
    }
}

/// Largest difference and its index; a NaN counts as infinite.
fn largest(want: &[f32], got: &[f32], scale: impl Fn(f64) -> f64) -> (f64, usize) {
    let difference = |(want, got): (&f32, &f32)| {
        let difference = (f64::from(*want) - f64::from(*got)).abs() / scale(f64::from(*want));
        if difference.is_nan() { f64::INFINITY } else { difference }
    };
    let all = want.iter().zip(got).map(difference).enumerate();
    all.fold((0.0, 0), |best, (i, d)| if d > best.0 { (d, i) } else { best })
}

fn compare(name: &str, want: &[f32], got: &[f32], width: usize, tolerance: f64) -> Check {
    if want.len() != got.len() {
        let place = format!("{} values, expected {}", got.len(), want.len());
        return Check { name: name.to_owned(), difference: None, place, ok: false };
    }
    let (difference, at) = largest(want, got, |_| 1.0);
    let place = match width {
        1 => format!("position {at}"),
        _ => format!("position {}, id {}", at / width, at % width),
    };
    Check { name: name.to_owned(), difference: Some(difference), place, ok: difference <= tolerance }
}

fn compare_hidden(name: &str, want: &[f32], got: &[f32], rows: usize, tolerance: f64) -> Check {
    if want.len() != got.len() {
        let place = format!("{} values, expected {}", got.len(), want.len());
        return Check { name: name.to_owned(), difference: None, place, ok: false };
    }
    let (difference, at) = largest(want, got, |x| 1.0 + x.abs());
    let width = want.len() / rows.max(1);
    let place = format!("position {}, dimension {}", at / width.max(1), at % width.max(1));
    Check { name: name.to_owned(), difference: Some(difference), place, ok: difference <= 2.0 * tolerance }
}
