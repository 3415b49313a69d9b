//! Arguments of `models`.

use clap::Args;
#[cfg(feature = "hub")]
use clap::Subcommand;

/// Without a command: the variants and the short names.
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

/// Placeholder of a build without the hub: the command is an error.
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
    /// Fetch or update models, and print their paths
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
        /// Names, as given to pull
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Print the path of a model in the cache
    Path {
        /// Name, as given to pull
        #[arg(value_name = "NAME")]
        name: String,
    },
}
