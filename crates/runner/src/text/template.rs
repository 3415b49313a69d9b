use std::error::Error as _;
use std::io;
use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value as JinjaValue};
use minijinja::{Environment, ErrorKind};
use minijinja_contrib::pycompat;
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::{Error, Result};
use super::message::Message;
use super::{clock, json, namespaces};

const NAME: &str = "chat_template";
const HINT: &str = "take the file from the checkpoint again";

/// The fields of `tokenizer_config.json` that a template can name.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A template's steps; the longest of the Phi templates takes some 60 a message.
const FUEL: u64 = 1_000_000;

/// Bytes of the stack that a template is parsed and runs on: the parser recurses as deep as the text is nested, and values
/// within values are written and dropped by recursion. Only what is used becomes real memory.
const STACK: usize = 1 << 30;

/// No template is longer than that.
const MOST_SOURCE: usize = 128 << 10;

/// No prompt is longer than that.
const MOST_BYTES: usize = 256 << 20;

/// The chat template of a checkpoint: Jinja, with the settings, names and functions that transformers gives it.
#[derive(Debug)]
pub struct ChatTemplate {
    file: String,
    environment: Environment<'static>,
    tool_environment: Option<Environment<'static>>,
    special_tokens: Vec<(&'static str, String)>,
}

impl ChatTemplate {
    /// The template of the checkpoint in a folder: `chat_template.jinja` if there is one, else the field `chat_template` of
    /// `tokenizer_config.json`.
    ///
    /// # Errors
    /// Neither file has a template, or one is malformed.
    pub fn from_checkpoint(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let config = folder.join("tokenizer_config.json");
        let template = folder.join("chat_template.jinja");
        match (read_if_there(&config)?, read_if_there(&template)?) {
            (config_text, Some(source)) => {
                let tokens = match config_text {
                    Some(text) => special_tokens(&Fields::parse(&config.display().to_string(), &text)?)?,
                    None => Vec::new(),
                };
                Self::new(template.display().to_string(), source, None, tokens)
            }
            (Some(text), None) => Self::from_config(config.display().to_string(), &text),
            (None, None) => Err(Error::NoTemplate { file: config.display().to_string(), found: String::new() }),
        }
    }

    /// The template in the text of a `tokenizer_config.json`; `name` stands for it in errors.
    ///
    /// # Errors
    /// There is no template, or the text is malformed.
    pub fn from_config(name: impl Into<String>, text: &str) -> Result<Self> {
        let fields = Fields::parse(&name.into(), text)?;
        let (source, tool_source) = fields.templates()?;
        let tokens = special_tokens(&fields)?;
        Self::new(fields.file, source, tool_source, tokens)
    }

    /// A template given as text, with the special tokens that it can name.
    ///
    /// # Errors
    /// The template is no valid Jinja.
    pub fn from_source(name: impl Into<String>, source: &str, bos_token: &str, eos_token: &str) -> Result<Self> {
        let tokens = vec![("bos_token", bos_token.to_owned()), ("eos_token", eos_token.to_owned())];
        Self::new(name.into(), source.to_owned(), None, tokens)
    }

    /// The prompt of a conversation; with `add_generation_prompt`, up to where the model's answer begins.
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
        let render = || self.render_here(messages, tools, add_generation_prompt);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("phi3-template".into()).stack_size(STACK);
            match thread.spawn_scoped(scope, render).map(|thread| thread.join()) {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(self.failed_because("the template engine gave up on it".into())),
                // no such stack to be had: the caller's does for any honest template
                Err(_) => render(),
            }
        })
    }

    fn render_here(&self, messages: &[Message], tools: Option<&Value>, add_generation_prompt: bool) -> Result<String> {
        let tokens = self.special_tokens.iter().map(|(name, token)| (*name, JinjaValue::from(token.as_str())));
        let context = JinjaValue::from_pairs(tokens.chain([
            ("messages", to_jinja(messages)),
            ("tools", tools.map_or_else(|| JinjaValue::from(()), to_jinja)),
            ("documents", JinjaValue::from(())),
            ("add_generation_prompt", JinjaValue::from(add_generation_prompt)),
        ]));
        let environment = match (&self.tool_environment, tools) {
            (Some(environment), Some(_)) => environment,
            _ => &self.environment,
        };
        namespaces::begin();
        let mut out = Limited(Vec::new());
        environment
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(context, &mut out).map(|_| ()))
            .map_err(|error| self.failed(&error))?;
        String::from_utf8(out.0).map_err(|error| self.failed_because(error.to_string()))
    }

    /// A special token that the template can name, such as `eos_token`.
    pub fn special_token(&self, name: &str) -> Option<&str> {
        let found = self.special_tokens.iter().find(|(known, _)| *known == name);
        found.map(|(_, token)| token.as_str()).filter(|token| !token.is_empty())
    }

    /// The template's text.
    pub fn source(&self) -> Option<String> {
        self.environment.get_template(NAME).ok().map(|template| template.source().to_owned())
    }

    fn new(
        file: String,
        source: String,
        tool_source: Option<String>,
        special_tokens: Vec<(&'static str, String)>,
    ) -> Result<Self> {
        let build = |source| environment(source).map_err(|error| template_error(&file, &error));
        let environment = build(source)?;
        let tool_environment = tool_source.map(build).transpose()?;
        Ok(Self { file, environment, tool_environment, special_tokens })
    }

    fn failed(&self, error: &minijinja::Error) -> Error {
        template_error(&self.file, error)
    }

    fn failed_because(&self, reason: String) -> Error {
        Error::TemplateFailed { file: self.file.clone(), reason }
    }
}

fn to_jinja<T: Serialize + ?Sized>(value: &T) -> JinjaValue {
    JinjaValue::from(Serde(value))
}

/// Jinja as transformers sets it up for chat templates.
fn environment(source: String) -> Result<Environment<'static>, minijinja::Error> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    let mut environment = Environment::new();
    environment.set_syntax(syntax.clone());
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(pycompat::unknown_method_callback);
    environment.set_fuel(Some(FUEL));
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", |format: String| clock::strftime_now(&format));
    environment.add_filter("tojson", tojson);
    // these make room for whatever size they are told, which nothing else bounds
    for filter in ["format", "batch", "slice", "indent"] {
        environment.remove_filter(filter);
    }
    environment.add_filter(namespaces::FILTER, namespaces::unshared);
    compile(&mut environment, without_generation_tags(source), syntax)?;
    Ok(environment)
}

/// Parses the template where there is room: the parser recurses as deep as a template is nested, at worst once a byte.
fn compile(
    environment: &mut Environment<'static>,
    source: String,
    syntax: SyntaxConfig,
) -> Result<(), minijinja::Error> {
    let wrong = |what: String| minijinja::Error::new(ErrorKind::SyntaxError, what);
    if source.len() > MOST_SOURCE {
        return Err(wrong(format!("it has {} bytes, more than {MOST_SOURCE}", source.len())));
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let parse =
            thread.spawn_scoped(scope, || environment.add_template_owned(NAME, namespaces::guarded(&source, syntax)));
        let parse = parse.map_err(|error| wrong(format!("no thread to parse it on: {error}")))?;
        parse.join().unwrap_or_else(|_| Err(wrong("the parser failed".into())))
    })
}

fn raise_exception(message: String) -> Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

fn tojson(value: JinjaValue, indent: Option<usize>, options: Kwargs) -> Result<JinjaValue, minijinja::Error> {
    let indent = indent.or(options.get("indent")?);
    let sorted: Option<bool> = options.get("sort_keys")?;
    let _: (Option<bool>, Option<JinjaValue>) = (options.get("ensure_ascii")?, options.get("separators")?);
    options.assert_all_used()?;
    let invalid = |error: serde_json::Error| minijinja::Error::new(ErrorKind::InvalidOperation, error.to_string());
    let mut value = serde_json::to_value(&value).map_err(invalid)?;
    if sorted == Some(true) {
        json::sort_keys(&mut value);
    }
    json::dumps(&value, indent).map(JinjaValue::from).map_err(invalid)
}

/// transformers marks what the assistant said by a block of its own, which prints its content.
fn without_generation_tags(source: String) -> String {
    if !source.contains("generation") {
        return source;
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        rest = tag;
        // `{%}` is no whole tag
        let Some(end) = tag[2..].find("%}").map(|end| end + 2) else { break };
        let (tag, after) = tag.split_at(end + 2);
        let word = tag[2..end].trim_matches(|c: char| c.is_whitespace() || matches!(c, '-' | '+'));
        match word {
            "generation" => out.push_str(&tag.replace(word, "if true")),
            "endgeneration" => out.push_str(&tag.replace(word, "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out + rest
}

fn template_error(file: &str, error: &minijinja::Error) -> Error {
    let mut cause = error.source();
    while let Some(source) = cause {
        if let Some(Raised(message)) = source.downcast_ref() {
            return Error::TemplateRaised { message: message.clone() };
        }
        cause = source.source();
    }
    let reason = match error.kind() {
        ErrorKind::OutOfFuel => format!("it takes more than {FUEL} steps"),
        _ => error.to_string(),
    };
    Error::TemplateFailed { file: file.into(), reason }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

/// Output that a template cannot grow without end.
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_BYTES {
            return Err(io::Error::other(format!("it writes more than {MOST_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The fields of a `tokenizer_config.json`.
struct Fields {
    file: String,
    map: Map<String, Value>,
}

impl Fields {
    fn parse(file: &str, text: &str) -> Result<Self> {
        let map = serde_json::from_str(text).map_err(|error| Error::Malformed {
            file: file.into(),
            reason: error.to_string(),
            hint: HINT,
        })?;
        Ok(Self { file: file.into(), map })
    }

    /// The template, and that for conversations with tools where it is another.
    fn templates(&self) -> Result<(String, Option<String>)> {
        let list = match self.map.get("chat_template") {
            Some(Value::String(source)) => return Ok((source.clone(), None)),
            Some(Value::Array(list)) => list,
            None | Some(Value::Null) => return Err(self.no_template(String::new())),
            Some(other) => return Err(self.wrong("chat_template", "a string or a list", json::kind(other))),
        };
        let mut names = Vec::new();
        let (mut default, mut tool_use) = (None, None);
        for (i, entry) in list.iter().enumerate() {
            let (Some(name), Some(source)) = (entry["name"].as_str(), entry["template"].as_str()) else {
                let field = format!("chat_template[{i}]");
                return Err(self.wrong(&field, "an object with the strings `name` and `template`", json::kind(entry)));
            };
            names.push(name);
            match name {
                "default" => default = Some(source.to_owned()),
                "tool_use" => tool_use = Some(source.to_owned()),
                _ => {}
            }
        }
        match default {
            Some(source) => Ok((source, tool_use)),
            None => Err(self.no_template(format!(" named `default`, only: {}", names.join(", ")))),
        }
    }

    fn no_template(&self, found: String) -> Error {
        Error::NoTemplate { file: self.file.clone(), found }
    }

    fn wrong(&self, field: &str, expected: &str, found: &str) -> Error {
        Error::Field {
            file: self.file.clone(),
            field: field.into(),
            expected: expected.into(),
            found: found.into(),
            hint: HINT,
        }
    }
}

/// A token is a string, or an object whose `content` is one, or null.
fn special_tokens(fields: &Fields) -> Result<Vec<(&'static str, String)>> {
    let mut tokens = Vec::new();
    for name in SPECIAL_TOKENS {
        let content = match fields.map.get(name) {
            None | Some(Value::Null) => continue,
            Some(Value::Object(token)) => token.get("content").unwrap_or(&Value::Null),
            Some(token) => token,
        };
        match content {
            Value::String(content) => tokens.push((name, content.clone())),
            other => return Err(fields.wrong(name, "a string or an object with `content`", json::kind(other))),
        }
    }
    Ok(tokens)
}

fn read_if_there(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.into(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[Message]) -> Result<String> {
        ChatTemplate::from_source("test", source, "<s>", "</s>")?.render(messages, true)
    }

    #[test]
    fn blocks_are_trimmed_as_in_transformers() {
        let source = "{% for m in messages %}\n    {% if m.role == 'user' %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\nend\n";
        assert_eq!(render(source, &[Message::user("a"), Message::user("b")]).unwrap(), "a\nb\nend");
    }

    #[test]
    fn python_habits() {
        let source = "{{ messages[0]['content'].strip().split(' ')|join('|') }} {{ none }} {{ true }} {{ x }}\
                      {% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}";
        assert_eq!(render(source, &[Message::user(" a b ")]).unwrap(), "a|b None True 01");
        assert!(matches!(render("{{ x.y }}", &[]), Err(Error::TemplateFailed { .. })));
        assert!(matches!(render("{{ 'a' + 1 }}", &[]), Err(Error::TemplateFailed { .. })));
    }

    #[test]
    fn json_keeps_order_and_letters() {
        let mut message = Message::user("");
        message.other.insert("tools".into(), serde_json::json!([{"z": "<ä>", "a": 1}]));
        let source = "{{ messages[0].tools|tojson }}{{ messages[0].tools[0]|tojson(indent=1) }}";
        assert_eq!(
            render(source, &[message]).unwrap(),
            "[{\"z\": \"<ä>\", \"a\": 1}]{\n \"z\": \"<ä>\",\n \"a\": 1\n}"
        );
    }

    #[test]
    fn generation_blocks_print_their_content() {
        let source = "a\n{%- generation -%}\n b {% endgeneration %}\nc{% if add_generation_prompt %}d{% endif %}";
        assert_eq!(render(source, &[]).unwrap(), "ab cd");
        assert_eq!(without_generation_tags("generation {% x".into()), "generation {% x");
    }

    #[test]
    fn exceptions_keep_their_words() {
        let error = render("{{ raise_exception('roles must alternate') }}", &[]).unwrap_err();
        assert!(matches!(&error, Error::TemplateRaised { message } if message == "roles must alternate"), "{error}");
    }

    #[test]
    fn templates_end() {
        let source = "{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}";
        let error = render(source, &[]).unwrap_err();
        assert!(error.to_string().contains("steps"), "{error}");
        let error = render("{{ 'a' * 999999999 }}{{ 'a' * 999999999 }}", &[]).unwrap_err();
        assert!(error.to_string().contains("steps"), "{error}");
        let doubled =
            "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
        assert!(render(doubled, &[]).unwrap_err().to_string().contains("steps"));
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
        assert!(render(&deep, &[]).is_err());
    }

    #[test]
    fn deep_values_are_refused() {
        for (open, close) in [("[", "]"), ("{'a': ", "}"), ("{'a': 1}.values()|list + [", "]")] {
            for rest in ["{{ ns.x }}", "{{ ns.x|tojson(sort_keys=true) }}"] {
                let nested = |levels: usize| {
                    let wrap = format!("{{% set ns.x = {open}ns.x{close} %}}");
                    let start = "{% set ns = namespace(x=0) %}{% for i in range(";
                    render(&format!("{start}{levels}) %}}{wrap}{{% endfor %}}{rest}"), &[])
                };
                assert!(nested(900).is_ok_and(|text| text.len() > 1800));
                let error = nested(90_000).unwrap_err().to_string();
                assert!(error.contains("1000 deep"), "{error}");
            }
        }
    }

    #[test]
    fn values_that_contain_themselves_are_refused() {
        for set in [
            "{% set ns.x = ns %}",
            "{%- set ns.x = [1, {'a': (ns,)}] -%}",
            "{% set a, ns.x = 1, ns %}",
            "{% set (a, ns.x) = (1, ns) %}",
            "{% set n = ns %}{% set ns.x = '%}' and n %}",
            "{% set ns.x = {'a': ns}.values() %}",
            "{% set ns.x = 1 if false else ns %}",
            "{% set ns.x | default(ns, true) %}{% endset %}",
            "{% set other = namespace(x=ns) %}{% set ns.x = other %}",
            "{% for m in [ns] %}{% set m.x = m %}{% endfor %}",
            "{% macro f(a) %}{% set a.x = [a] %}{% endmacro %}{{ f(ns) }}",
        ] {
            for rest in ["{{ ns }}", "{{ ns|string }}", "{{ ns|tojson }}", "{{ ns == ns.x }}", "{{ [ns]|join }}"] {
                let source = format!("{{% set ns = namespace() %}}{set}{rest}");
                let error = render(&source, &[]).unwrap_err().to_string();
                assert!(error.contains("a namespace cannot keep a namespace"), "{source}: {error}");
            }
        }
        let kept = "ä🦙{% set ns = namespace(a=1) %}{% set ns.b | upper %}%}b{% endset %}{% set ns.c = ns.a, ns.b %}\
                    {% raw %}{% set ns.x = 1 %}{% endraw %}{{ ns.c }}{{ '{% set a.b = 1 %}' }}{# {% set a.b = 1 %} #}";
        assert_eq!(render(kept, &[]).unwrap(), "ä🦙{% set ns.x = 1 %}(1, '%}B'){% set a.b = 1 %}");
        let large = "{% set ns = namespace() %}{% set all = [range(999)|list] * 999 %}\
                     {% for i in range(99) %}{% set ns.x = all %}{% endfor %}";
        let error = render(large, &[]).unwrap_err().to_string();
        assert!(error.contains("a namespace cannot keep so many values"), "{error}");
    }

    #[test]
    fn a_panic_of_the_engine_is_an_error() {
        let error = render("{{ 'a'|indent(18446744073709551615) }}", &[]).unwrap_err().to_string();
        assert!(error.contains("test"), "{error}");
    }

    #[test]
    fn damaged_tags_are_errors() {
        for source in ["{%}generation", "generation {%", "{%} generation %}", "{% generation %}", "{%%}generation"] {
            let error = render(source, &[]).unwrap_err();
            assert!(error.to_string().contains("test"), "{source}: {error}");
        }
    }

    #[test]
    fn named_templates() {
        let config = r#"{"eos_token": {"content": "E"}, "bos_token": null, "chat_template":
            [{"name": "tool_use", "template": "T{{ tools|length }}"}, {"name": "default", "template": "D{{ eos_token }}{{ bos_token }}"}]}"#;
        let template = ChatTemplate::from_config("test", config).unwrap();
        assert_eq!(template.render(&[], false).unwrap(), "DE");
        assert_eq!(template.render_with_tools(&[], Some(&serde_json::json!([1, 2])), false).unwrap(), "T2");
    }

    #[test]
    fn faults_name_file_and_field() {
        for (config, words) in [
            ("{", "malformed"),
            ("[]", "malformed"),
            ("{}", "no chat template"),
            (r#"{"chat_template": 3}"#, "`chat_template` must be a string or a list, found a number"),
            (r#"{"chat_template": [3]}"#, "chat_template[0]"),
            (r#"{"chat_template": [{"name": "rag", "template": ""}]}"#, "only: rag"),
            (r#"{"chat_template": "", "eos_token": 3}"#, "eos_token"),
            (r#"{"chat_template": "{% if %}"}"#, "failed"),
        ] {
            let error = ChatTemplate::from_config("dir/tokenizer_config.json", config).unwrap_err().to_string();
            assert!(error.contains("dir/tokenizer_config.json") && error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_jinja_file_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let missing = ChatTemplate::from_checkpoint(folder.path()).unwrap_err().to_string();
        assert!(missing.contains("tokenizer_config.json"), "{missing}");
        let config = r#"{"bos_token": "B", "chat_template": "old"}"#;
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        let render = || ChatTemplate::from_checkpoint(folder.path()).unwrap().render(&[], false).unwrap();
        assert_eq!(render(), "old");
        std::fs::write(folder.path().join("chat_template.jinja"), "{{ bos_token }} new").unwrap();
        assert_eq!(render(), "B new");
    }
}
