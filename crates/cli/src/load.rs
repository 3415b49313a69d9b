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

/// Loads the engine of a server. A model without a chat template continues texts only.
#[cfg(feature = "server")]
pub(super) fn server(args: &crate::args::Serve) -> Result<Engine> {
    let source = args.model.source()?;
    let template = args.template.template(&source)?;
    let (rows, running) = (args.model.chunk(), args.max_running);
    let (requests, tokens, stall) = (args.max_queue, args.max_queue_tokens, args.max_stall);
    let builder = args.model.engine(source).scheduling(move |options| {
        options.max_rows = options.max_rows.min(rows);
        options.max_running = running.unwrap_or(options.max_running);
        (options.max_queued_requests, options.max_queued_tokens) = (requests, tokens);
        options.stall_factor = stall;
    });
    built(&args.model, template.into_iter().fold(builder, EngineBuilder::chat_template))
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
