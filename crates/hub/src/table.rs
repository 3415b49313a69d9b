//! Short names of the published models that the engine runs.

/// A published model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShortName {
    /// The short name.
    pub name: &'static str,
    /// The repository of its safetensors weights.
    pub repo: &'static str,
    /// A repository of its weights as GGUF files, selected by a quantization after a colon; if none is known, the same as `repo`.
    pub gguf: &'static str,
    /// Its parameters, in billions (10^9).
    pub parameters: f32,
    /// Context length in tokens.
    pub context: u32,
}

const fn row(name: &'static str, repo: &'static str, gguf: &'static str, parameters: f32, context: u32) -> ShortName {
    ShortName { name, repo, gguf, parameters, context }
}

const fn own(name: &'static str, repo: &'static str, parameters: f32, context: u32) -> ShortName {
    row(name, repo, repo, parameters, context)
}

/// Every short name. The GGUF repositories hold files of the architectures `phi3` and `phi2`. Those of Phi-3-mini have the
/// weights of July 2024, which its repository has had since.
#[rustfmt::skip]
pub const SHORT_NAMES: [ShortName; 21] = [
    own("phi-1", "microsoft/phi-1", 1.4, 2048),
    own("phi-1.5", "microsoft/phi-1_5", 1.4, 2048),
    row("phi-2", "microsoft/phi-2", "TheBloke/phi-2-GGUF", 2.8, 2048),
    row("phi-3-mini-4k", "microsoft/Phi-3-mini-4k-instruct", "bartowski/Phi-3.1-mini-4k-instruct-GGUF", 3.8, 4096),
    row("phi-3-mini-128k", "microsoft/Phi-3-mini-128k-instruct", "bartowski/Phi-3.1-mini-128k-instruct-GGUF", 3.8, 131_072),
    row("phi-3-medium-4k", "microsoft/Phi-3-medium-4k-instruct", "bartowski/Phi-3-medium-4k-instruct-GGUF", 14.0, 4096),
    row("phi-3-medium-128k", "microsoft/Phi-3-medium-128k-instruct", "bartowski/Phi-3-medium-128k-instruct-GGUF", 14.0, 131_072),
    own("phi-3-small-8k", "microsoft/Phi-3-small-8k-instruct", 7.4, 8192),
    own("phi-3-small-128k", "microsoft/Phi-3-small-128k-instruct", 7.4, 131_072),
    own("phi-3-vision", "microsoft/Phi-3-vision-128k-instruct", 4.1, 131_072),
    row("phi-3.5-mini", "microsoft/Phi-3.5-mini-instruct", "bartowski/Phi-3.5-mini-instruct-GGUF", 3.8, 131_072),
    own("phi-3.5-vision", "microsoft/Phi-3.5-vision-instruct", 4.1, 131_072),
    own("phi-3.5-moe", "microsoft/Phi-3.5-MoE-instruct", 41.9, 131_072),
    own("phi-mini-moe", "microsoft/Phi-mini-MoE-instruct", 7.6, 4096),
    own("phi-tiny-moe", "microsoft/Phi-tiny-MoE-instruct", 3.8, 4096),
    row("phi-4", "microsoft/phi-4", "bartowski/phi-4-GGUF", 14.7, 16_384),
    row("phi-4-reasoning", "microsoft/Phi-4-reasoning", "bartowski/microsoft_Phi-4-reasoning-GGUF", 14.7, 32_768),
    row("phi-4-reasoning-plus", "microsoft/Phi-4-reasoning-plus", "bartowski/microsoft_Phi-4-reasoning-plus-GGUF", 14.7, 32_768),
    own("phi-4-reasoning-vision", "microsoft/Phi-4-reasoning-vision-15B", 15.1, 32_768),
    row("phi-4-mini", "microsoft/Phi-4-mini-instruct", "bartowski/microsoft_Phi-4-mini-instruct-GGUF", 3.8, 131_072),
    row("phi-4-mini-reasoning", "microsoft/Phi-4-mini-reasoning", "bartowski/microsoft_Phi-4-mini-reasoning-GGUF", 3.8, 131_072),
];

/// The model of a short name, case-insensitive.
pub(crate) fn find(name: &str) -> Option<&'static ShortName> {
    SHORT_NAMES.iter().find(|known| known.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ModelName, RepoId};

    #[test]
    fn every_short_name_names_two_repositories() {
        for known in &SHORT_NAMES {
            let repo: RepoId = known.repo.parse().unwrap();
            let gguf: RepoId = known.gguf.parse().unwrap();
            assert!(repo.as_str().starts_with("microsoft/"));
            assert!(gguf == repo || gguf.as_str().ends_with("-GGUF"));
            let name = |text: String| text.parse::<ModelName>().unwrap();
            assert_eq!(name(known.name.into()).repo(), &repo);
            assert_eq!(name(known.name.to_uppercase()).repo(), &repo);
            assert_eq!(name(format!("{}@v1", known.name)).revision(), "v1");
            assert_eq!(name(format!("{}:q4_k_m", known.name)).repo(), &gguf);
            assert_eq!(name(format!("{}:x.gguf", known.name)).repo(), &gguf);
        }
        let mut names: Vec<&str> = SHORT_NAMES.iter().map(|known| known.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SHORT_NAMES.len());
        assert!(find("phi-3").is_none());
    }
}
