//! A composed kernel, and the bindings and workgroup size parsed from its source.

use crate::{FOLD, PAGE, Part};
use std::fmt::Write;

/// Access of a kernel to a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Uniform buffer.
    Uniform,
    /// Read-only storage buffer.
    Read,
    /// Read-write storage buffer.
    ReadWrite,
}

/// A binding of group 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Binding number.
    pub number: u32,
    /// Access by the kernel.
    pub access: Access,
}

/// WGSL with the entry point `main`, and the bindings and workgroup size that a host needs for a dispatch.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Names of its parts, joined by dots.
    pub name: String,
    /// WGSL source.
    pub source: String,
    /// Bindings of the source, sorted by number.
    pub bindings: Vec<Binding>,
    /// Threads of a workgroup along x, y and z.
    pub workgroup: [u32; 3],
}

impl Kernel {
    pub(crate) fn compose(parts: &[Part], constants: &[(&str, u32)]) -> Self {
        let mut text = String::new();
        for (name, value) in [("FOLD", FOLD), ("PAGE", PAGE)].iter().chain(constants) {
            // writing to a string cannot fail
            let _ = writeln!(text, "const {name}: u32 = {value}u;");
        }
        text.push_str(include_str!("../kernels/prelude.wgsl"));
        for (_, part) in parts {
            text.push('\n');
            text.push_str(part);
        }
        let source = enabled(&unrolled(&text, constants));
        let names: Vec<&str> = parts.iter().map(|(name, _)| *name).filter(|name| !name.is_empty()).collect();
        Self { name: names.join("."), bindings: bindings(&source), workgroup: workgroup(&source), source }
    }

    /// The same kernel with a dot and `more` appended to its name.
    pub(crate) fn named(mut self, more: &str) -> Self {
        self.name = format!("{}.{more}", self.name);
        self
    }
}

/// Source with constants substituted and loops unrolled, for shader compilers that do not unroll. `$(NAME)` becomes the
/// value of constant NAME. Lines between `// for i in COUNT` and `// end` are repeated for `$(i)` from 0 to COUNT - 1.
fn unrolled(text: &str, constants: &[(&str, u32)]) -> String {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some((name, count)) = line.trim().strip_prefix("// for ").and_then(|rest| rest.split_once(" in ")) else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let count = constants.iter().find(|(name, _)| *name == count).map_or(0, |(_, value)| *value);
        let mut body = String::new();
        let mut depth = 1;
        for line in lines.by_ref() {
            depth += i32::from(line.trim().starts_with("// for ")) - i32::from(line.trim() == "// end");
            if depth == 0 {
                break;
            }
            body.push_str(line);
            body.push('\n');
        }
        for i in 0..count {
            out.push_str(&unrolled(&body.replace(&format!("$({name})"), &i.to_string()), constants));
        }
    }
    constants.iter().fold(out, |text, (name, value)| text.replace(&format!("$({name})"), &value.to_string()))
}

/// Source with its `enable` directives moved to the front, as WGSL requires.
fn enabled(text: &str) -> String {
    let (mut enables, rest): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("enable "));
    enables.extend(rest);
    enables.join("\n") + "\n"
}

/// Parses lines such as `@group(0) @binding(5) var<storage, read_write> out: array<f32>;`.
fn bindings(source: &str) -> Vec<Binding> {
    let mut bindings: Vec<Binding> = source
        .lines()
        .filter_map(|line| {
            let (number, rest) = line.trim().strip_prefix("@group(0) @binding(")?.split_once(')')?;
            let (space, _) = rest.trim().strip_prefix("var<")?.split_once('>')?;
            let access = match space {
                "uniform" => Access::Uniform,
                "storage, read" => Access::Read,
                "storage, read_write" => Access::ReadWrite,
                _ => return None,
            };
            Some(Binding { number: number.parse().ok()?, access })
        })
        .collect();
    bindings.sort_by_key(|binding| binding.number);
    bindings
}

/// Size in the first `@workgroup_size(x, y, z)`; y and z default to 1.
fn workgroup(source: &str) -> [u32; 3] {
    let mut size = [1; 3];
    if let Some((list, _)) = source.split_once("@workgroup_size(").and_then(|(_, rest)| rest.split_once(')')) {
        for (size, text) in size.iter_mut().zip(list.split(',')) {
            *size = text.trim().parse().unwrap_or(1);
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_are_written_out() {
        let text =
            "// for i in TWO\na$(i)\n// for j in ONE\n$(i)$(j)\n// end\n// for k in NONE\nno\n// end\n// end\n$(TWO)\n";
        let constants = [("TWO", 2), ("ONE", 1), ("NONE", 0)];
        assert_eq!(unrolled(text, &constants), "a0\n00\na1\n10\n2\n");
        assert_eq!(enabled("const a = 1;\nenable f16;\nb\n"), "enable f16;\nconst a = 1;\nb\n");
    }
}
