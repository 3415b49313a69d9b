use std::path::Path;

use phi3_jinja::{ErrorKind, Template};
use phi3_model::gguf::Vocabulary;
use serde_json::Value;

use super::clock;
use super::error::{Error, Result};
use super::message::Message;

/// The chat template of a model: Jinja, with the settings, names and functions of transformers.
#[derive(Debug)]
pub struct ChatTemplate {
    file: String,
    template: Template,
    /// Template for conversations with tools, if it is another one.
    with_tools: Option<Template>,
    special_tokens: Vec<(String, String)>,
}

/// Effect of a message of the role `system` on a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemMessages {
    /// The prompt changes with it.
    Used,
    /// The prompt is the same with and without it.
    Dropped,
    /// The template fails with it, and renders without it.
    Refused,
}

impl ChatTemplate {
    /// A template given as text, with the special tokens that it can name.
    ///
    /// # Errors
    /// The template is not valid Jinja.
    pub fn from_source(name: impl Into<String>, source: &str, bos_token: &str, eos_token: &str) -> Result<Self> {
        let tokens = [("bos_token", bos_token), ("eos_token", eos_token)];
        let tokens = tokens.map(|(name, token)| (name.to_owned(), token.to_owned())).to_vec();
        Self::new(name.into(), source, None, tokens)
    }

    /// The default chat template of a GGUF file; [`ChatTemplates`](super::ChatTemplates) has the others.
    ///
    /// The template may print the token that begins a text, whatever `tokenizer.ggml.add_bos_token` is:
    /// [`Tokenizer::encode_chat`](super::Tokenizer::encode_chat) adds that token only if the text does not begin with it.
    ///
    /// # Errors
    /// There is no template, or it is not valid Jinja.
    pub fn from_gguf(vocabulary: &Vocabulary) -> Result<Self> {
        let file = vocabulary.path().display().to_string();
        match &vocabulary.chat_template {
            Some(source) => Self::new(file, source, None, special_tokens_of_gguf(vocabulary)),
            None => Err(Error::NoTemplate { file, found: String::new() }),
        }
    }

    pub(super) fn new(
        file: String,
        source: &str,
        with_tools: Option<&str>,
        special_tokens: Vec<(String, String)>,
    ) -> Result<Self> {
        let parse = |source: &str| Template::new(source).map_err(|error| failed(&file, &error));
        let template = parse(source)?;
        let with_tools = with_tools.map(parse).transpose()?;
        Ok(Self { file, template, with_tools, special_tokens })
    }

    /// The prompt of a conversation; with `add_generation_prompt`, up to the beginning of the model's answer.
    ///
    /// # Errors
    /// The template refuses the messages or fails on them.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.render_with_tools(messages, None, add_generation_prompt)
    }

    /// [`render`](Self::render), with a description of the tools that the model may call.
    ///
    /// # Errors
    /// The template refuses the messages or fails on them.
    pub fn render_with_tools(
        &self,
        messages: &[Message],
        tools: Option<&Value>,
        add_generation_prompt: bool,
    ) -> Result<String> {
        let template = match (&self.with_tools, tools) {
            (Some(template), Some(_)) => template,
            _ => &self.template,
        };
        let messages = Value::Array(messages.iter().map(Message::for_template).collect());
        let tools = tools.unwrap_or(&Value::Null);
        let tokens: Vec<(&str, Value)> =
            self.special_tokens.iter().map(|(name, token)| (name.as_str(), token.as_str().into())).collect();
        let prompt = Value::Bool(add_generation_prompt);
        let own = [
            ("messages", &messages),
            ("tools", tools),
            ("documents", &Value::Null),
            ("add_generation_prompt", &prompt),
        ];
        let variables: Vec<(&str, &Value)> = tokens.iter().map(|(name, token)| (*name, token)).chain(own).collect();
        template.render(&variables, clock::strftime_now).map_err(|error| failed(&self.file, &error))
    }

    /// Effect of a system message before a question.
    pub fn system_messages(&self) -> SystemMessages {
        let system = Message::system("Answer in French only, in one word.");
        let question = Message::user("Who are you?");
        let without = self.render(std::slice::from_ref(&question), true);
        match (self.render(&[system, question], true), without) {
            (Ok(with), Ok(without)) if with == without => SystemMessages::Dropped,
            (Err(_), Ok(_)) => SystemMessages::Refused,
            _ => SystemMessages::Used,
        }
    }

    /// A special token that the template can name, such as `eos_token`.
    pub fn special_token(&self, name: &str) -> Option<&str> {
        let found = self.special_tokens.iter().find(|(known, _)| *known == name);
        found.map(|(_, token)| token.as_str()).filter(|token| !token.is_empty())
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        self.template.source()
    }
}

/// The special tokens of a GGUF file, which a template can name.
pub(super) fn special_tokens_of_gguf(vocabulary: &Vocabulary) -> Vec<(String, String)> {
    let ids = [("bos_token", vocabulary.bos), ("eos_token", vocabulary.eos), ("unk_token", vocabulary.unknown)];
    let named = ids.into_iter().filter_map(|(name, id)| {
        let token = vocabulary.tokens.get(id? as usize)?;
        Some((name.to_owned(), token.clone()))
    });
    named.collect()
}

fn failed(file: &str, error: &phi3_jinja::Error) -> Error {
    match error.kind() {
        ErrorKind::Raised => Error::TemplateRaised { message: error.message().into() },
        _ => Error::TemplateFailed { file: file.into(), reason: error.to_string() },
    }
}

/// The text of a template's file, without a byte order mark.
pub(super) fn text_of_file(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let text = String::from_utf8(bytes).map_err(|error| Error::Malformed {
        file: path.display().to_string(),
        reason: format!("it is not UTF-8 text: {}", error.utf8_error()),
        hint: "a template is a text file with Jinja in it",
    })?;
    Ok(text.strip_prefix('\u{FEFF}').map(str::to_owned).unwrap_or(text))
}
