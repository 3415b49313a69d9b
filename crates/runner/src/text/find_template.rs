//! Chat templates: the default one of a model, one in a file, or one of this library.

use std::path::Path;

use phi3_model::gguf::Vocabulary;

use super::companions::{Beside, Fields};
use super::error::{Error, Result};
use super::template::{ChatTemplate, special_tokens_of_gguf, text_of_file};
use super::templates::ChatTemplates;

/// The templates of this library by name, with the tokens that begin and end a text in their models.
const NAMED: [(&str, &str, [&str; 2]); 10] = [
    ("chatml", include_str!("templates/chatml.jinja"), ["", "<|im_end|>"]),
    ("phi-3", include_str!("templates/phi-3.jinja"), ["<s>", "<|endoftext|>"]),
    ("phi-3-medium", include_str!("templates/phi-3-medium.jinja"), ["<s>", "<|endoftext|>"]),
    ("phi-3-mini-first-release", include_str!("templates/phi-3-mini-first-release.jinja"), ["<s>", "<|endoftext|>"]),
    ("phi-3-small", include_str!("templates/phi-3-small.jinja"), ["<|endoftext|>", "<|endoftext|>"]),
    ("phi-3-vision", include_str!("templates/phi-3-vision.jinja"), ["<s>", "<|endoftext|>"]),
    ("phi-3.5", include_str!("templates/phi-3.5.jinja"), ["<s>", "<|endoftext|>"]),
    ("phi-4", include_str!("templates/phi-4.jinja"), ["<|endoftext|>", "<|im_end|>"]),
    ("phi-4-first-release", include_str!("templates/phi-4-first-release.jinja"), ["<|endoftext|>", "<|im_end|>"]),
    ("phi-4-mini", include_str!("templates/phi-4-mini.jinja"), ["<|endoftext|>", "<|endoftext|>"]),
];

/// The special tokens of a model, for templates from another source.
#[derive(Clone, Debug, Default)]
pub struct SpecialTokens(Vec<(String, String)>);

impl SpecialTokens {
    /// The special tokens of the tokenizer in a folder.
    ///
    /// # Errors
    /// A file cannot be read or is malformed.
    pub fn of_checkpoint(folder: impl AsRef<Path>) -> Result<Self> {
        Beside::read(folder.as_ref())?.special_tokens().map(Self)
    }

    /// The special tokens of a GGUF file.
    pub fn of_gguf(vocabulary: &Vocabulary) -> Self {
        Self(special_tokens_of_gguf(vocabulary))
    }
}

impl ChatTemplate {
    /// The default template of the checkpoint in a folder, as [`ChatTemplates::of_checkpoint`] finds it.
    ///
    /// # Errors
    /// There is no template, or a file is malformed.
    pub fn from_checkpoint(folder: impl AsRef<Path>) -> Result<Self> {
        ChatTemplates::of_checkpoint(folder)?.main()
    }

    /// The default template in the text of a `tokenizer_config.json`; `name` is its name in errors.
    ///
    /// # Errors
    /// There is no template, or the text is malformed.
    pub fn from_config(name: impl Into<String>, text: &str) -> Result<Self> {
        ChatTemplates::of_config(name, text)?.main()
    }

    /// The template in a file: Jinja, or JSON with a field `chat_template` (`tokenizer_config.json`, `chat_template.json`).
    ///
    /// # Errors
    /// The file cannot be read, or holds no valid template.
    pub fn from_file(path: impl AsRef<Path>, tokens: SpecialTokens) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })?;
        let file = path.display().to_string();
        let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        if is_json || begins_as_object(&bytes) {
            return ChatTemplates::of_fields(&Fields::parse(path.into(), &bytes)?, tokens.0)?.main();
        }
        Self::new(file, &text_of_file(path, bytes)?, None, tokens.0)
    }

    /// A template of this library; [`names`](Self::names) lists them.
    ///
    /// # Errors
    /// There is no template of that name.
    pub fn named(name: &str, tokens: SpecialTokens) -> Result<Self> {
        let found = NAMED.into_iter().find(|(known, ..)| known.eq_ignore_ascii_case(name));
        let Some((name, source, [bos, eos])) = found else {
            return Err(Error::UnknownTemplate {
                name: name.into(),
                known: Self::names().collect::<Vec<_>>().join(", "),
            });
        };
        let mut tokens = tokens.0;
        for (token, content) in [("bos_token", bos), ("eos_token", eos)] {
            if !tokens.iter().any(|(known, _)| known == token) {
                tokens.push((token.into(), content.into()));
            }
        }
        Self::new(format!("chat template {name}"), source, None, tokens)
    }

    /// The names of this library's templates.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMED.into_iter().map(|(name, ..)| name)
    }

    /// The template in a file, or the template of that name if there is no such file.
    ///
    /// # Errors
    /// There is neither, or the file holds no valid template.
    pub fn from_file_or_name(file_or_name: &str, tokens: SpecialTokens) -> Result<Self> {
        let is_name = Self::names().any(|name| name.eq_ignore_ascii_case(file_or_name));
        let looks_like_a_path = file_or_name.contains(['/', '\\']) || Path::new(file_or_name).extension().is_some();
        match Path::new(file_or_name).is_file() || looks_like_a_path && !is_name {
            true => Self::from_file(file_or_name, tokens),
            false => Self::named(file_or_name, tokens),
        }
    }
}

/// Whether bytes begin like a JSON object and not like a Jinja template.
fn begins_as_object(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes).trim_ascii_start();
    bytes.strip_prefix(b"{").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"\""))
}
