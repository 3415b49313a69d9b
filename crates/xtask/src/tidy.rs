//! `cargo xtask tidy`: the rules that no other tool checks.

use std::path::Path;

use crate::Result;
use crate::dependencies;
use crate::imports;
use crate::process::{command, output, root};

const LONGEST_FILE: usize = 600;

/// Extensions of source files, whose length is limited.
const SOURCE: [&str; 3] = ["rs", "wgsl", "py"];

/// Extensions of text files to check.
const WRITTEN: [&str; 9] = ["rs", "wgsl", "py", "toml", "md", "sh", "yml", "yaml", "jinja"];

pub(crate) fn run() -> Result {
    let mut faults = dependencies::faults()?;
    let files = output(command("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let mut texts = Vec::new();
    for name in files.split('\0').filter(|name| is_written(name)) {
        // a file in git's index may be deleted
        let Ok(text) = std::fs::read_to_string(root().join(name)) else { continue };
        check(name, &text, &mut faults);
        texts.push((name, text));
    }
    faults.extend(imports::circles(texts.iter().map(|(name, text)| (*name, text.as_str()))));
    let count = texts.len();
    if faults.is_empty() {
        println!("{count} files and all dependencies are tidy");
        return Ok(());
    }
    faults.iter().for_each(|fault| println!("{fault}"));
    Err(format!("{} faults", faults.len()))
}

fn is_written(name: &str) -> bool {
    // a fuzzer's seeds are binary, whatever their extension
    !name.contains("/corpus/") && extension(name).is_some_and(|extension| WRITTEN.contains(&extension))
        || name.starts_with(".ci/")
}

fn extension(name: &str) -> Option<&str> {
    Path::new(name).extension()?.to_str()
}

fn check(name: &str, text: &str, faults: &mut Vec<String>) {
    let extension = extension(name).unwrap_or("");
    let lines = text.lines().count();
    if SOURCE.contains(&extension) && lines > LONGEST_FILE {
        faults.push(format!("{name}: {lines} lines; the limit is {LONGEST_FILE}"));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        faults.push(format!("{name}: the last line does not end with a line break"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        let mut fault = |what: &str| faults.push(format!("{name}:{number}: {what}"));
        if line.contains('\t') {
            fault("a tab");
        }
        // in Markdown, two spaces break a line
        let is_break = extension == "md" && line.strip_suffix("  ") == Some(line.trim_end());
        if line.trim_end() != line && !is_break {
            fault("white space at the end");
        }
        if extension == "rs" && ["todo", "unimplemented"].iter().any(|stub| line.contains(&format!("{stub}!("))) {
            fault("a stub");
        }
        if is_library(name) && names_an_option(line) {
            fault(
                "an option of the command line in a library: return an error kind, and let the program name the option",
            );
        }
        if names_a_machine(line) {
            fault("an absolute path of a user's machine");
        }
        if computes(name) && names_a_model(extension, line) {
            fault("the name of a model in computing code: differences between models belong in ModelSpec");
        }
    }
    let is_kernel = name.contains("shaders/kernels/") && extension == "wgsl";
    if is_kernel && !text.starts_with("//") {
        faults.push(format!("{name}: a kernel starts with a comment: formula, shapes, grid, source"));
    }
}

/// Whether a file belongs to a library, which other programs may use.
fn is_library(name: &str) -> bool {
    ["tensor", "model", "runner", "hub", "image"]
        .iter()
        .any(|library| name.starts_with(&format!("crates/{library}/src/")))
}

/// Whether a line has a command-line option outside a comment.
fn names_an_option(line: &str) -> bool {
    let code = line.trim_start();
    !code.starts_with("//")
        && code.match_indices("--").any(|(at, _)| {
            let (before, after) = (code[..at].chars().next_back(), code[at + 2..].chars().next());
            before.is_none_or(|c| !c.is_alphanumeric() && c != '-') && after.is_some_and(|c| c.is_ascii_lowercase())
        })
}

/// Whether a file belongs to the decoder, the backends or the kernels.
fn computes(name: &str) -> bool {
    name.starts_with("crates/model/src/decoder")
        || name.starts_with("crates/tensor/src/")
        || name.starts_with("shaders/")
}

/// Whether a line has a model's name or class outside a comment: in a Rust string, or anywhere in WGSL. Names of packages
/// (`phi3-tensor`) and of environment variables (`PHI3_TIER`) do not count.
fn names_a_model(extension: &str, line: &str) -> bool {
    let code = line.split_once("//").map_or(line, |(code, _)| code);
    let names = |text: &str| {
        let others = text.strip_prefix("phi3-").unwrap_or(text).replace("PHI3_", "").to_ascii_lowercase();
        ["phi", "llama", "mistral"].iter().any(|model| others.contains(model))
    };
    match extension {
        "rs" => code.split('"').skip(1).step_by(2).any(names),
        "wgsl" => names(code),
        _ => false,
    }
}

/// Whether a line has a path below a home or work folder.
fn names_a_machine(line: &str) -> bool {
    ["home", "root", "Users", "work"].iter().any(|folder| {
        let pattern = format!("/{folder}/");
        line.match_indices(&pattern).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || "._-/}>~*)".contains(c))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(name: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        check(name, text, &mut faults);
        faults
    }

    #[test]
    fn rules() {
        let [home, stub] = ["/ho", "to"].map(String::from);
        assert_eq!(faults("a.rs", "fn main() {}\n"), [""; 0]);
        assert_eq!(faults("a.md", "a break  \nb\n"), [""; 0]);
        assert_eq!(faults("shaders/kernels/a.wgsl", "// sum\n"), [""; 0]);
        assert_eq!(faults("crates/cli/src/a.rs", "\"--kv\"\n"), [""; 0]);
        assert_eq!(faults("crates/tensor/src/a.rs", "/// --kv\n"), [""; 0]);
        for code in ["format!(\"phi3-{i}\")\n", "env(\"PHI3_TIER\")\n", "use phi3_tensor::X; // \"phi-2\"\n"] {
            assert_eq!(faults("crates/tensor/src/a.rs", code), [""; 0]);
        }
        assert_eq!(faults("crates/model/src/table.rs", "\"phi-2\"\n"), [""; 0]);
        for (name, text, word) in [
            ("a.rs", "x\n".repeat(601), "601 lines"),
            ("a.rs", "x ".into(), "does not end"),
            ("a.rs", "x \n".into(), "white space"),
            ("a.md", "x \n".into(), "white space"),
            ("a.md", "x   \n".into(), "white space"),
            ("a.toml", "\tx\n".into(), "a tab"),
            ("a.rs", format!("{stub}do!()\n"), "a stub"),
            ("crates/model/src/a.rs", "x = \"try --kv f16\";\n".into(), "an option"),
            ("crates/runner/src/b/a.rs", "\"--quant\"\n".into(), "an option"),
            ("crates/model/src/decoder.rs", "if name == \"phi-2\" {\n".into(), "the name of a model"),
            ("crates/model/src/decoder/load.rs", "(\"phi3\", x)\n".into(), "the name of a model"),
            ("crates/tensor/src/gpu/a.rs", "\"PhiMoEForCausalLM\"\n".into(), "the name of a model"),
            ("shaders/src/a.rs", "f(\"a\", \"llama\")\n".into(), "the name of a model"),
            ("shaders/mask/a.wgsl", "const PHI2: u32 = 1u;\n".into(), "the name of a model"),
            ("a.md", format!("see {home}me/me/x\n"), "absolute path"),
            ("shaders/kernels/a.wgsl", "fn f() {}\n".into(), "comment"),
        ] {
            let found = faults(name, &text);
            assert!(found.iter().any(|fault| fault.contains(word)), "{name} {text:?}: {found:?}");
        }
    }
}
