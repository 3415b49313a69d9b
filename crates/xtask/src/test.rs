//! `cargo xtask test`.

use crate::process::{cargo, run as run_program, target};
use crate::{Result, vulkan};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Fail instead of skipping the GPU tests if there is no GPU and no driver can be installed
    #[arg(long)]
    pub(crate) require_gpu: bool,
    /// Further arguments of `cargo test`, such as `-p phi3-model` or `-- --nocapture`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) rest: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result {
    let require = arguments.require_gpu || std::env::var_os("CI").is_some();
    match vulkan::ensure() {
        Err(reason) if require => return Err(reason),
        Err(reason) => println!("GPU tests are skipped: {reason}"),
        Ok(()) => {}
    }
    let mut test = cargo();
    test.arg("test");
    let chosen = |word: &String| ["-p", "--package", "--workspace", "--all"].contains(&word.as_str());
    if !arguments.rest.iter().take_while(|word| *word != "--").any(chosen) {
        test.arg("--workspace");
    }
    test.args(&arguments.rest);
    if require {
        test.env("PHI3_GPU", "require");
    }
    // tests of AMX also run on processors without it
    test.env("PHI3_EMULATE", "amx");
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // without it, Mesa prints a warning in every test
        let folder = target().join("xdg-runtime");
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        test.env("XDG_RUNTIME_DIR", folder);
    }
    run_program(&mut test)
}
