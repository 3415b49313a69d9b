//! Sets `PHI3_COMMIT` to the checked-out commit, if the sources are in their repository. Git's files are read; git is not run.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Trimmed text of a file; the script runs again when the file changes.
fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    println!("cargo::rerun-if-changed={}", path.display());
    Some(text.trim().to_owned())
}

/// Git directory: `.git` itself, or the folder that a worktree's `.git` names.
fn state(git: &Path) -> Option<PathBuf> {
    if git.is_dir() {
        return Some(git.to_owned());
    }
    Some(git.parent()?.join(read(git)?.strip_prefix("gitdir: ")?))
}

fn commit(root: &Path) -> Option<String> {
    let git = state(&root.join(".git"))?;
    let head = read(&git.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref: ") else { return Some(head) };
    // shared by all worktrees
    let common = read(&git.join("commondir")).map_or(git.clone(), |common| git.join(common));
    let packed = || {
        let lines = read(&common.join("packed-refs"))?;
        Some(lines.lines().find_map(|line| line.split_once(' ').filter(|(_, of)| *of == name))?.0.to_owned())
    };
    // changes with every commit; a packed branch has no file of its own until then
    let _ = read(&git.join("logs/HEAD"));
    read(&common.join(name)).or_else(packed)
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    // a copy inside another repository has no commit of its own
    let root =
        folder.ancestors().nth(2).filter(|root| root.join("crates/cli") == folder && root.join("shaders").is_dir());
    let commit =
        root.and_then(commit).filter(|commit| commit.len() >= 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()));
    if let Some(commit) = commit {
        println!("cargo::rustc-env=PHI3_COMMIT={}", &commit[..8]);
    }
}
