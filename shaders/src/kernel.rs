//! A composed kernel, and what its text says of itself.

use crate::{FOLD, PAGE, Part};
use std::fmt::Write;

/// How a kernel uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// A uniform.
    Uniform,
    /// Storage that it reads.
    Read,
    /// Storage that it reads and writes.
    ReadWrite,
}

/// A binding of group 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its number.
    pub number: u32,
    /// How it is used.
    pub access: Access,
}

/// A kernel: WGSL with the entry point `main`, and what a host must know to launch it.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Names of its parts, joined by dots.
    pub name: String,
    /// The text.
    pub source: String,
    /// Bindings of the text, by number.
    pub bindings: Vec<Binding>,
    /// Threads of a workgroup, by axis.
    pub workgroup: [u32; 3],
}

impl Kernel {
    pub(crate) fn compose(parts: &[Part], constants: &[(&str, u32)]) -> Self {
        let mut source = String::new();
        for (name, value) in [("FOLD", FOLD), ("PAGE", PAGE)].iter().chain(constants) {
            // writing to a string cannot fail
            let _ = writeln!(source, "const {name}: u32 = {value}u;");
        }
        source.push_str(include_str!("../kernels/prelude.wgsl"));
        for (_, text) in parts {
            source.push('\n');
            source.push_str(text);
        }
        let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
        Self { name: names.join("."), bindings: bindings(&source), workgroup: workgroup(&source), source }
    }
}

/// Reads lines such as `@group(0) @binding(5) var<storage, read_write> out: array<f32>;`.
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

/// Reads the first `@workgroup_size(x, y, z)`, where y and z may be left out.
fn workgroup(source: &str) -> [u32; 3] {
    let mut size = [1; 3];
    if let Some((list, _)) = source.split_once("@workgroup_size(").and_then(|(_, rest)| rest.split_once(')')) {
        for (size, text) in size.iter_mut().zip(list.split(',')) {
            *size = text.trim().parse().unwrap_or(1);
        }
    }
    size
}
