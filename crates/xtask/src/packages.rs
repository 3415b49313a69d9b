//! Installation of external programs with the package manager of Debian and Ubuntu.

use crate::Result;
use crate::process::{command, run, succeeds};

/// Installs packages; false if there is no `apt-get` that runs without a password.
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

/// Command prefix for `apt-get`, if it can run without a password.
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
