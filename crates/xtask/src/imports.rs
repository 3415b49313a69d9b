//! Circles of files that import each other, within a crate.
//!
//! A file may import its submodules' items and a submodule those of the file: they are one module. Between other files imports run
//! in one direction, so that each can be read after those that it names.

use std::collections::{BTreeMap, BTreeSet};

/// A module's path within its crate.
type Module = Vec<String>;

/// A crate whose values, iteration and machine call each other: an interpreter's recursion.
const RECURSIVE: [&str; 1] = ["crates/jinja"];

/// One fault for each circle. `files` are names from the workspace's root with their text.
pub(crate) fn circles<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let mut crates: BTreeMap<&str, BTreeMap<Module, (&str, &str)>> = BTreeMap::new();
    for (name, text) in files {
        if let Some((package, file)) = name.split_once("/src/").filter(|(package, _)| !RECURSIVE.contains(package))
            && let Some(file) = file.strip_suffix(".rs")
        {
            crates.entry(package).or_default().insert(module(file), (name, text));
        }
    }
    crates.values().flat_map(faults).collect()
}

fn module(file: &str) -> Module {
    let mut path: Module = file.split('/').map(str::to_owned).collect();
    if matches!(path.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        path.pop();
    }
    path
}

fn faults(modules: &BTreeMap<Module, (&str, &str)>) -> Vec<String> {
    let imports: BTreeMap<&Module, BTreeSet<&Module>> =
        modules.iter().map(|(module, (_, text))| (module, imports(module, text, modules))).collect();
    let mut faults = Vec::new();
    let mut told = BTreeSet::new();
    for &start in imports.keys() {
        let Some(circle) =
            circle(start, &imports).filter(|circle| told.insert(circle.iter().copied().collect::<BTreeSet<_>>()))
        else {
            continue;
        };
        let names: Vec<&str> = circle.iter().map(|module| modules[*module].0).collect();
        faults.push(format!("{}: imports run in a circle: {}", names[0], names.join(" → ")));
    }
    faults
}

/// The shortest circle through a module.
fn circle<'a>(start: &'a Module, imports: &BTreeMap<&'a Module, BTreeSet<&'a Module>>) -> Option<Vec<&'a Module>> {
    let mut paths = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while !paths.is_empty() {
        let mut longer = Vec::new();
        for path in paths {
            for &next in imports.get(path[path.len() - 1]).into_iter().flatten() {
                if next == start {
                    return Some(path);
                }
                if seen.insert(next) {
                    longer.push([path.as_slice(), &[next]].concat());
                }
            }
        }
        paths = longer;
    }
    None
}

/// The modules that a file's `use` declarations name, but the crate's root, the modules around it and the tests' imports.
fn imports<'a>(module: &Module, text: &str, modules: &'a BTreeMap<Module, (&str, &str)>) -> BTreeSet<&'a Module> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let mut found = BTreeSet::new();
    for declaration in code.split(';').filter_map(used) {
        for path in expanded(&declaration) {
            let Some(path) = absolute(module, &path) else { continue };
            let named = (1..=path.len()).rev().find_map(|len| modules.get_key_value(&path[..len]));
            found.extend(named.map(|(name, _)| name).filter(|name| !module.starts_with(name)));
        }
    }
    found
}

/// The path of a `use` declaration that ends a piece of text.
fn used(piece: &str) -> Option<String> {
    let line = piece.rfind("\nuse ").map(|at| at + 5).or_else(|| piece.starts_with("use ").then_some(4));
    let line =
        line.or_else(|| Some(piece.rfind(" use ")? + 5).filter(|at| piece[..*at].trim_end().contains("\npub")))?;
    let path: String = piece[line..].split_whitespace().collect::<Vec<_>>().join(" ");
    path.starts_with(['c', 's']).then_some(path)
}

/// The single paths of one with braces.
fn expanded(path: &str) -> Vec<String> {
    let Some(open) = path.find('{') else { return vec![path.trim().to_owned()] };
    let (mut depth, mut parts, mut part) = (0, Vec::new(), String::new());
    for c in path[open + 1..].chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
    parts.flat_map(|part| expanded(&format!("{}{part}", &path[..open]))).collect()
}

/// A path from the crate's root; `None` of another crate.
fn absolute(module: &Module, path: &str) -> Option<Module> {
    let mut parts = path.split("::").map(|part| part.split(" as ").next().unwrap_or(part).trim().to_owned()).peekable();
    let mut base = match parts.peek().map(String::as_str) {
        Some("crate") => Vec::new(),
        Some("self" | "super") => module.clone(),
        _ => return None,
    };
    while let Some(part) = parts.next_if(|part| ["crate", "self", "super"].contains(&part.as_str())) {
        if part == "super" {
            base.pop();
        }
    }
    base.extend(parts.filter(|part| part != "self"));
    Some(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_found() {
        let files = [
            ("crates/a/src/lib.rs", "mod one;\nmod two;\nmod three;\npub use one::One;\n"),
            ("crates/a/src/one.rs", "use crate::two::{self, Two};\nuse std::fmt;\n"),
            ("crates/a/src/two.rs", "//! Two.\n\nuse super::three::{Three,\n    sub::Sub};\n"),
            ("crates/a/src/three.rs", "pub mod sub;\nuse sub::Sub;\nuse crate::{Error, one::One as First};\n"),
            (
                "crates/a/src/three/sub.rs",
                "use super::Three;\n#[cfg(test)]\nmod tests {\n    use crate::two::Two;\n}\n",
            ),
        ];
        let found = circles(files.into_iter());
        assert_eq!(
            found,
            [
                "crates/a/src/one.rs: imports run in a circle: crates/a/src/one.rs → crates/a/src/two.rs → crates/a/src/three.rs"
            ]
        );
        assert!(circles(files.into_iter().take(3)).is_empty());
    }
}
