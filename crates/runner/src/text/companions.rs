//! Tokens of the files beside `tokenizer.json`: `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`. The
//! rules are those of transformers 5.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::error::{Error, Result};

const HINT: &str = "take the file from the checkpoint again";

/// Additions to a `tokenizer.json` from the files beside it, or from a GGUF file.
#[derive(Default)]
pub(super) struct Companions {
    pub(super) wanted: Vec<Wanted>,
    /// `add_prefix_space` of a byte-level vocabulary, where the tokenizer's class follows it.
    pub(super) prefix_space: Option<bool>,
    /// Whether special tokens in a text are encoded as plain text.
    pub(super) split_special_tokens: bool,
    /// The token that every chat begins with.
    pub(super) chat_begins_with: Option<u32>,
    pub(super) notes: Vec<String>,
    /// File and content of each token in a file that is not read because there is a newer one.
    pub(super) unread: Vec<(String, String)>,
}

/// A token to add to the tokenizer.
pub(super) struct Wanted {
    pub(super) token: AddedToken,
    /// Its id, if the file has it.
    pub(super) id: Option<u32>,
    /// Whether its flags replace those of `tokenizer.json`.
    pub(super) wins: bool,
    /// File and field, for notes.
    pub(super) from: String,
}

/// The JSON object of a file beside a tokenizer.
pub(super) struct Fields {
    pub(super) path: PathBuf,
    pub(super) map: Map<String, Value>,
}

impl Fields {
    /// Reads a file of a folder; `None` if it does not exist.
    pub(super) fn read(folder: &Path, name: &str) -> Result<Option<Self>> {
        let path = folder.join(name);
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        Self::parse(path, &bytes).map(Some)
    }

    /// Parses the bytes of a file.
    pub(super) fn parse(path: PathBuf, bytes: &[u8]) -> Result<Self> {
        let bytes = phi3_model::json_text(&path, bytes)?;
        let malformed = |reason: String| Error::Malformed { file: path.display().to_string(), reason, hint: HINT };
        match serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))? {
            Value::Object(map) => Ok(Self { path, map }),
            other => Err(malformed(format!("expected a JSON object, found {}", shown(&other)))),
        }
    }

    /// The special tokens that have a name, with their texts.
    pub(super) fn special_tokens(&self) -> Result<Vec<(String, String)>> {
        let extra = self.get("extra_special_tokens").and_then(Value::as_object);
        let extra = extra.into_iter().flatten().map(|(name, value)| (name.as_str(), value));
        let token = |(name, value): (&str, &Value)| Ok((name.to_owned(), self.added(name, value, Some(true))?.content));
        self.named().chain(extra).map(token).collect()
    }

    pub(super) fn at(&self, field: &str) -> String {
        format!("{}: {field}", self.path.display())
    }

    /// The field, unless it is absent or null.
    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn bad(&self, field: &str, expected: &str, found: &Value) -> Error {
        Error::Field {
            file: self.path.display().to_string(),
            field: field.into(),
            expected: expected.into(),
            found: shown(found),
            hint: HINT,
        }
    }

    /// True or false; `None` where absent or null.
    pub(super) fn boolean(&self, field: &str) -> Result<Option<bool>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.bad(field, "true or false", other)),
        }
    }

    /// The content of a special token, such as `bos_token`.
    pub(super) fn token(&self, field: &str) -> Option<&str> {
        let value = self.get(field)?;
        value.as_str().or_else(|| value["content"].as_str())
    }

    /// A token written as its text, or as an object with its flags.
    fn added(&self, field: &str, value: &Value, special: Option<bool>) -> Result<AddedToken> {
        let object = match value {
            Value::String(content) => return Ok(AddedToken::from(content.as_str(), special.unwrap_or(false))),
            Value::Object(object) => object,
            other => return Err(self.bad(field, "a token, or an object with its `content`", other)),
        };
        let Some(content) = object.get("content").and_then(Value::as_str) else {
            return Err(self.bad(field, "an object with the token's `content`", value));
        };
        let flag = |name: &str| match object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.bad(&format!("{field}.{name}"), "true or false", other)),
        };
        let special = special.or(flag("special")?).unwrap_or(false);
        Ok(AddedToken {
            content: content.into(),
            single_word: flag("single_word")?.unwrap_or(false),
            lstrip: flag("lstrip")?.unwrap_or(false),
            rstrip: flag("rstrip")?.unwrap_or(false),
            normalized: flag("normalized")?.unwrap_or(!special),
            special,
        })
    }

    /// The tokens of `added_tokens_decoder`, by id; `None` where the field is absent.
    fn decoder(&self) -> Result<Option<Vec<(u32, AddedToken)>>> {
        const FIELD: &str = "added_tokens_decoder";
        let Some(value) = self.get(FIELD) else { return Ok(None) };
        let Value::Object(tokens) = value else {
            return Err(self.bad(FIELD, "an object with a token for every id", value));
        };
        let mut list = Vec::with_capacity(tokens.len());
        for (id, token) in tokens {
            let field = format!("{FIELD}.{id}");
            let number = id.parse().map_err(|_| self.bad(FIELD, "ids as names", &Value::from(id.as_str())))?;
            list.push((number, self.added(&field, token, None)?));
        }
        list.sort_by_key(|(id, _)| *id);
        Ok(Some(list))
    }

    /// Checks that the fields of [`ORDER`] hold tokens, as transformers does.
    fn check_named(&self) -> Result<()> {
        for name in ORDER {
            if let Some(value) = self.get(name).filter(|value| !is_token(value)) {
                return Err(self.bad(name, "a token, or an object with its `content`", value));
            }
        }
        Ok(())
    }

    /// Tokens in fields named `*_token`, such as `bos_token`, `pad_token` and `image_token`.
    fn named(&self) -> impl Iterator<Item = (&str, &Value)> {
        let known = ORDER.into_iter().filter_map(|name| Some((name, self.get(name)?)));
        let others = self.map.iter().filter(|(name, _)| name.ends_with("_token") && !ORDER.contains(&name.as_str()));
        known.chain(others.map(|(name, value)| (name.as_str(), value))).filter(|(_, value)| is_token(value))
    }

    /// The tokens of `extra_special_tokens`, which older files call `additional_special_tokens`.
    fn extra(&self) -> Result<Vec<(String, AddedToken)>> {
        let filled = |name: &&str| match self.get(name) {
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
            other => other.is_some(),
        };
        let Some(name) = ["extra_special_tokens", "additional_special_tokens"].into_iter().find(filled) else {
            return Ok(Vec::new());
        };
        let token = |field: String, value: &Value| {
            let token = self.added(&field, value, Some(true))?;
            Ok((field, token))
        };
        match self.get(name) {
            Some(Value::Array(list)) => list.iter().map(|value| token(name.to_owned(), value)).collect(),
            Some(Value::Object(map)) => map.iter().map(|(key, value)| token(format!("{name}.{key}"), value)).collect(),
            Some(other) => Err(self.bad(name, "a list of tokens, or an object with named ones", other)),
            None => Ok(Vec::new()),
        }
    }
}

/// Fields of the special tokens that every tokenizer may have, in transformers' order.
const ORDER: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

fn is_token(value: &Value) -> bool {
    value.is_string() || value["content"].is_string()
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { format!("{}…", text.chars().take(60).collect::<String>()) }
}

/// The three files, if they exist.
pub(super) struct Beside {
    pub(super) config: Option<Fields>,
    pub(super) map: Option<Fields>,
    pub(super) added: Option<Fields>,
}

impl Beside {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let beside = Self {
            config: Fields::read(folder, "tokenizer_config.json")?,
            map: Fields::read(folder, "special_tokens_map.json")?,
            added: Fields::read(folder, "added_tokens.json")?,
        };
        for fields in [&beside.config, &beside.map].into_iter().flatten() {
            fields.check_named()?;
        }
        Ok(beside)
    }

    /// The special tokens that have a name: of tokenizer_config.json alone if it has `added_tokens_decoder`; else of
    /// special_tokens_map.json first, then of tokenizer_config.json.
    pub(super) fn special_tokens(&self) -> Result<Vec<(String, String)>> {
        let newer = self.config.as_ref().is_some_and(|config| config.get("added_tokens_decoder").is_some());
        let map = self.map.as_ref().filter(|_| !newer);
        let mut tokens: Vec<(String, String)> = Vec::new();
        for fields in map.into_iter().chain(&self.config) {
            for (name, content) in fields.special_tokens()? {
                if !tokens.iter().any(|(known, _)| *known == name) {
                    tokens.push((name, content));
                }
            }
        }
        Ok(tokens)
    }

    /// The tokens of the three files. If tokenizer_config.json has `added_tokens_decoder`, the others are of an older form and are
    /// not read. Without it, special_tokens_map.json has precedence over tokenizer_config.json.
    pub(super) fn companions(&self) -> Result<Companions> {
        let mut wanted = Vec::new();
        let decoder = match &self.config {
            Some(config) => config.decoder()?.map(|tokens| (config, tokens)),
            None => None,
        };
        let older = decoder.is_none();
        if let Some((config, tokens)) = decoder {
            wanted.extend(tokens.into_iter().map(|(id, token)| Wanted {
                token,
                id: Some(id),
                wins: true,
                from: config.at("added_tokens_decoder"),
            }));
        }
        let named_in: Vec<&Fields> = match older {
            true => self.map.iter().chain(&self.config).collect(),
            false => self.config.iter().collect(),
        };
        let mut names = HashSet::new();
        let mut special = Vec::new();
        for fields in &named_in {
            for (name, value) in fields.named().filter(|(name, _)| names.insert(*name)) {
                special.push((fields.at(name), fields.added(name, value, Some(true))?));
            }
        }
        for fields in &named_in {
            let extra = fields.extra()?;
            if !extra.is_empty() {
                special.extend(extra.into_iter().map(|(field, token)| (fields.at(&field), token)));
                break;
            }
        }
        if older && let Some(added) = &self.added {
            wanted.extend(of_added_tokens(added, &special)?);
        }
        wanted.extend(special.into_iter().map(|(from, token)| Wanted { token, id: None, wins: false, from }));
        let unread = if older { Vec::new() } else { self.unread()? };
        let split = match &self.config {
            Some(config) => config.boolean("split_special_tokens")?,
            None => None,
        };
        Ok(Companions { wanted, split_special_tokens: split.unwrap_or(false), unread, ..Companions::default() })
    }

    /// The tokens of the files that are not read.
    fn unread(&self) -> Result<Vec<(String, String)>> {
        let mut tokens = Vec::new();
        if let Some(map) = &self.map {
            for (name, value) in map.named() {
                tokens.push((map.at(name), map.added(name, value, Some(true))?.content));
            }
            tokens.extend(map.extra()?.into_iter().map(|(field, token)| (map.at(&field), token.content)));
        }
        if let Some(added) = &self.added {
            tokens.extend(of_added_tokens(added, &[])?.into_iter().map(|wanted| (wanted.from, wanted.token.content)));
        }
        Ok(tokens)
    }
}

/// The tokens of added_tokens.json, by id.
fn of_added_tokens(added: &Fields, special: &[(String, AddedToken)]) -> Result<Vec<Wanted>> {
    let mut tokens = Vec::with_capacity(added.map.len());
    for (token, id) in &added.map {
        let Some(number) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else {
            return Err(added.bad(token, "the id of the token", id));
        };
        let special = special.iter().any(|(_, other)| other.content == *token);
        let token = AddedToken::from(token.as_str(), special);
        tokens.push(Wanted { token, id: Some(number), wins: false, from: added.path.display().to_string() });
    }
    tokens.sort_by_key(|wanted| wanted.id);
    Ok(tokens)
}
