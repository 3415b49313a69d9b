//! The chat templates of a model: their places in a folder and in a GGUF file, and their names.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use phi3_model::gguf::{Metadata, MetadataList, MetadataValue, Vocabulary};
use serde_json::Value;

use super::companions::{Beside, Fields};
use super::error::{Error, Result};
use super::template::{ChatTemplate, special_tokens_of_gguf, text_of_file};

/// Names of the default template and of the one for conversations with tools.
const DEFAULT: &str = "default";
const TOOLS: &str = "tool_use";

/// Key of the names of all templates in a GGUF file but the default one.
const NAMES: &str = "tokenizer.chat_templates";

/// Key of the default template; followed by a dot and a name, key of another one.
const KEY: &str = "tokenizer.chat_template";

/// The chat templates of a model by name, with the special tokens that they can name.
#[derive(Clone, Debug)]
pub struct ChatTemplates {
    file: String,
    sources: BTreeMap<String, String>,
    tokens: Vec<(String, String)>,
}

impl ChatTemplates {
    /// The templates of the checkpoint in a folder, in the order of transformers: `chat_template.jinja` with those in
    /// `additional_chat_templates`, else the field `chat_template` of `tokenizer_config.json`, else that of
    /// `chat_template.json`.
    ///
    /// # Errors
    /// A file cannot be read or is malformed.
    pub fn of_checkpoint(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let beside = Beside::read(folder)?;
        let tokens = beside.special_tokens()?;
        let own = folder.join("chat_template.jinja");
        let mut sources = BTreeMap::new();
        if let Some(source) = read_if_there(&own)? {
            sources.insert(DEFAULT.to_owned(), text_of_file(&own, source)?);
        }
        additional(&folder.join("additional_chat_templates"), &mut sources)?;
        if !sources.is_empty() {
            return Ok(Self { file: own.display().to_string(), sources, tokens });
        }
        if let Some(config) = beside.config.as_ref().filter(|config| config.get("chat_template").is_some()) {
            return Self::of_fields(config, tokens);
        }
        match Fields::read(folder, "chat_template.json")? {
            Some(processor) => Self::of_fields(&processor, tokens),
            None => Ok(Self { file: folder.join("tokenizer_config.json").display().to_string(), sources, tokens }),
        }
    }

    /// The templates in the text of a `tokenizer_config.json`; `name` is its name in errors.
    ///
    /// # Errors
    /// The text is malformed.
    pub fn of_config(name: impl Into<String>, text: &str) -> Result<Self> {
        let fields = Fields::parse(name.into().into(), text.as_bytes())?;
        let tokens = fields.special_tokens()?;
        Self::of_fields(&fields, tokens)
    }

    /// The templates of a GGUF file.
    ///
    /// # Errors
    /// A key is not a string.
    pub fn of_gguf(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Self> {
        let mut sources = BTreeMap::new();
        sources.extend(vocabulary.chat_template.clone().map(|source| (DEFAULT.to_owned(), source)));
        for key in metadata.keys() {
            if let Some(name) = key.strip_prefix(KEY).and_then(|rest| rest.strip_prefix('.'))
                && let Some(source) = metadata.string(key)?
            {
                sources.entry(name.to_owned()).or_insert(source);
            }
        }
        let file = vocabulary.path().display().to_string();
        Ok(Self { file, sources, tokens: special_tokens_of_gguf(vocabulary) })
    }

    /// The field `chat_template`: a text, a list of named templates, or an object with a template for each name.
    pub(super) fn of_fields(fields: &Fields, tokens: Vec<(String, String)>) -> Result<Self> {
        let mut sources = BTreeMap::new();
        match fields.get("chat_template") {
            None => {}
            Some(Value::String(source)) => drop(sources.insert(DEFAULT.to_owned(), source.clone())),
            Some(Value::Array(list)) => {
                for (i, entry) in list.iter().enumerate() {
                    let (Some(name), Some(source)) = (entry["name"].as_str(), entry["template"].as_str()) else {
                        let expected = "an object with the strings `name` and `template`";
                        return Err(fields.bad(&format!("chat_template[{i}]"), expected, entry));
                    };
                    sources.insert(name.to_owned(), source.to_owned());
                }
            }
            Some(Value::Object(map)) => {
                for (name, source) in map {
                    let bad = || fields.bad(&format!("chat_template.{name}"), "a string", source);
                    sources.insert(name.clone(), source.as_str().ok_or_else(bad)?.to_owned());
                }
            }
            Some(other) => return Err(fields.bad("chat_template", "a string, a list or an object", other)),
        }
        Ok(Self { file: fields.path.display().to_string(), sources, tokens })
    }

    /// The default template; for conversations with tools, the template named `tool_use`, if there is one.
    ///
    /// # Errors
    /// There is no such template, or it is not valid Jinja.
    pub fn main(&self) -> Result<ChatTemplate> {
        let Some(source) = self.sources.get(DEFAULT) else {
            let names = self.names().collect::<Vec<_>>().join(", ");
            let found = if names.is_empty() { String::new() } else { format!(" named `default`, only: {names}") };
            return Err(Error::NoTemplate { file: self.file.clone(), found });
        };
        let with_tools = self.sources.get(TOOLS).map(String::as_str);
        ChatTemplate::new(self.file.clone(), source, with_tools, self.tokens.clone())
    }

    /// The template of a name, for conversations with tools and without; `None` if there is none.
    ///
    /// # Errors
    /// It is not valid Jinja.
    pub fn named(&self, name: &str) -> Result<Option<ChatTemplate>> {
        let template = |source| ChatTemplate::new(self.file.clone(), source, None, self.tokens.clone());
        self.sources.get(name).map(|source| template(source)).transpose()
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// The text of a template.
    pub fn source(&self, name: &str) -> Option<&str> {
        self.sources.get(name).map(String::as_str)
    }

    /// The same templates with the special tokens of a GGUF file.
    pub(crate) fn with_tokens_of(&self, written: &Vocabulary) -> Self {
        Self { tokens: special_tokens_of_gguf(written), ..self.clone() }
    }

    /// The keys of a GGUF file for all templates but the default one. A key has letters, digits and underscores only; adds a note
    /// for each template that is left out because its key is taken.
    pub(crate) fn to_metadata(&self, notes: &mut Vec<String>) -> MetadataList {
        let mut keyed: BTreeMap<String, &str> = BTreeMap::new();
        for (name, source) in self.sources.iter().filter(|(name, _)| *name != DEFAULT) {
            let key: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            match keyed.entry(key) {
                Entry::Vacant(free) => drop(free.insert(source)),
                Entry::Occupied(taken) => notes.push(format!(
                    "the chat template {name:?} is left out: the file has another one as {:?}",
                    taken.key()
                )),
            }
        }
        if keyed.is_empty() {
            return MetadataList::new();
        }
        let names = MetadataValue::Strings(keyed.keys().cloned().collect());
        let keys =
            keyed.into_iter().map(|(name, source)| (format!("{KEY}.{name}"), MetadataValue::String(source.into())));
        std::iter::once((NAMES.to_owned(), names)).chain(keys).collect()
    }
}

/// The bytes of a file; `None` if it does not exist.
fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        // a dangling link is an error, not an absent file
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.symlink_metadata().is_err() => Ok(None),
        Err(source) => Err(Error::Read { path: path.into(), source }),
    }
}

/// Templates in files of their own, by the files' names.
fn additional(folder: &Path, templates: &mut BTreeMap<String, String>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(|source| Error::Read { path: folder.into(), source })?.path();
        let is_template = path.extension().is_some_and(|extension| extension == "jinja");
        if let (true, Some(name)) = (is_template, path.file_stem()) {
            let bytes = std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
            templates.insert(name.to_string_lossy().into_owned(), text_of_file(&path, bytes)?);
        }
    }
    Ok(())
}
