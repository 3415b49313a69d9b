//! Pre-tokenizers of byte-level vocabularies, which split a text before merging: regular expressions, and their names in GGUF
//! files (`tokenizer.ggml.pre`).

use serde_json::{Value, json};

/// A rule to split a text before merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// That of GPT-2, for Phi-1, Phi-1.5 and Phi-2.
    Gpt2,
    /// That of cl100k_base, for Phi-3-small and phi-4.
    Cl100k,
    /// That of o200k_base, for Phi-4-mini.
    O200k,
    /// That of cl100k_base with single digits, as in Qwen 2.
    Digits,
}

/// A rule, the name that is written for it, and the other names that converters write.
const NAMES: [(Rule, &str, &[&str]); 4] = [
    (Rule::Gpt2, "phi-2", &["gpt-2", "olmo", "mpt", "roberta-bpe"]),
    (Rule::Cl100k, "dbrx", &["smaug-bpe", "llama-bpe", "llama3", "llama-v3"]),
    (Rule::O200k, "gpt-4o", &["llama4"]),
    (Rule::Digits, "qwen2", &["stablelm2"]),
];

/// The names whose vocabularies encode a piece that is a token as that token, without merges.
const WHOLE_PIECES: [&str; 3] = ["llama-bpe", "llama3", "llama-v3"];

impl Rule {
    /// The rule that `tokenizer.ggml.pre` names; `None` for "default" and unknown names.
    pub(super) fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, own, others)| *own == name || others.contains(&name)).map(|(rule, ..)| *rule)
    }

    /// The rule of the Phi model with a vocabulary of this size, with or without padding rows.
    pub(super) fn of_size(tokens: usize) -> Option<Self> {
        match tokens {
            50_256..=51_200 => Some(Self::Gpt2),
            100_256..=100_352 => Some(Self::Cl100k),
            199_998..=200_064 => Some(Self::O200k),
            _ => None,
        }
    }

    /// Every name, for messages.
    pub(super) fn known() -> String {
        let names = NAMES.iter().flat_map(|(_, own, others)| std::iter::once(own).chain(others.iter()));
        names.map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
    }

    /// The name in `tokenizer.ggml.pre`.
    pub(super) fn name(self) -> &'static str {
        NAMES.iter().find(|(rule, ..)| *rule == self).map_or("default", |(_, name, _)| name)
    }

    /// The regular expression of a piece; `None` for GPT-2's, which is built into the library.
    fn pattern(self) -> Option<&'static str> {
        match self {
            Self::Gpt2 => None,
            Self::Cl100k => Some(concat!(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
                r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            )),
            Self::O200k => Some(concat!(
                r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
                r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            )),
            Self::Digits => Some(concat!(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
                r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            )),
        }
    }

    /// The field `pre_tokenizer` of a `tokenizer.json`.
    pub(super) fn pre_tokenizer(self, add_prefix_space: bool) -> Value {
        match self.pattern() {
            None => byte_level(add_prefix_space, true),
            Some(pattern) => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
                byte_level(add_prefix_space, false),
            ]}),
        }
    }

    /// The rule nearest to a `pre_tokenizer`, by characteristic parts of its expressions.
    pub(super) fn nearest(pre_tokenizer: &Value) -> Self {
        let mut expressions = Vec::new();
        collect(pre_tokenizer, &mut expressions);
        let has = |part: &str| expressions.iter().any(|text| text.contains(part));
        match () {
            () if has(r"\p{Lu}") => Self::O200k,
            () if has(r"\p{N}{1,3}") => Self::Cl100k,
            () if has(r"[^\r\n\p{L}\p{N}]?\p{L}+") => Self::Digits,
            () => Self::Gpt2,
        }
    }
}

/// Whether vocabularies of this name encode a piece that is a token as that token, without merges.
pub(super) fn takes_whole_pieces(name: &str) -> bool {
    WHOLE_PIECES.contains(&name)
}

/// A step that converts a text's bytes to characters, or, as a decoder, characters to bytes.
pub(super) fn byte_level(add_prefix_space: bool, use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": use_regex})
}

fn collect<'a>(step: &'a Value, expressions: &mut Vec<&'a str>) {
    expressions.extend(step["pattern"]["Regex"].as_str());
    step["pretokenizers"].as_array().into_iter().flatten().for_each(|step| collect(step, expressions));
}
