//! `phi3-run models`: variants, short names, and the cache of the hub.

use crate::args::{Models, ModelsCommand};
use crate::fetch::{hub, program, watched};
use crate::output::{self, Outcome, note, size};
use phi3_hub::{CachedRepo, CachedRevision, Error, Hub, ModelName, SHORT_NAMES, Wanted};
use phi3_model::{ModelSpec, QuantScheme, parameters, variant, variants, weight_bytes};
use phi3_runner::Result;
use phi3_tensor::Mask;
use serde_json::{Value, json};

/// Weight types of the memory columns in the table of variants.
const TYPES: [&str; 3] = ["bf16", "q8_0", "q4_k_m"];

pub(super) fn models(args: &Models) -> Result<Outcome> {
    match &args.command {
        None if args.json => short_names_json()?,
        None => output::print(&format!("{}\n{}", variants_table()?, short_names()))?,
        Some(ModelsCommand::List { json }) => list(&hub()?, *json)?,
        Some(ModelsCommand::Pull { names, quiet }) => {
            let (hub, names) = (hub()?, parsed(names)?);
            for name in &names {
                let local = watched(*quiet, |watch| hub.pull(name, Wanted::Model, watch)).map_err(program)?;
                output::print(&format!("{}\n", local.path.display()))?;
            }
        }
        Some(ModelsCommand::Rm { names }) => {
            let (hub, names) = (hub()?, parsed(names)?);
            for name in &names {
                let removed = hub.remove(name).map_err(program)?;
                note(&format!("removed  {name}: {} files, {}", removed.files, size(removed.bytes)));
            }
        }
        Some(ModelsCommand::Path { name }) => path(&hub()?, &name.parse().map_err(program)?)?,
    }
    Ok(Outcome::Done)
}

/// Parses all names, so that a wrong one is an error before the first is used.
fn parsed(names: &[String]) -> Result<Vec<ModelName>> {
    names.iter().map(|name| name.parse().map_err(program)).collect()
}

fn path(hub: &Hub, name: &ModelName) -> Result<()> {
    let local = hub.cached(name, Wanted::Model).map_err(program)?;
    let missing = || {
        program(Error::NotCached {
            what: name.to_string(),
            cache: hub.settings().cache.clone(),
            hint: format!("phi3-run models pull {name} fetches it"),
        })
    };
    output::print(&format!("{}\n", local.ok_or_else(missing)?.path.display()))
}

fn short_names_json() -> Result<()> {
    let row = |known: &phi3_hub::ShortName| {
        let parameters = format!("{}B", known.parameters);
        json!({ "name": known.name, "parameters": parameters, "context": known.context, "repo": known.repo, "gguf": known.gguf })
    };
    output::print(&format!("{}\n", Value::Array(SHORT_NAMES.iter().map(row).collect())))
}

/// Sizes of every variant, and the memory of its weights.
fn variants_table() -> Result<String> {
    let head = |name: &str| format!(" {name:>9}");
    let types = TYPES.map(head).concat();
    let mut text =
        format!("{:22} {:>15} {:>6} {:>8}  {:24}{types}\n", "variant", "parameters", "layers", "context", "attention");
    for name in variants() {
        let spec = variant(&name)?;
        let (parameters, layers) = (thousands(parameters(&spec)), spec.layers.len());
        let (context, attention) = (spec.max_position_embeddings, attention(&spec));
        text += &format!("{name:22} {parameters:>15} {layers:>6} {context:>8}  {attention:24}");
        for scheme in TYPES.iter().filter_map(|name| name.parse::<QuantScheme>().ok()) {
            text += &format!(" {:>6.2} GB", weight_bytes(&spec, scheme) as f64 / 1e9);
        }
        text.push('\n');
    }
    Ok(text)
}

/// Masks of a model's layers. A window of at least the context length is causal.
fn attention(spec: &ModelSpec) -> String {
    let mut kinds: Vec<String> = Vec::new();
    for layer in &spec.layers {
        let kind = match layer.mask {
            Mask::Window(window) if window < spec.max_position_embeddings => format!("window of {window}"),
            Mask::Causal | Mask::Window(_) => "causal".into(),
            Mask::Blocks(_) => "block-sparse".into(),
            Mask::Full => "full".into(),
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds.join(" and ")
}

/// A number with commas between groups of three digits.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn short_names() -> String {
    let mut text = format!(
        "{:22} {:>6} {:>8}  {:36} with :q4_k_m or another quantization\n",
        "name", "size", "context", "repository"
    );
    for known in &SHORT_NAMES {
        let parameters = format!("{}B", known.parameters);
        let gguf = if known.gguf == known.repo { "" } else { known.gguf };
        let row = format!("{:22} {parameters:>6} {:>8}  {:36} {gguf}", known.name, known.context, known.repo);
        text += row.trim_end();
        text.push('\n');
    }
    text
}

fn list(hub: &Hub, as_json: bool) -> Result<()> {
    let repos = hub.repositories().map_err(program)?;
    if as_json {
        return output::print(&format!("{}\n", Value::Array(repos.iter().map(object).collect())));
    }
    note(&format!("cache    {}", hub.settings().cache.display()));
    let mut text = String::new();
    for repo in &repos {
        for revision in &repo.revisions {
            // a revision is named by its refs, without refs by its commit
            let names =
                if revision.refs.is_empty() { revision.commit[..12].to_owned() } else { revision.refs.join(", ") };
            let (name, files) = (repo.repo.as_str(), what(revision));
            text += &format!("{name:48} {names:14} {:>10}  {files}\n", size(revision.bytes()));
        }
        let partial: u64 = repo.partial.iter().map(|(_, bytes)| bytes).sum();
        if !repo.partial.is_empty() {
            let name = repo.repo.as_str();
            text += &format!("{name:48} {:14} {:>10}  {} unfinished\n", "-", size(partial), repo.partial.len());
        }
    }
    text += &format!("{:63} {:>10}\n", "together", size(repos.iter().map(|repo| repo.bytes).sum()));
    output::print(&text)
}

/// Contents of a revision: names of its GGUF files, number of other files.
fn what(revision: &CachedRevision) -> String {
    let is_gguf = |name: &&str| name.to_ascii_lowercase().ends_with(".gguf");
    let names = || revision.files.iter().map(|(name, _)| name.as_str());
    let mut parts: Vec<String> = names().filter(is_gguf).map(str::to_owned).collect();
    let others = names().count() - parts.len();
    if others > 0 {
        parts.push(format!("{others} files"));
    }
    parts.join(", ")
}

fn object(repo: &CachedRepo) -> Value {
    let file = |(path, bytes): &(String, u64)| json!({ "path": path, "bytes": bytes });
    let revision = |revision: &CachedRevision| {
        let files: Vec<Value> = revision.files.iter().map(file).collect();
        json!({ "commit": revision.commit, "refs": revision.refs, "bytes": revision.bytes(), "files": files })
    };
    let partial: Vec<Value> = repo
        .partial
        .iter()
        .map(|(path, bytes)| json!({ "path": path.display().to_string(), "bytes": bytes }))
        .collect();
    let revisions: Vec<Value> = repo.revisions.iter().map(revision).collect();
    let path = repo.path.display().to_string();
    json!({ "repo": repo.repo.as_str(), "path": path, "bytes": repo.bytes, "revisions": revisions, "partial": partial })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_is_a_row() {
        let table = variants_table().unwrap();
        assert_eq!(table.lines().count(), 1 + variants().len());
        let row = |name: &str| table.lines().find(|line| line.split(' ').next() == Some(name)).unwrap().to_owned();
        assert!(row("phi-2").contains("2,779,683,840     32     2048  causal"));
        assert!(row("phi-3-mini-4k").contains("window of 2047 ") && row("phi-3-mini-4k").contains("7.64 GB"));
        assert!(row("phi-3.5-mini").contains("131072  causal"));
        assert!(row("phi-3-small-8k").contains("block-sparse and causal"));
        assert!(row("phi-3.5-moe").contains("41,873,153,344"));
        let width = table.lines().next().map(str::len);
        assert!(table.lines().all(|line| Some(line.len()) == width), "{table}");
        assert_eq!([7, 1000, 12_345_678].map(thousands), ["7", "1,000", "12,345,678"]);
    }
}
