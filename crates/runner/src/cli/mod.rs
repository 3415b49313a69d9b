//! The commands: arguments in, text and exit codes out.

mod args;
mod ask;
mod chat;
mod check;
mod devices;
mod files;
mod output;
mod perplexity;
mod text;

use args::{Cli, Command};
use clap::Parser;
use output::Outcome;
use std::process::ExitCode;

/// Runs what was typed. Exit codes: 0 done, 1 a verification failed, 2 an error, 130 interrupted.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => ask::ask(&cli.ask),
        Some(Command::Chat(args)) => chat::chat(&args),
        Some(Command::Generate(args)) => ask::generate(&args),
        Some(Command::Logits(args)) => check::logits(&args),
        Some(Command::Verify(args)) => check::verify(&args),
        Some(Command::Tokenize(args)) => text::tokenize(&args),
        Some(Command::Render(args)) => text::render(&args),
        Some(Command::Quantize(args)) => files::quantize(&args),
        Some(Command::Inspect(args)) => files::inspect(&args),
        Some(Command::Perplexity(args)) => perplexity::perplexity(&args),
        Some(Command::Devices(args)) => devices::devices(&args),
    };
    match result {
        Ok(outcome) => outcome.code(),
        Err(error) if output::is_closed_pipe(&error) => Outcome::Done.code(),
        Err(error) => {
            output::complain(&error);
            ExitCode::from(2)
        }
    }
}
