//! Programs of others, from the package manager of Debian and Ubuntu.

use crate::Result;
use crate::process::{command, run, succeeds};

/// Installs packages where that asks for no password; false where there is no such package manager.
pub(crate) fn install(what: &str, packages: &[&str]) -> Result<bool> {
    let Some(prefix) = package_manager() else { return Ok(false) };
    println!("Installing {what}: {}", packages.join(" "));
    let apt = |arguments: &[&str]| {
        let words: Vec<&str> = prefix.iter().chain(&["apt-get"]).chain(arguments).copied().collect();
        run(command(words[0]).args(&words[1..]).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    apt(&["update"])?;
    apt(&[&["install", "-y", "--no-install-recommends"], packages].concat())?;
    Ok(true)
}

/// How to call `apt-get`, if it can be called without asking anyone.
fn package_manager() -> Option<&'static [&'static str]> {
    if !succeeds("apt-get", &["--version"]) {
        None
    } else if succeeds("sh", &["-c", "test \"$(id -u)\" = 0"]) {
        Some(&[])
    } else if succeeds("sudo", &["-n", "true"]) {
        Some(&["sudo", "-n"])
    } else {
        None
    }
}
