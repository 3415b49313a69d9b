//! A checkpoint as a quantised GGUF file.

use crate::text::{ChatTemplate, Message, compare, placeholder, vocabulary};
use crate::{Error, Result, Source};
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
    let vocabulary = tokenizer(source, &checkpoint, &generation, notes)?;
    let name = source.path().file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let name = vocabulary.name.clone().unwrap_or(name);
    let mut keys = generation.to_metadata(notes);
    keys.extend(vocabulary.to_metadata());
    Ok(write_gguf(&checkpoint, recipe, &name, keys, out, progress)?)
}

fn tokenizer(
    source: &Source,
    checkpoint: &Checkpoint,
    generation: &GenerationConfig,
    notes: &mut Vec<String>,
) -> Result<Vocabulary> {
    if let Some(vocabulary) = checkpoint.vocabulary() {
        return Ok(vocabulary.clone());
    }
    let config = checkpoint.spec();
    let (stops, bos) = (&generation.eos_token_id, generation.bos_token_id.or(config.bos_token_id));
    let Some(tokenizer) = source.tokenizer()? else {
        return Ok(placeholder(&source.path().join("tokenizer.json"), config.vocab_size, stops, bos));
    };
    notes.extend_from_slice(tokenizer.notes());
    // a base model has no template; the file then has none either
    let template = match source.template() {
        Ok(template) => Some(template),
        Err(Error::Text(crate::text::Error::NoTemplate { .. })) => None,
        Err(error) => return Err(error),
    };
    if template.as_ref().is_some_and(|template| template.tool_source().is_some()) {
        notes.push("the chat template for conversations with tools is left out: the file has one template".into());
    }
    let special = |name: &str| tokenizer.token_to_id(template.as_ref()?.special_token(name)?);
    let (bos, eos) = (special("bos_token").or(bos), special("eos_token").filter(|id| stops.contains(id)));
    let mut vocabulary = vocabulary(&tokenizer, config.vocab_size, stops, bos, eos, notes)?;
    compare(&tokenizer, &vocabulary, notes)?;
    if let Some(template) = template {
        vocabulary.chat_template = Some(template.source().to_owned());
        compare_chats(&template, &vocabulary, notes);
    }
    Ok(vocabulary)
}

/// Adds a note where the template prints something else from the written file, such as another token that ends a text.
fn compare_chats(template: &ChatTemplate, written: &Vocabulary, notes: &mut Vec<String>) {
    let Ok(from_file) = ChatTemplate::from_gguf(written) else { return };
    let messages = [Message::user("Hello"), Message::assistant("Hi"), Message::user("Who?")];
    for (messages, asks) in [(&messages[..], true), (&messages[..2], false)] {
        let (here, there) = (template.render(messages, asks), from_file.render(messages, asks));
        if let (Ok(here), Ok(there)) = (here, there)
            && here != there
        {
            notes.push(format!("the chat template prints {here:?}, from the GGUF file {there:?}"));
            return;
        }
    }
}
