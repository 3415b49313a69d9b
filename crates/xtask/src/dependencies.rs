//! What the workspace depends on: licences, and no C or C++.

use std::path::PathBuf;

use serde_json::Value;

use crate::Result;
use crate::process::{cargo, output};

/// Licences under which the binary can be given away with no more than a notice.
const LICENCES: [&str; 14] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];

/// Crates that compile C or C++, or look for libraries of it.
const FOREIGN: [&str; 16] = [
    "aws-lc-sys",
    "bindgen",
    "cc",
    "cmake",
    "cxx",
    "cxx-build",
    "libmimalloc-sys",
    "libz-sys",
    "nasm-rs",
    "onig",
    "onig_sys",
    "openssl-sys",
    "pkg-config",
    "ring",
    "vcpkg",
    "zstd-sys",
];

/// Crates with a `links` field that link nothing: they use it to be there only once.
const LINKING_NOTHING: [&str; 2] = ["rayon-core", "wasm-bindgen-shared"];

/// `cargo metadata`, for all platforms.
pub(crate) struct Metadata(Value);

impl Metadata {
    pub(crate) fn load() -> Result<Self> {
        let text = output(cargo().args(["metadata", "--format-version", "1"]))?;
        serde_json::from_str(&text).map(Self).map_err(|error| format!("cargo metadata: {error}"))
    }

    /// What is wrong with the dependencies, one line each.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for package in self.packages() {
            let name = text(package, "name");
            let licence = text(package, "license");
            if !is_allowed(licence) {
                faults.push(format!("{name}: licence {licence:?} is not in the list of xtask's dependencies.rs"));
            }
            let links = text(package, "links");
            if FOREIGN.contains(&name) {
                faults
                    .push(format!("{name} compiles or links C; `cargo tree --target all -i {name}` says who needs it"));
            } else if !links.is_empty() && !LINKING_NOTHING.contains(&name) {
                faults.push(format!("{name} links the library {links:?}"));
            }
        }
        faults
    }

    /// The crates of the workspace that are published.
    pub(crate) fn published_members(&self) -> Vec<String> {
        let local = self.packages().filter(|package| package["source"].is_null() && package["publish"].is_null());
        local.map(|package| text(package, "name").to_owned()).collect()
    }

    /// Where `cargo package` puts a crate.
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

/// Reads an SPDX expression: one of its alternatives, with all of its parts, must be in the list.
fn is_allowed(licence: &str) -> bool {
    let licence = licence.trim();
    if let Some(inner) = licence.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'))
        && !inner.contains(['(', ')'])
    {
        return is_allowed(inner);
    }
    // The old way to write OR.
    if let Some(parts) = split(licence, "/").or_else(|| split(licence, " OR ")) {
        return parts.into_iter().any(is_allowed);
    }
    match split(licence, " AND ") {
        Some(parts) => parts.into_iter().all(is_allowed),
        None => LICENCES.contains(&licence),
    }
}

/// Splits at an operator outside of parentheses, if there is one.
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

    #[test]
    fn licence_expressions() {
        for good in ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "(MIT OR GPL-2.0) AND Unicode-3.0", "Apache-2.0 / MIT"]
        {
            assert!(is_allowed(good), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-2.0", "(GPL-2.0 OR LGPL-2.1) AND MIT"] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }
}
