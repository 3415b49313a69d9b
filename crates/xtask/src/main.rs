//! The project's own commands: `cargo xtask test`, `ci`, `tidy`, `synth`, `gpu-figures`.

mod ci;
mod clients;
mod dependencies;
mod figures;
mod imports;
mod packages;
mod process;
mod test;
mod tidy;
mod vulkan;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Errors are messages.
type Result<T = (), E = String> = std::result::Result<T, E>;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run all tests; without a Vulkan driver, install a software one on Debian and Ubuntu
    Test(test::Arguments),
    /// Run all checks that a change must pass
    Ci(ci::Arguments),
    /// Check rules that no other tool checks
    Tidy,
    /// Pack the published crates and check them
    Package,
    /// Write a full-size checkpoint with random weights, or a GGUF file; `synth --help` says more
    #[command(disable_help_flag = true)]
    Synth {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Test and measure a GPU; all results are written to one folder
    GpuFigures(figures::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Test(arguments) => test::run(&arguments),
        Command::Ci(arguments) => ci::run(&arguments),
        Command::Tidy => tidy::run(),
        Command::Package => ci::package(),
        Command::Synth { arguments } => {
            process::run(process::cargo().args(["run", "--quiet", "-p", "phi3-synth", "--"]).args(arguments))
        }
        Command::GpuFigures(arguments) => figures::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}
