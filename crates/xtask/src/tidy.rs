//! `cargo xtask tidy`: the rules that no other tool checks.

use std::path::Path;

use crate::Result;
use crate::dependencies;
use crate::process::{command, output, root};

const LONGEST_FILE: usize = 600;

/// Source text, whose length is limited.
const SOURCE: [&str; 3] = ["rs", "wgsl", "py"];

/// Text that people write.
const WRITTEN: [&str; 9] = ["rs", "wgsl", "py", "toml", "md", "sh", "yml", "yaml", "jinja"];

pub(crate) fn run() -> Result {
    let mut faults = dependencies::faults()?;
    let files = output(command("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let mut count = 0;
    for name in files.split('\0').filter(|name| is_written(name)) {
        // A file that git knows may be deleted by now.
        let Ok(text) = std::fs::read_to_string(root().join(name)) else { continue };
        count += 1;
        check(name, &text, &mut faults);
    }
    if faults.is_empty() {
        println!("{count} files and all dependencies are tidy");
        return Ok(());
    }
    faults.iter().for_each(|fault| println!("{fault}"));
    Err(format!("{} faults", faults.len()))
}

fn is_written(name: &str) -> bool {
    // a fuzzer's seeds are bytes, whatever they look like
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
        faults.push(format!("{name}: {lines} lines, {LONGEST_FILE} is the limit"));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        faults.push(format!("{name}: the last line does not end"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        let mut fault = |what: &str| faults.push(format!("{name}:{number}: {what}"));
        if line.contains('\t') {
            fault("a tab");
        }
        // In Markdown two spaces break a line.
        let is_break = extension == "md" && line.strip_suffix("  ") == Some(line.trim_end());
        if line.trim_end() != line && !is_break {
            fault("white space at the end");
        }
        if extension == "rs" && ["todo", "unimplemented"].iter().any(|stub| line.contains(&format!("{stub}!("))) {
            fault("a stub");
        }
        if is_library(name) && names_an_option(line) {
            fault(
                "an option of the command line in a library: its errors have kinds, and the program adds its options",
            );
        }
        if names_a_machine(line) {
            fault("an absolute path of one machine");
        }
        if computes(name) && names_a_model(extension, line) {
            fault("the name of a model where models are computed: what differs between them stands in ModelSpec");
        }
    }
    let is_kernel = name.contains("shaders/kernels/") && extension == "wgsl";
    if is_kernel && !text.starts_with("//") {
        faults.push(format!("{name}: a kernel starts with a comment: formula, shapes, grid, source"));
    }
}

/// Code that other programs use too.
fn is_library(name: &str) -> bool {
    ["tensor", "model", "runner", "hub", "image"]
        .iter()
        .any(|library| name.starts_with(&format!("crates/{library}/src/")))
}

/// An option such as those of the command line, outside a comment.
fn names_an_option(line: &str) -> bool {
    let code = line.trim_start();
    !code.starts_with("//")
        && code.match_indices("--").any(|(at, _)| {
            let (before, after) = (code[..at].chars().next_back(), code[at + 2..].chars().next());
            before.is_none_or(|c| !c.is_alphanumeric() && c != '-') && after.is_some_and(|c| c.is_ascii_lowercase())
        })
}

/// The decoder, the backends and the kernels.
fn computes(name: &str) -> bool {
    name.starts_with("crates/model/src/decoder")
        || name.starts_with("crates/tensor/src/")
        || name.starts_with("shaders/")
}

/// A model's name or class outside a comment: in a string of Rust, anywhere in WGSL. Names of packages (`phi3-tensor`) and of variables
/// of the environment (`PHI3_TIER`) are none.
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

/// A path below someone's home or work folder.
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
