//! Checks of dependencies: allowed licences, and no C or C++.
//!
//! Cargo's metadata and lock file also list crates that are never compiled: `ring?/alloc` in a dependency's features is enough
//! to list `ring` and its `cc`. `cargo tree` lists compiled crates only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

use crate::Result;
use crate::process::{cargo, output, root};

/// File with the rules; also read by cargo-deny.
const RULES: &str = ".deny.toml";

/// Feature sets to check: default, minimal and all.
const FEATURES: [&[&str]; 3] = [&[], &["--no-default-features"], &["--all-features"]];

/// Crates whose `links` field only prevents duplicates; they link no library.
const LINKING_NOTHING: [&str; 2] = ["rayon-core", "wasm-bindgen-shared"];

/// Faults of the dependencies, one line each.
pub(crate) fn faults() -> Result<Vec<String>> {
    let rules = Rules::read()?;
    let links = Metadata::load()?.links();
    let mut compiled = BTreeMap::new();
    for features in FEATURES {
        let mut tree = cargo();
        tree.args(["tree", "--workspace", "-e", "normal,build", "--target", "all", "--prefix", "none", "--no-dedupe"]);
        tree.args(["-f", "{p}|{l}"]).args(features);
        for line in output(&mut tree)?.lines().filter(|line| !line.trim().is_empty()) {
            let crate_ =
                Crate::parse(line).ok_or_else(|| format!("cargo tree: {line:?} is not a crate with its licence"))?;
            compiled.insert((crate_.name.to_owned(), crate_.version.to_owned()), crate_.licence.to_owned());
        }
    }
    Ok(rules.faults(&compiled, &links))
}

/// A line of `cargo tree -f '{p}|{l}'`.
#[derive(Debug, PartialEq)]
struct Crate<'a> {
    name: &'a str,
    version: &'a str,
    licence: &'a str,
}

impl<'a> Crate<'a> {
    /// `name v1.2.3 (proc-macro)|MIT`
    fn parse(line: &'a str) -> Option<Self> {
        let (package, licence) = line.rsplit_once('|')?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        (!name.is_empty()).then_some(Self { name, version, licence: licence.trim() })
    }
}

/// Name and version.
type Id = (String, String);

/// Rules of `.deny.toml`.
struct Rules {
    licences: Vec<String>,
    foreign: Vec<String>,
}

impl Rules {
    fn read() -> Result<Self> {
        let text = std::fs::read_to_string(root().join(RULES)).map_err(|error| format!("{RULES}: {error}"))?;
        Ok(Self { licences: list(&text, "licenses", "allow")?, foreign: list(&text, "bans", "deny")? })
    }

    /// Faults of compiled crates, given with their licences; `links` maps crates to the libraries that they link.
    fn faults(&self, compiled: &BTreeMap<Id, String>, links: &BTreeMap<Id, String>) -> Vec<String> {
        let mut faults = BTreeSet::new();
        for (id, licence) in compiled {
            let (name, version) = id;
            if !self.is_allowed(licence) {
                faults.insert(format!("{name} {version}: licence {licence:?} is not in the list of {RULES}"));
            }
            if self.foreign.contains(name) {
                let asked = format!("`cargo tree --workspace --all-features --target all -e normal,build -i {name}`");
                faults.insert(format!("{name} {version} compiles or links C; {asked} shows the crates that need it"));
            } else if let Some(library) = links.get(id).filter(|_| !LINKING_NOTHING.contains(&name.as_str())) {
                faults.insert(format!("{name} {version} links the library {library:?}"));
            }
        }
        faults.into_iter().collect()
    }

    /// Evaluates an SPDX expression: for at least one alternative, all parts must be in the list.
    fn is_allowed(&self, licence: &str) -> bool {
        let licence = licence.trim();
        if let Some(inner) = licence.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'))
            && !inner.contains(['(', ')'])
        {
            return self.is_allowed(inner);
        }
        // older syntax for OR
        if let Some(parts) = split(licence, "/").or_else(|| split(licence, " OR ")) {
            return parts.into_iter().any(|part| self.is_allowed(part));
        }
        match split(licence, " AND ") {
            Some(parts) => parts.into_iter().all(|part| self.is_allowed(part)),
            None => self.licences.iter().any(|known| known == licence),
        }
    }
}

/// A list of strings in a table of a TOML file.
fn list(text: &str, table: &str, key: &str) -> Result<Vec<String>> {
    let missing = || format!("{RULES}: [{table}] has no list of strings {key}");
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or(line).trim());
    let inside = lines.skip_while(|line| *line != format!("[{table}]")).skip(1);
    // a table ends at the next header; other lines in brackets contain quotes
    let inside = inside.take_while(|line| !(line.starts_with('[') && line.ends_with(']') && !line.contains('"')));
    let rest: String = inside.skip_while(|line| line.split('=').next().map(str::trim) != Some(key)).collect();
    let items = rest.split_once('[').and_then(|(_, rest)| rest.split_once(']')).ok_or_else(missing)?.0;
    let items = items.split(',').map(str::trim).filter(|item| !item.is_empty());
    let item = |item: &str| Some(item.strip_prefix('"')?.strip_suffix('"')?.to_owned());
    items.map(item).collect::<Option<Vec<_>>>().filter(|items| !items.is_empty()).ok_or_else(missing)
}

/// `cargo metadata`, for all platforms.
pub(crate) struct Metadata(Value);

impl Metadata {
    pub(crate) fn load() -> Result<Self> {
        let text = output(cargo().args(["metadata", "--format-version", "1"]))?;
        serde_json::from_str(&text).map(Self).map_err(|error| format!("cargo metadata: {error}"))
    }

    /// Libraries that crates link, by their `links` field.
    fn links(&self) -> BTreeMap<Id, String> {
        let linking = self.packages().filter(|package| !text(package, "links").is_empty());
        let id = |package: &Value| (text(package, "name").to_owned(), text(package, "version").to_owned());
        linking.map(|package| (id(package), text(package, "links").to_owned())).collect()
    }

    /// The published crates of the workspace.
    pub(crate) fn published_members(&self) -> Vec<String> {
        let local = self.packages().filter(|package| package["source"].is_null() && package["publish"].is_null());
        local.map(|package| text(package, "name").to_owned()).collect()
    }

    /// Path of a crate's file from `cargo package`.
    pub(crate) fn packed(&self, name: &str) -> PathBuf {
        let package = self.packages().find(|package| text(package, "name") == name);
        let version = package.map_or("", |package| text(package, "version"));
        PathBuf::from(text(&self.0, "target_directory")).join(format!("package/{name}-{version}.crate"))
    }

    fn packages(&self) -> impl Iterator<Item = &Value> {
        self.0["packages"].as_array().into_iter().flatten()
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or("")
}

/// Splits at an operator outside parentheses; `None` if there is none.
fn split<'a>(expression: &'a str, operator: &str) -> Option<Vec<&'a str>> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, byte) in expression.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ if depth == 0 && at >= start && expression.as_bytes()[at..].starts_with(operator.as_bytes()) => {
                parts.push(&expression[start..at]);
                start = at + operator.len();
            }
            _ => {}
        }
    }
    parts.push(&expression[start..]);
    (parts.len() > 1).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            licences: ["MIT", "Apache-2.0", "Unicode-3.0"].map(String::from).into(),
            foreign: vec!["cc".into(), "ring".into()],
        }
    }

    #[test]
    fn licence_expressions() {
        for good in ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "(MIT OR GPL-2.0) AND Unicode-3.0", "Apache-2.0 / MIT"]
        {
            assert!(rules().is_allowed(good), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-2.0", "(GPL-2.0 OR LGPL-2.1) AND MIT"] {
            assert!(!rules().is_allowed(bad), "{bad}");
        }
    }

    #[test]
    fn lines_of_cargo_tree() {
        let parsed = |line| Crate::parse(line).map(|c| (c.name, c.version, c.licence));
        assert_eq!(parsed("syn v2.0.1|MIT OR Apache-2.0"), Some(("syn", "2.0.1", "MIT OR Apache-2.0")));
        assert_eq!(parsed("serde_derive v1.0.2 (proc-macro)|MIT"), Some(("serde_derive", "1.0.2", "MIT")));
        assert_eq!(parsed("xtask v0.1.0 (/a|b/c d)|MIT"), Some(("xtask", "0.1.0", "MIT")));
        assert_eq!(parsed("nameless v1.0.0|"), Some(("nameless", "1.0.0", "")));
        for bad in ["", "syn v2.0.1", "syn|MIT", "syn 2.0.1|MIT", "[build-dependencies]"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn faults_of_what_is_compiled() {
        let id = |name: &str| (name.to_owned(), "1.0.0".to_owned());
        let compiled = [("good", "MIT"), ("odd", "GPL-3.0"), ("cc", "MIT"), ("z-sys", "MIT"), ("rayon-core", "MIT")];
        let compiled = compiled.iter().map(|(name, licence)| (id(name), (*licence).to_owned())).collect();
        // ring is in the metadata, but is not compiled
        let links = ["z-sys", "ring", "rayon-core"].iter().map(|name| (id(name), "z".to_owned())).collect();
        let faults = rules().faults(&compiled, &links);
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(faults[0].starts_with("cc 1.0.0 compiles") && faults[0].contains("-i cc"), "{faults:?}");
        assert!(faults[1].contains("odd 1.0.0") && faults[1].contains("GPL-3.0"), "{faults:?}");
        assert!(faults[2].contains("z-sys 1.0.0 links"), "{faults:?}");
    }

    #[test]
    fn lists_of_the_rules() {
        let text = "# allow = [\"no\"]\n[graph]\nallow = true\n[licenses]\nother = 0.9\nallow = [\n    \"MIT\", # as usual\n    \"A OR B\",\n]\n\n[bans]\ndeny = [\"cc\"]\nempty = []\nodd = [1]\n";
        assert_eq!(list(text, "licenses", "allow").unwrap(), ["MIT", "A OR B"]);
        assert_eq!(list(text, "bans", "deny").unwrap(), ["cc"]);
        for (table, key) in
            [("licenses", "deny"), ("bans", "allow"), ("bans", "empty"), ("bans", "odd"), ("none", "allow")]
        {
            let error = list(text, table, key).unwrap_err();
            assert!(error.contains(table) && error.contains(key), "{error}");
        }
        let own = Rules::read().unwrap();
        assert!(own.licences.len() > 10 && own.licences.iter().any(|licence| licence == "MIT"));
        assert!(["cc", "ring", "cmake"].iter().all(|name| own.foreign.iter().any(|known| known == name)));
    }
}
