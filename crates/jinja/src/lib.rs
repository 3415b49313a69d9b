//! Jinja templates. The output equals that of Python's jinja2 3.1 byte for byte, with the settings of transformers for chat
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
//! Templates that jinja2 refuses are refused with an error of the same kind. The steps and bytes of a rendering are limited.
//! `random` and `lipsum` give the same result in every rendering.
//!
//! Not supported: integers of more than 128 bits, complex numbers, sets, `\N{…}` in strings, encodings other than UTF-8.

mod args;
mod ast;
mod attributes;
mod budget;
mod compare;
mod depth;
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

/// Maximum size of a template in bytes.
const MOST_SOURCE: usize = 1 << 20;

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    source: String,
    program: ast::Program,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// The template is not valid Jinja, or larger than 1 MiB.
    pub fn new(source: impl Into<String>) -> Result<Self> {
        let source = source.into();
        if source.len() > MOST_SOURCE {
            return error::fail!(Syntax, "the template has {} bytes, more than {MOST_SOURCE}", source.len());
        }
        let program = depth::on_enough_stack(|| resolve::resolve(parser::parse(&source)?))?;
        Ok(Self { source, program })
    }

    /// Renders the template with these variables. `clock` implements `strftime_now`: it gets the format and returns the text.
    ///
    /// # Errors
    /// The template fails, calls `raise_exception`, or exceeds the limits of a rendering.
    pub fn render(&self, variables: &[(&str, &serde_json::Value)], clock: fn(&str) -> String) -> Result<String> {
        depth::on_enough_stack(|| {
            let mut context = HashMap::new();
            for (name, value) in variables {
                context.insert(Arc::from(*name), Value::from_json(value)?);
            }
            vm::run(&self.program, context, clock)
        })
    }

    /// The template's source text.
    pub fn source(&self) -> &str {
        &self.source
    }
}
