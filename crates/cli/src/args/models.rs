//! What can be typed after `models`.

use clap::Args;
#[cfg(feature = "hub")]
use clap::Subcommand;

/// Without a command, the short names.
#[cfg(feature = "hub")]
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Models {
    #[command(subcommand)]
    pub(crate) command: Option<ModelsCommand>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// This build has none of them, and says so.
#[cfg(not(feature = "hub"))]
#[derive(Args)]
pub(crate) struct Models {
    #[arg(hide = true, allow_hyphen_values = true)]
    _words: Vec<String>,
}

#[cfg(feature = "hub")]
#[derive(Subcommand)]
pub(crate) enum ModelsCommand {
    /// List the models in the cache
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch models, or bring them up to date, and print where they are
    Pull {
        /// A short name, owner/name[@revision][:file.gguf or :q4_k_m], or a URL of the hub
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// Print no progress
        #[arg(long, short)]
        quiet: bool,
    },
    /// Remove models from the cache: a repository, a @revision of it, or a :file
    Rm {
        /// As they were fetched
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Print where a model is in the cache
    Path {
        /// As it was fetched
        #[arg(value_name = "NAME")]
        name: String,
    },
}
