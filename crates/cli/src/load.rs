//! Loading an engine by the arguments of a command.

use crate::args::{ModelArgs, TalkArgs};
use crate::output::{bar, note, notes};
use phi3_runner::{Engine, EngineBuilder, Result};

/// Loads the engine of a chat, which needs a tokenizer and a chat template, the model's or the given one.
pub(super) fn chat(model: &ModelArgs, talk: &TalkArgs) -> Result<Engine> {
    let source = model.source()?;
    let template = talk.template.template(&source)?;
    let builder = model.engine(source).require_chat();
    built(model, template.into_iter().fold(builder, EngineBuilder::chat_template))
}

/// Loads the engine with a progress bar, and prints its device.
pub(super) fn engine(model: &ModelArgs) -> Result<Engine> {
    built(model, model.engine(model.source()?))
}

fn built(model: &ModelArgs, builder: EngineBuilder<'_>) -> Result<Engine> {
    let bar = bar("loading", model.quiet);
    let progress = bar.clone();
    let result = builder
        .progress(move |done, total| {
            progress.set_length(total);
            progress.set_position(done);
        })
        .build();
    bar.finish_and_clear();
    let engine = result?;
    notes(engine.notes(), model.quiet);
    if !model.quiet {
        note(&format!("device   {}", engine.device()));
    }
    Ok(engine)
}
