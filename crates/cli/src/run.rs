//! Parsing of the command line, dispatch of commands, and exit codes.

use crate::args::{Cli, Command};
use crate::output::{self, Outcome};
use crate::{ask, bench, chat, check, devices, fetch, files, perplexity, plan, profile, text};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command line. Exit codes: 0 done, 1 a verification failed, 2 an error, 130 interrupted.
pub(crate) fn run() -> ExitCode {
    let words = long_options(command_first(std::env::args_os().collect()));
    let matches = with_negative_numbers(Cli::command()).try_get_matches_from(words);
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // a closed pipe is no error
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            output::complain_of(&format!("{}; hint: phi3-run --help lists commands and options", usage(&error)));
            return ExitCode::from(2);
        }
    };
    if cli.offline {
        fetch::set_offline();
    }
    let result = match cli.command {
        None => ask::ask(&cli.ask),
        Some(Command::Chat(args)) => chat::chat(&args),
        Some(Command::Generate(args)) => ask::generate(&args),
        #[cfg(feature = "server")]
        Some(Command::Serve(args)) => crate::serve::serve(*args),
        Some(Command::Logits(args)) => check::logits(&args),
        Some(Command::Verify(args)) => check::verify(&args),
        Some(Command::Tokenize(args)) => text::tokenize(&args),
        Some(Command::Render(args)) => text::render(&args),
        Some(Command::Quantize(args)) => files::quantize(&args),
        Some(Command::Inspect(args)) => files::inspect(&args),
        Some(Command::Plan(args)) => plan::plan(&args),
        Some(Command::Perplexity(args)) => perplexity::perplexity(&args),
        Some(Command::Bench(args)) => bench::bench(&args),
        Some(Command::Profile(args)) => profile::profile(&args),
        Some(Command::Devices(args)) => devices::devices(&args),
        #[cfg(feature = "hub")]
        Some(Command::Models(args)) => crate::models::models(&args),
        #[cfg(not(feature = "hub"))]
        Some(Command::Models(_)) => Err(fetch::no_downloads("there is no command models")),
    };
    match result {
        Ok(outcome) => outcome.code(),
        Err(error) if output::is_closed_pipe(&error) => Outcome::Done.code(),
        Err(error) if fetch::is_stopped(&error) => {
            output::note("interrupted: downloaded data is kept, and the next run goes on from there");
            Outcome::Interrupted.code()
        }
        Err(error) => {
            output::complain(&error);
            ExitCode::from(2)
        }
    }
}

/// Takes a negative number after any option with a value as that value, so that an error about it names the option.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let takes_value = |arg: &clap::Arg| matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let command = command.mut_args(|arg| {
        let takes_value = takes_value(&arg);
        arg.allow_negative_numbers(takes_value)
    });
    command.mut_subcommands(with_negative_numbers)
}

/// Clap's message on one line, without the usage.
fn usage(error: &clap::Error) -> String {
    if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
        && word != "kernels"
    {
        return format!("bench: expected kernels or options, found {word:?}: each model has its own -m");
    }
    let text = error.to_string();
    let said = text.split("Usage:").next().unwrap_or(&text).split("For more information").next().unwrap_or(&text);
    let said: Vec<&str> = said.split_whitespace().collect();
    let message = said.join(" ");
    message.strip_prefix("error: ").unwrap_or(&message).to_owned()
}

/// Replaces llama.cpp's options of several letters after one dash by the long options of `bench`.
fn long_options(mut words: Vec<OsString>) -> Vec<OsString> {
    if words.get(1).is_some_and(|word| word == "bench") {
        for word in &mut words[2..] {
            if let Some(long) = word.to_str().and_then(bench::long_option) {
                *word = long.into();
            }
        }
    }
    words
}

/// Moves a command that comes after options to the front: `--device cpu chat` means `chat --device cpu`, and
/// `--device cpu bench kernels` means `bench kernels --device cpu`.
fn command_first(mut words: Vec<OsString>) -> Vec<OsString> {
    let cli = Cli::command();
    let takes_value = |word: &str| {
        let named = cli.get_arguments().find(|arg| match word.strip_prefix("--") {
            Some(long) => arg.get_long() == Some(long),
            None => arg.get_short().is_some_and(|short| word == format!("-{short}")),
        });
        named.is_some_and(|arg| matches!(arg.get_action(), ArgAction::Set | ArgAction::Append))
    };
    let mut at = 1;
    while let Some(word) = words.get(at).map(|word| word.to_string_lossy().into_owned()) {
        if !word.starts_with('-') {
            if let Some(command) = cli.find_subcommand(&word) {
                let two = words.get(at + 1).is_some_and(|next| command.find_subcommand(next).is_some());
                words[1..=at + usize::from(two)].rotate_right(1 + usize::from(two));
            }
            break;
        }
        if word == "--" {
            break;
        }
        at += 1 + usize::from(takes_value(&word));
    }
    words
}
