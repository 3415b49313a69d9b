//! Checks of the server with OpenAI's own clients, for Python and for JavaScript.

use crate::Result;
use crate::process::{cargo, command, root, run as run_program, succeeds, target};
use std::path::{Path, PathBuf};

/// Builds the program, installs the clients in the target folder, and runs their checks.
pub(crate) fn run() -> Result {
    if !cfg!(unix) {
        println!("skipped: the checks end servers by SIGTERM");
        return Ok(());
    }
    // with a test, the program has the features of step test and is compiled once
    run_program(cargo().args(["test", "--workspace", "--no-run", "--test", "cli"]))?;
    let program = target().join("debug/phi3-run");
    let folder = target().join("clients");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for (language, install, check) in [
        ("Python", install_python as fn(&Path) -> Result, check_python as fn(&Path, &Path) -> Result),
        ("JavaScript", install_javascript, check_javascript),
    ] {
        match install(&folder) {
            Ok(()) => check(&folder, &program)?,
            Err(reason) if std::env::var_os("CI").is_some() => {
                return Err(format!("the client for {language}: {reason}"));
            }
            Err(reason) => println!("skipped: the client for {language} is not available here: {reason}"),
        }
    }
    Ok(())
}

fn scripts() -> PathBuf {
    root().join("tests/clients")
}

fn python(folder: &Path) -> String {
    folder.join("venv/bin/python").display().to_string()
}

fn install_python(folder: &Path) -> Result {
    if !succeeds("python3", &["-c", "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))"]) {
        return Err("there is no Python 3.10 or later with venv".into());
    }
    run_program(command("python3").args(["-m", "venv"]).arg(folder.join("venv")))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    run_program(command(&python(folder)).args(pip).arg(scripts().join("requirements.txt")))
}

fn check_python(folder: &Path, program: &Path) -> Result {
    run_program(
        command(&python(folder)).arg("-B").arg(scripts().join("openai_client.py")).arg("--program").arg(program),
    )
}

fn install_javascript(folder: &Path) -> Result {
    if !succeeds("npm", &["--version"]) {
        return Err("there is no npm".into());
    }
    let list = "package.json";
    let copied = std::fs::copy(scripts().join(list), folder.join(list));
    copied.map_err(|error| format!("{list}: {error}"))?;
    let npm = ["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"];
    run_program(command("npm").args(npm).arg(folder))
}

fn check_javascript(folder: &Path, program: &Path) -> Result {
    let mut node = command("node");
    node.arg(scripts().join("openai_client.mjs")).arg("--program").arg(program).arg("--modules").arg(folder);
    run_program(&mut node)
}
