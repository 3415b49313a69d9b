//! A checkpoint as a quantised GGUF file.

use crate::text::{placeholder, vocabulary};
use crate::{Result, Source};
use phi3_model::gguf::Vocabulary;
use phi3_model::{Checkpoint, GenerationConfig, Recipe, destination, write_gguf};
use std::path::Path;

/// Writes `source` by `recipe` to a GGUF file: weights, description, tokenizer, chat template, stop tokens and sampling
/// defaults. Tensor by tensor; `progress` is told the bytes that are written, and of all, and breaks off by returning `false`.
/// Adds to `notes` what the source says that is not followed, and what the format cannot hold.
///
/// Matrices that are quantised in the source stay as they are. A regular file at `out` is replaced, or the one that a symbolic
/// link there leads to; anything else is an error. Returns whether the file is complete.
pub fn quantise(
    source: &Source,
    recipe: Recipe,
    out: &Path,
    notes: &mut Vec<String>,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<bool> {
    destination(out)?;
    let checkpoint = source.checkpoint()?;
    notes.extend_from_slice(checkpoint.notes());
    let generation = source.generation(&checkpoint, notes)?;
    let vocabulary = tokenizer(source, &checkpoint, &generation)?;
    let name = source.path().file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let name = vocabulary.name.clone().unwrap_or(name);
    let mut keys = generation.to_metadata(notes);
    keys.extend(vocabulary.to_metadata());
    Ok(write_gguf(&checkpoint, recipe, &name, keys, out, progress)?)
}

fn tokenizer(source: &Source, checkpoint: &Checkpoint, generation: &GenerationConfig) -> Result<Vocabulary> {
    if let Some(vocabulary) = checkpoint.vocabulary() {
        return Ok(vocabulary.clone());
    }
    let config = checkpoint.spec();
    let (stops, bos) = (&generation.eos_token_id, generation.bos_token_id.or(config.bos_token_id));
    let file = source.path().join("tokenizer.json");
    let Some(json) = source.tokenizer_json()? else {
        return Ok(placeholder(&file, config.vocab_size, stops, bos));
    };
    let mut vocabulary = vocabulary(&file, &json, config.vocab_size, stops, bos)?;
    // a base model has no template; the file then has none either
    vocabulary.chat_template = source.template().ok().and_then(|template| template.source());
    Ok(vocabulary)
}
