//! A checkpoint as a quantised GGUF file.

use crate::text::{placeholder, vocabulary};
use crate::{Error, Result, Source};
use phi3_model::gguf::{Vocabulary, destination, write_gguf};
use phi3_model::{Checkpoint, Recipe};
use std::path::Path;

/// Writes `source` by `recipe` to a GGUF file: weights, description, tokenizer, chat template and stop tokens. Tensor by
/// tensor; `progress` is told the bytes that are written, and of all, and breaks off by returning `false`.
///
/// Matrices that are quantised in the source stay as they are. A regular file at `out` is replaced, or the one that a symbolic
/// link there leads to; anything else is an error. Returns whether the file is complete.
pub fn quantise(
    source: &Source,
    recipe: Recipe,
    out: &Path,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<bool> {
    destination(out)?;
    let checkpoint = source.checkpoint()?;
    let vocabulary = tokenizer(source, &checkpoint)?;
    let name = source.path().file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let name = vocabulary.name.clone().unwrap_or(name);
    Ok(write_gguf(&checkpoint, recipe, &name, vocabulary.to_metadata(), out, progress)?)
}

fn tokenizer(source: &Source, checkpoint: &Checkpoint) -> Result<Vocabulary> {
    if let Some(vocabulary) = checkpoint.vocabulary() {
        return Ok(vocabulary.clone());
    }
    let config = checkpoint.config();
    let generation = source.generation(config)?;
    let (stops, bos) = (&generation.eos_token_id, generation.bos_token_id.or(config.bos_token_id));
    let file = source.path().join("tokenizer.json");
    let json = match source {
        Source::Demo => phi3_demo::TOKENIZER.to_owned(),
        Source::Path(_) if !file.exists() => return Ok(placeholder(&file, config.vocab_size, stops, bos)),
        Source::Path(_) => std::fs::read_to_string(&file).map_err(|e| Error::File {
            action: "read",
            path: file.clone(),
            message: e.to_string(),
            hint: "the tokenizer's files stand beside the weights",
        })?,
    };
    let mut vocabulary = vocabulary(&file, &json, config.vocab_size, stops, bos)?;
    // a base model has no template; the file then has none either
    vocabulary.chat_template = source.template().ok().and_then(|template| template.source());
    Ok(vocabulary)
}
