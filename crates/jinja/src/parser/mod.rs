//! Parser, with the grammar of jinja2.

mod expressions;
mod statements;

use std::sync::Arc;

use crate::ast::{Escape, Part, Stmt, StmtKind};
use crate::depth::Limit;
use crate::error::{Result, fail};
use crate::lexer::{Token, tokens};

/// Maximum nesting of brackets, operators and tags; Python's own parser stops at 200 brackets.
const DEEPEST: Limit = Limit::new(24, 200);

/// A template's statements.
pub(crate) fn parse(source: &str) -> Result<Vec<Stmt>> {
    let mut parser = Parser { tokens: tokens(source)?, at: 0, depth: 0, loops: 0, end_tags: Vec::new() };
    let body = parser.body(&[]).map_err(|error| error.at(parser.line()))?;
    Ok(body)
}

struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    depth: usize,
    /// Number of enclosing loops within the same function.
    loops: usize,
    end_tags: Vec<&'static [&'static str]>,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn peek_second(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0
    }

    fn line(&self) -> u32 {
        self.tokens[self.at].1
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        // the end token is never passed
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn is_operator(&self, operator: &str) -> bool {
        matches!(self.peek(), Token::Operator(it) if *it == operator)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(it) if &**it == name)
    }

    fn skip_operator(&mut self, operator: &str) -> bool {
        let found = self.is_operator(operator);
        if found {
            self.next();
        }
        found
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.next();
        }
        found
    }

    fn expect_operator(&mut self, operator: &str) -> Result<()> {
        if self.skip_operator(operator) { Ok(()) } else { self.unexpected(&format!("'{operator}'")) }
    }

    fn expect_word(&mut self, name: &str) -> Result<()> {
        if self.skip_name(name) { Ok(()) } else { self.unexpected(&format!("'{name}'")) }
    }

    fn expect_name(&mut self) -> Result<Arc<str>> {
        match self.peek() {
            Token::Name(_) => match self.next() {
                Token::Name(name) => Ok(name),
                _ => unreachable!("the token was peeked"),
            },
            _ => self.unexpected("a name"),
        }
    }

    fn expect(&mut self, token: &Token) -> Result<()> {
        if self.peek() == token {
            self.next();
            return Ok(());
        }
        self.unexpected(match token {
            Token::BlockEnd => "the end of the statement",
            _ => "the end of the print statement",
        })
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T> {
        fail!(Syntax, "expected {expected}, got {}", self.found())
    }

    fn found(&self) -> String {
        match self.peek() {
            Token::Data(_) => "text".into(),
            Token::VariableBegin => "'{{'".into(),
            Token::VariableEnd => "the end of the print statement".into(),
            Token::BlockBegin => "'{%'".into(),
            Token::BlockEnd => "the end of the statement".into(),
            Token::Name(name) => format!("'{name}'"),
            Token::Str(text) => format!("the text {text:?}"),
            Token::Int(number) => number.to_string(),
            Token::Float(number) => number.to_string(),
            Token::Operator(operator) => format!("'{operator}'"),
            Token::End => "the end of the template".into(),
        }
    }

    /// Counts the nesting depth of `parse`.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let Some(limit) = DEEPEST.reached(self.depth) {
            return fail!(Syntax, "expressions or tags are nested more than {limit} deep");
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// Statements up to one of the tags in `ends`, which is not consumed; without tags, to the end of the template.
    fn body(&mut self, ends: &'static [&'static str]) -> Result<Vec<Stmt>> {
        if !ends.is_empty() {
            self.end_tags.push(ends);
        }
        let mut body: Vec<Stmt> = Vec::new();
        loop {
            let line = self.line();
            match self.peek() {
                Token::Data(data) => {
                    let part = Part::Data(data.clone());
                    self.next();
                    print(&mut body, part, line);
                }
                Token::VariableBegin => {
                    self.next();
                    let expression = self.tuple()?;
                    self.expect(&Token::VariableEnd)?;
                    print(&mut body, Part::Expr(expression), line);
                }
                Token::BlockBegin => {
                    self.next();
                    if matches!(self.peek(), Token::Name(name) if ends.contains(&&**name)) {
                        self.end_tags.pop();
                        return Ok(body);
                    }
                    let statement = self.deeper(Self::statement)?;
                    self.expect(&Token::BlockEnd)?;
                    body.push(statement);
                }
                Token::End if ends.is_empty() => return Ok(body),
                Token::End => {
                    return fail!(Syntax, "Unexpected end of template. {}", self.looking_for());
                }
                _ => return self.unexpected("text or a tag"),
            }
        }
    }

    fn looking_for(&self) -> String {
        match self.end_tags.last() {
            None => String::new(),
            Some(tags) => format!("Jinja was looking for the following tags: '{}'.", tags.join("' or '")),
        }
    }

    /// A body with its end tag.
    fn block(&mut self, end: &'static [&'static str]) -> Result<Vec<Stmt>> {
        let body = self.open_block(end)?;
        self.next();
        Ok(body)
    }

    fn open_block(&mut self, ends: &'static [&'static str]) -> Result<Vec<Stmt>> {
        self.skip_operator(":");
        self.expect(&Token::BlockEnd)?;
        self.body(ends)
    }

    /// A body that is a function of its own: `break` and `continue` cannot leave it.
    fn function<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let loops = std::mem::take(&mut self.loops);
        let parsed = parse(self);
        self.loops = loops;
        parsed
    }
}

/// Consecutive text and print statements of one line are merged.
fn print(body: &mut Vec<Stmt>, part: Part, line: u32) {
    match body.last_mut() {
        Some(Stmt { kind: StmtKind::Output(parts, _), line: started }) if *started == line => parts.push(part),
        _ => body.push(Stmt { kind: StmtKind::Output(vec![part], Escape::No), line }),
    }
}
