//! Export of a checkpoint as a quantized GGUF file.

use crate::text::{ChatTemplate, ChatTemplates, Message, Tokenizer, compare, placeholder, vocabulary};
use crate::{Result, Source};
use phi3_model::gguf::{MetadataList, Vocabulary};
use phi3_model::{GenerationConfig, ModelSpec, QuantScheme, destination, write_gguf};
use std::path::Path;

/// Writes `source`, quantized by `scheme`, to a GGUF file: weights, description, tokenizer, chat templates, stop tokens and
/// sampling defaults. One tensor is in memory at a time. `progress` is called with the bytes written so far, and of all; it
/// cancels by returning `false`. Adds notes about values of the source that are ignored, and about those that the format cannot
/// hold.
///
/// Matrices that are quantized in the source are unchanged. A regular file at `out`, or the target of a symbolic link there, is
/// replaced; anything else is an error. Returns whether the file is complete.
pub fn quantize(
    source: &Source,
    scheme: QuantScheme,
    out: &Path,
    notes: &mut Vec<String>,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<bool> {
    destination(out)?;
    let checkpoint = source.checkpoint()?;
    notes.extend_from_slice(checkpoint.notes());
    if checkpoint.spec().vision.is_some() {
        notes.push(format!(
            "{}: the GGUF file is for text only: the vision tower is not written",
            source.path().display()
        ));
    }
    let generation = source.generation(&checkpoint, notes)?;
    let (vocabulary, templates) = match (checkpoint.metadata(), checkpoint.vocabulary()) {
        (Some(metadata), Some(vocabulary)) => {
            (vocabulary.clone(), ChatTemplates::of_gguf(metadata, vocabulary)?.to_metadata(notes))
        }
        _ => {
            let tokenizer = source.tokenizer()?;
            if tokenizer.is_none() {
                notes.push(format!("{}; the tokens of the file have no text", source.no_tokenizer()));
            }
            let templates = source.templates()?;
            text(source.path(), checkpoint.spec(), tokenizer.as_ref(), &templates, &generation, notes)?
        }
    };
    let name = source.path().file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let name = vocabulary.name.clone().unwrap_or(name);
    let mut keys = generation.to_metadata(notes);
    keys.extend(vocabulary.to_metadata());
    keys.extend(templates);
    Ok(write_gguf(&checkpoint, scheme, &name, keys, out, progress)?)
}

/// The keys of a GGUF file for a model of `spec` whose small files are in `folder`: stop tokens, sampling defaults, tokenizer and
/// chat templates.
///
/// # Errors
///
/// A file cannot be read, or is malformed.
pub fn gguf_keys(folder: &Path, spec: &ModelSpec, notes: &mut Vec<String>) -> Result<MetadataList> {
    let generation = GenerationConfig::read(&folder.join("generation_config.json"), spec, notes)?;
    let (tokenizer, templates) = (Tokenizer::from_folder(folder)?, ChatTemplates::of_checkpoint(folder)?);
    let (vocabulary, templates) = text(folder, spec, tokenizer.as_ref(), &templates, &generation, notes)?;
    let mut keys = generation.to_metadata(notes);
    keys.extend(vocabulary.to_metadata());
    keys.extend(templates);
    Ok(keys)
}

/// The vocabulary with the default chat template, and the keys of the other templates.
fn text(
    folder: &Path,
    spec: &ModelSpec,
    tokenizer: Option<&Tokenizer>,
    templates: &ChatTemplates,
    generation: &GenerationConfig,
    notes: &mut Vec<String>,
) -> Result<(Vocabulary, MetadataList)> {
    let (stops, bos) = (&generation.eos_token_id, generation.bos_token_id.or(spec.bos_token_id));
    let Some(tokenizer) = tokenizer else {
        return Ok((placeholder(&folder.join("tokenizer.json"), spec.vocab_size, stops, bos), MetadataList::new()));
    };
    notes.extend_from_slice(tokenizer.notes());
    // a base model has no template; the file then has none either
    let template = match templates.main() {
        Ok(template) => Some(template),
        Err(crate::text::Error::NoTemplate { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let special = |name: &str| tokenizer.token_to_id(template.as_ref()?.special_token(name)?);
    let (bos, eos) = (special("bos_token").or(bos), special("eos_token").filter(|id| stops.contains(id)));
    let mut vocabulary = vocabulary(tokenizer, spec.vocab_size, stops, bos, eos, notes)?;
    compare(tokenizer, &vocabulary, notes)?;
    vocabulary.chat_template = template.map(|template| template.source().to_owned());
    let written = templates.with_tokens_of(&vocabulary);
    for name in templates.names() {
        if let (Ok(Some(here)), Ok(Some(there))) = (templates.named(name), written.named(name)) {
            compare_chats(&here, &there, notes);
        }
    }
    Ok((vocabulary, templates.to_metadata(notes)))
}

/// Adds a note if a template prints another text with the written file, for example with another end token.
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
