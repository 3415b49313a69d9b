//! The tokenizer of a checkpoint's folder, in any of its forms.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::around::{around, processor};
use super::companions::{Beside, Companions, Fields};
use super::error::{Error, Result};
use super::outline::{HINT, Outline};
use super::ranks;
use super::rules::Rule;
use super::to_gguf::space_prefix;
use super::tokenizer::Tokenizer;

impl Tokenizer {
    /// The tokenizer of the checkpoint in a folder: `tokenizer.json`, else `vocab.json` with `merges.txt`, else tiktoken's
    /// ranks (`cl100k_base.tiktoken`), with the tokens of `tokenizer_config.json`, `special_tokens_map.json` and
    /// `added_tokens.json`. `None` if the folder has none of the three.
    ///
    /// # Errors
    /// A file cannot be read, or the files make no usable tokenizer.
    pub fn from_folder(root: impl AsRef<Path>) -> Result<Option<Self>> {
        let root = root.as_ref();
        let there = |name: &str| root.join(name).symlink_metadata().is_ok();
        let file = root.join("tokenizer.json");
        if there("tokenizer.json") {
            let beside = Beside::read(root)?;
            let bytes = read(&file)?;
            let json = phi3_model::json_text(&file, &bytes)?;
            let outline = Outline::parse(&file.display().to_string(), &json)?;
            let companions = follow(&beside, &outline)?;
            return Self::with_companions(file.display().to_string(), &json, companions).map(Some);
        }
        let (file, json, companions) = if there("vocab.json") && there("merges.txt") {
            of_pairs(root, &Beside::read(root)?)?
        } else if let Some(file) = ranks_in(root)? {
            let companions = Beside::read(root)?.companions()?;
            let named = companions.wanted.iter().any(|wanted| wanted.id.is_some());
            let json = ranks::from_ranks(&file, &read(&file)?, named)?;
            (file, json, companions)
        } else {
            return Ok(None);
        };
        let file = file.display().to_string();
        let fail = |e: serde_json::Error| Error::Malformed { file: file.clone(), reason: e.to_string(), hint: HINT };
        let bytes = serde_json::to_vec(&json).map_err(fail)?;
        Self::with_companions(file, &bytes, companions).map(Some)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })
}

/// The only rank file of a folder.
fn ranks_in(root: &Path) -> Result<Option<PathBuf>> {
    let fail = |source: std::io::Error| Error::Read { path: root.into(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|ending| ending == "tiktoken") {
            found.push(path);
        }
    }
    found.sort();
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => Err(Error::Malformed {
            file: root.display().to_string(),
            reason: format!("{} and {} are both rank files", found[0].display(), found[1].display()),
            hint: "keep only the model's rank file, or its tokenizer.json",
        }),
    }
}

/// Whether transformers rebuilds the pre-tokenizer from the fields of tokenizer_config.json, as it does for GPT-2's classes.
fn rebuilds_byte_level(config: &Fields) -> bool {
    let class = config.map.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    matches!(class.trim_end_matches("Fast"), "GPT2Tokenizer" | "CodeGenTokenizer")
}

/// Additions to a `tokenizer.json` from the files beside it, and notes about fields that are ignored.
fn follow(beside: &Beside, outline: &Outline) -> Result<Companions> {
    let mut companions = beside.companions()?;
    let Some(config) = &beside.config else { return Ok(companions) };
    let mut differs = |field: &str, wanted: bool, is: bool| {
        if wanted != is {
            companions
                .notes
                .push(format!("{}: it is {wanted}, but tokenizer.json differs and has precedence", config.at(field)));
        }
    };
    let (first, last) = around(&outline.post_processor);
    if let Some(wanted) = config.boolean("add_bos_token")? {
        differs("add_bos_token", wanted, !first.is_empty());
    }
    if let Some(wanted) = config.boolean("add_eos_token")? {
        differs("add_eos_token", wanted, !last.is_empty());
    }
    if let Some(wanted) = config.boolean("add_prefix_space")? {
        if outline.pre_tokenizer["type"] == "ByteLevel" && rebuilds_byte_level(config) {
            companions.prefix_space = Some(wanted);
        } else {
            differs("add_prefix_space", wanted, space_prefix(&outline.normalizer, &outline.pre_tokenizer));
        }
    }
    const CORRUPTING: &str = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
    if config.boolean(CORRUPTING)? == Some(true) {
        companions.notes.push(format!("{}: it is true, which is ignored", config.at(CORRUPTING)));
    }
    Ok(companions)
}

/// The tokenizer of GPT-2's two files, in which the first Phi models were published.
fn of_pairs(root: &Path, beside: &Beside) -> Result<(PathBuf, Value, Companions)> {
    let (file, merges) = (root.join("vocab.json"), root.join("merges.txt"));
    let vocabulary = Fields::read(root, "vocab.json")?.map(|fields| fields.map).unwrap_or_default();
    let bytes = read(&merges)?;
    // an error for a Git LFS pointer or a web page in its place
    phi3_model::check_text(&merges, &bytes)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| Error::Malformed {
        file: merges.display().to_string(),
        reason: error.to_string(),
        hint: HINT,
    })?;
    let mut companions = beside.companions()?;
    let rule = Rule::of_size(vocabulary.len()).unwrap_or(Rule::Gpt2);
    if rule != Rule::Gpt2 {
        companions.notes.push(format!(
            "{}: the file has no pre-tokenizer; with {} tokens, that of {} is used",
            file.display(),
            vocabulary.len(),
            rule.name()
        ));
    }
    let flag = |field: &str| match &beside.config {
        Some(config) => config.boolean(field).map(|flag| flag.unwrap_or(false)),
        None => Ok(false),
    };
    let (prefix, bos, eos) = (flag("add_prefix_space")?, flag("add_bos_token")?, flag("add_eos_token")?);
    const END: &str = "<|endoftext|>";
    let token = |field: &str| {
        let named = [&beside.map, &beside.config].into_iter().flatten().find_map(|fields| fields.token(field));
        named.unwrap_or(END).to_owned()
    };
    let id_of = |token: &str| {
        let id = vocabulary.get(token).and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        id.or_else(|| companions.wanted.iter().find(|wanted| wanted.token.content == token)?.id)
    };
    let (first, last) = (token("bos_token"), token("eos_token"));
    let post_processor = processor(
        id_of(&first).filter(|_| bos).map(|id| (id, first.as_str())),
        id_of(&last).filter(|_| eos).map(|id| (id, last.as_str())),
    );
    let end = vocabulary.get(END).cloned();
    let mut json = ranks::from_pairs(&merges, vocabulary, text, rule, prefix)?;
    if let Some(id) = end {
        // the class's default for its first, last and unknown token
        json["added_tokens"] = json!([{
            "id": id, "content": END, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        }]);
    }
    json["post_processor"] = post_processor;
    Ok((file, json, companions))
}
