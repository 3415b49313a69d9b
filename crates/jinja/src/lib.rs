//! Jinja templates, rendered to the byte as Python's jinja2 3.1 renders them in the settings that transformers gives to chat
//! templates: `ImmutableSandboxedEnvironment`, `trim_blocks`, `lstrip_blocks`, loop controls, the tag `generation`, `tojson`
//! as Python's `json.dumps`, `raise_exception`, `strftime_now`.
//!
//! ```
//! use phi3_jinja::Template;
//!
//! let template = Template::new("{% for m in messages %}<|{{ m.role }}|>{{ m.content.strip() }}{% endfor %}")?;
//! let messages = serde_json::json!([{"role": "user", "content": " Hi "}]);
//! assert_eq!(template.render(&[("messages", &messages)], |_| String::new())?, "<|user|>Hi");
//! # Ok::<(), phi3_jinja::Error>(())
//! ```
//!
//! What jinja2 refuses is refused, with an error of the same kind. A rendering may take a bounded number of steps and bytes, so
//! that no template runs on or fills the memory, whatever it asks for. `random` and `lipsum` give the same at every rendering.
//!
//! Not there: numbers of more than 128 bits and complex ones, sets, `\N{…}` in texts, encodings other than UTF-8.

mod args;
mod ast;
mod attributes;
mod budget;
mod compare;
mod entities;
mod error;
mod filters;
mod format;
mod functions;
mod iterate;
mod lexer;
mod lorem;
mod methods;
mod objects;
mod operators;
mod parser;
mod predicates;
mod random;
mod resolve;
mod text;
mod unicode;
mod value;
mod vm;
mod walk;

use std::collections::HashMap;
use std::sync::Arc;

pub use error::{Error, ErrorKind, Result};
use value::Value;

/// Bytes of the stack that a template is parsed and runs on. Only what is used becomes real memory.
const STACK: usize = 256 << 20;

/// Bytes of a template, at most.
const MOST_SOURCE: usize = 1 << 20;

/// A template that was parsed.
#[derive(Debug)]
pub struct Template {
    source: String,
    program: ast::Program,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// It is no valid Jinja, or larger than 1 MiB.
    pub fn new(source: impl Into<String>) -> Result<Self> {
        let source = source.into();
        if source.len() > MOST_SOURCE {
            return error::fail!(Syntax, "the template has {} bytes, more than {MOST_SOURCE}", source.len());
        }
        let program = on_large_stack(|| resolve::resolve(parser::parse(&source)?))?;
        Ok(Self { source, program })
    }

    /// The text that it makes with these variables; `clock` is what `strftime_now` does with its format.
    ///
    /// # Errors
    /// The template fails or calls `raise_exception`, or takes more than a rendering may.
    pub fn render(&self, variables: &[(&str, &serde_json::Value)], clock: fn(&str) -> String) -> Result<String> {
        on_large_stack(|| {
            let mut context = HashMap::new();
            for (name, value) in variables {
                context.insert(Arc::from(*name), Value::from_json(value)?);
            }
            vm::run(&self.program, context, clock)
        })
    }

    /// The template's text.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// Runs `work` where there is room for values and expressions deep within each other.
fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("jinja".into()).stack_size(STACK);
        match thread.spawn_scoped(scope, work).map(|thread| thread.join()) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => error::fail!(Unsupported, "the template engine failed"),
            Err(error) => error::fail!(Limit, "there is no thread to run the template on: {error}"),
        }
    })
}
