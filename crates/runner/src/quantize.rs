//! A checkpoint as a quantized GGUF file.

use crate::text::{ChatTemplate, ChatTemplates, Message, compare, placeholder, vocabulary};
use crate::{Result, Source};
use phi3_model::gguf::{MetadataList, Vocabulary};
use phi3_model::{Checkpoint, GenerationConfig, Recipe, destination, write_gguf};
use std::path::Path;

/// Writes `source` by `recipe` to a GGUF file: weights, description, tokenizer, chat templates, stop tokens and sampling
/// defaults. Tensor by tensor; `progress` is told the bytes that are written, and of all, and breaks off by returning `false`.
/// Adds to `notes` what the source says that is not followed, and what the format cannot hold.
///
/// Matrices that are quantized in the source stay as they are. A regular file at `out` is replaced, or the one that a symbolic
/// link there leads to; anything else is an error. Returns whether the file is complete.
pub fn quantize(
    source: &Source,
    recipe: Recipe,
    out: &Path,
    notes: &mut Vec<String>,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<bool> {
    destination(out)?;
    let checkpoint = source.checkpoint()?;
    notes.extend_from_slice(checkpoint.notes());
    if checkpoint.spec().vision.is_some() {
        notes
            .push(format!("{}: the file will read text only: it holds no tower for pictures", source.path().display()));
    }
    let generation = source.generation(&checkpoint, notes)?;
    let (vocabulary, templates) = text(source, &checkpoint, &generation, notes)?;
    let name = source.path().file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let name = vocabulary.name.clone().unwrap_or(name);
    let mut keys = generation.to_metadata(notes);
    keys.extend(vocabulary.to_metadata());
    keys.extend(templates);
    Ok(write_gguf(&checkpoint, recipe, &name, keys, out, progress)?)
}

/// The vocabulary with the default chat template, and the keys of the other templates.
fn text(
    source: &Source,
    checkpoint: &Checkpoint,
    generation: &GenerationConfig,
    notes: &mut Vec<String>,
) -> Result<(Vocabulary, MetadataList)> {
    if let (Some(metadata), Some(vocabulary)) = (checkpoint.metadata(), checkpoint.vocabulary()) {
        let templates = ChatTemplates::of_gguf(metadata, vocabulary)?;
        return Ok((vocabulary.clone(), templates.to_metadata(notes)));
    }
    let config = checkpoint.spec();
    let (stops, bos) = (&generation.eos_token_id, generation.bos_token_id.or(config.bos_token_id));
    let Some(tokenizer) = source.tokenizer()? else {
        notes.push(format!("{}; the tokens of the file have no text", source.no_tokenizer()));
        let vocabulary = placeholder(&source.path().join("tokenizer.json"), config.vocab_size, stops, bos);
        return Ok((vocabulary, MetadataList::new()));
    };
    notes.extend_from_slice(tokenizer.notes());
    let templates = source.templates()?;
    // a base model has no template; the file then has none either
    let template = match templates.main() {
        Ok(template) => Some(template),
        Err(crate::text::Error::NoTemplate { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let special = |name: &str| tokenizer.token_to_id(template.as_ref()?.special_token(name)?);
    let (bos, eos) = (special("bos_token").or(bos), special("eos_token").filter(|id| stops.contains(id)));
    let mut vocabulary = vocabulary(&tokenizer, config.vocab_size, stops, bos, eos, notes)?;
    compare(&tokenizer, &vocabulary, notes)?;
    vocabulary.chat_template = template.map(|template| template.source().to_owned());
    let written = templates.with_tokens_of(&vocabulary);
    for name in templates.names() {
        if let (Ok(Some(here)), Ok(Some(there))) = (templates.named(name), written.named(name)) {
            compare_chats(&here, &there, notes);
        }
    }
    Ok((vocabulary, templates.to_metadata(notes)))
}

/// Adds a note where a template prints something else from the written file, such as another token that ends a text.
fn compare_chats(here: &ChatTemplate, there: &ChatTemplate, notes: &mut Vec<String>) {
    let messages = [Message::user("Hello"), Message::assistant("Hi"), Message::user("Who?")];
    for (messages, asks) in [(&messages[..], true), (&messages[..2], false)] {
        let (here, there) = (here.render(messages, asks), there.render(messages, asks));
        if let (Ok(here), Ok(there)) = (here, there)
            && here != there
        {
            notes.push(format!("the chat template prints {here:?}, from the GGUF file {there:?}"));
            return;
        }
    }
}
