//! Findings of the self-checks of earlier starts: a small text file per adapter and driver.

use super::adapter::AdapterInfo;
use phi3_shaders::Tier;
use std::fs;
use std::path::{Path, PathBuf};

/// Translator of the shader sources for the driver; a test compares the versions with Cargo.lock.
const TRANSLATOR: &str = "naga 30.0.1, wgpu 30.0.1, wgpu-core 30.0.1, wgpu-hal 30.0.1";

/// A folder in which findings are kept.
pub(crate) struct Memory {
    file: PathBuf,
    /// Subject of the findings; the first line of the file.
    about: String,
    findings: Vec<(Tier, Option<String>)>,
}

impl Memory {
    /// Findings about an adapter and driver. A file that cannot be read, or that is about another device, other kernels or
    /// another translator of them, is ignored.
    pub(crate) fn open(folder: &Path, info: &AdapterInfo) -> Self {
        let AdapterInfo { name, backend, driver, .. } = info;
        let revision = phi3_shaders::REVISION;
        let about = one_line(&format!("{name} {backend} {driver} kernels {revision} {TRANSLATOR}"));
        let file = folder.join(format!("gpu-{:016x}.txt", hash(about.as_bytes())));
        let text = fs::read_to_string(&file).unwrap_or_default();
        let mut lines = text.lines();
        let findings = match lines.next() {
            Some(first) if first == about => lines.filter_map(finding).collect(),
            _ => Vec::new(),
        };
        Self { file, about, findings }
    }

    /// The finding about a tier: no fault, or a fault. `None` without a finding.
    pub(crate) fn find(&self, tier: Tier) -> Option<Option<&str>> {
        self.findings.iter().find(|(of, _)| *of == tier).map(|(_, fault)| fault.as_deref())
    }

    /// Keeps a finding. If the file cannot be written, the next start checks again.
    pub(crate) fn keep(&mut self, tier: Tier, fault: Option<String>) {
        self.findings.retain(|(of, _)| *of != tier);
        self.findings.push((tier, fault.map(|fault| one_line(&fault))));
        let mut text = format!("{}\n", self.about);
        for (tier, fault) in &self.findings {
            match fault {
                Some(fault) => text.push_str(&format!("{} wrong {fault}\n", tier.name())),
                None => text.push_str(&format!("{} right\n", tier.name())),
            }
        }
        replace(&self.file, text.as_bytes());
    }
}

/// Replaces a file as a whole and creates its folder. Returns whether that succeeded.
pub(crate) fn replace(file: &Path, bytes: &[u8]) -> bool {
    let new = file.with_extension(format!("{}.new", std::process::id()));
    let written = file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&new, bytes));
    let replaced = written.and_then(|()| fs::rename(&new, file)).is_ok();
    if !replaced {
        let _ = fs::remove_file(&new);
    }
    replaced
}

fn finding(line: &str) -> Option<(Tier, Option<String>)> {
    let (tier, found) = line.split_once(' ')?;
    let tier = Tier::from_name(tier)?;
    match found.split_once(' ') {
        Some(("wrong", fault)) => Some((tier, Some(fault.to_owned()))),
        None if found == "right" => Some((tier, None)),
        _ => None,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(500).collect()
}

/// FNV-1a.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_translator_is_the_one_in_the_lock_file() {
        let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock")).unwrap();
        let locked = |name| {
            let (_, package) = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).unwrap();
            assert!(!package.contains(&format!("name = \"{name}\"")), "two versions of {name}");
            format!("{name} {}", package.split_once('"').unwrap().0)
        };
        assert_eq!(["naga", "wgpu", "wgpu-core", "wgpu-hal"].map(locked).join(", "), TRANSLATOR);
    }
}
