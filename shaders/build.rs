//! The lists of formats and activations, from the files of their folders, and a hash of the shader sources and of the code that
//! composes kernels from them, exported as `PHI3_SHADERS_REVISION`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn sorted(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn add(hasher: &mut DefaultHasher, folder: &Path) -> io::Result<()> {
    for path in sorted(folder)? {
        path.file_name().hash(hasher);
        if path.is_dir() {
            add(hasher, &path)?;
        } else {
            fs::read(&path)?.hash(hasher);
        }
    }
    Ok(())
}

/// A WGSL source of a folder.
struct Source {
    name: String,
    text: String,
}

impl Source {
    /// Whether other sources of the folder use this one, by its first comment.
    fn is_shared(&self) -> bool {
        self.text.starts_with("// Shared by ")
    }

    /// The first comment, as documentation.
    fn doc(&self) -> String {
        let lines = self.text.lines().map_while(|line| line.strip_prefix("// "));
        lines.collect::<Vec<_>>().join(" ").replace('[', "\\[").replace('<', "\\<")
    }

    /// The arm of an enum: `q4_0` is `Q4_0`, `q4_k` is `Q4K`.
    fn arm(&self) -> String {
        let mut arm = String::new();
        for part in self.name.split('_') {
            let digits = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
            if digits(arm.chars().last()) && digits(part.chars().next()) {
                arm.push('_');
            }
            arm.push_str(&part[..1].to_uppercase());
            arm.push_str(&part[1..]);
        }
        arm
    }

    fn words(&self) -> BTreeSet<&str> {
        let code = self.text.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_')).collect()
    }

    /// The functions and variables that the source declares.
    fn declared(&self) -> BTreeSet<&str> {
        let names = self.text.lines().filter_map(|line| {
            let rest = line
                .strip_prefix("fn ")
                .or_else(|| line.split_once("var<")?.1.split_once("> ").map(|(_, rest)| rest))?;
            rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
        });
        names.collect()
    }
}

/// Writes an enum with an arm for each source of a folder. A shared source is put before the sources that use its declarations.
fn list(root: &Path, folder: &str, name: &str, doc: &str) -> io::Result<()> {
    let mut sources = Vec::new();
    for path in sorted(&root.join(folder))?.iter().filter(|path| path.extension().is_some_and(|kind| kind == "wgsl")) {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        sources.push(Source { name: stem, text: fs::read_to_string(path)? });
    }
    let (shared, own): (Vec<_>, Vec<_>) = sources.into_iter().partition(Source::is_shared);
    let file = |source: &Source| {
        format!("include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/{folder}/{}.wgsl\"))", source.name)
    };
    let (mut arms, mut parts, mut uses) = (String::new(), String::new(), String::new());
    for source in &own {
        let (arm, words) = (source.arm(), source.words());
        let before: Vec<&Source> = shared.iter().filter(|other| !other.declared().is_disjoint(&words)).collect();
        let texts: Vec<String> = before.iter().copied().chain([source]).map(file).collect();
        let _ = writeln!(arms, "    #[doc = {:?}]\n    {arm},", source.doc());
        let _ = writeln!(parts, "            {name}::{arm} => ({:?}, concat!({})),", source.name, texts.join(", "));
        let names: Vec<&str> = before.iter().map(|source| source.name.as_str()).collect();
        let _ = writeln!(uses, "            {name}::{arm} => &{names:?},");
    }
    let all: Vec<String> = own.iter().map(|source| format!("{name}::{}", source.arm())).collect();
    let text = format!(
        "/// {doc}\n#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]\npub enum {name} {{\n{arms}}}\n\nimpl {name} {{
    /// Every arm, for tests that walk them.\n    pub const ALL: [{name}; {}] = [{}];\n
    pub(crate) fn part(self) -> Part {{\n        match self {{\n{parts}        }}\n    }}\n
    /// Names of the shared sources that the arm uses.\n    #[allow(dead_code, reason = \"some lists do not need it\")]\n    fn uses(self) -> &'static [&'static str] {{\n        match self {{\n{uses}        }}\n    }}\n}}\n",
        all.len(),
        all.join(", "),
    );
    let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    fs::write(Path::new(&out).join(format!("{folder}.rs")), text)
}

fn main() -> io::Result<()> {
    let root = env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?;
    let root = Path::new(&root);
    let mut hasher = DefaultHasher::new();
    for folder in sorted(root)? {
        if folder.is_dir() && !folder.ends_with("tests") && !folder.ends_with("target") {
            println!("cargo::rerun-if-changed={}", folder.display());
            add(&mut hasher, &folder)?;
        }
    }
    println!("cargo::rustc-env=PHI3_SHADERS_REVISION={:016x}", hasher.finish());
    list(root, "formats", "Format", "Storage format of a weight.")?;
    list(root, "activation", "Activation", "Activation function of a projection's outputs.")
}
