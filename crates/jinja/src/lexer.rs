//! Lexer, with jinja2's rules for white space around tags (`trim_blocks` and `lstrip_blocks` are on).

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result, fail};
use crate::unicode;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Data(Arc<str>),
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name(Arc<str>),
    Str(Arc<str>),
    Int(i128),
    Float(f64),
    Operator(&'static str),
    End,
}

/// Longer operators first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";",
];

/// The tokens of a template, each with its line.
pub(crate) fn tokens(source: &str) -> Result<Vec<(Token, u32)>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, line: 1, line_starts: true, tokens: Vec::new(), texts: HashMap::new() };
    lexer.run().map_err(|error| error.at(lexer.line))?;
    let line = lexer.line;
    lexer.tokens.push((Token::End, line));
    Ok(lexer.tokens)
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: u32,
    /// Whether the input read so far ends with a line break.
    line_starts: bool,
    tokens: Vec<(Token, u32)>,
    /// Interned names and texts.
    texts: HashMap<String, Arc<str>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Tag {
    Raw,
    Comment,
    Variable,
    Block,
}

impl<'s> Lexer<'s> {
    fn run(&mut self) -> Result<()> {
        while self.at < self.source.len() {
            let rest = &self.source[self.at..];
            let Some((offset, tag)) = next_tag(rest) else {
                self.data(rest);
                self.skip(rest.len());
                break;
            };
            let text = &rest[..offset];
            let sign = rest[offset + 2..].chars().next().filter(|c| matches!(c, '-' | '+'));
            self.data(self.stripped(text, sign, tag == Tag::Variable));
            let begin = self.at + offset + 2 + usize::from(sign.is_some());
            match tag {
                Tag::Comment => {
                    self.skip_to(begin);
                    self.comment()?;
                }
                Tag::Raw => {
                    let end = raw_tag(&self.source[begin..], "raw", false).unwrap_or_default();
                    self.skip_to(begin + end);
                    self.raw()?;
                }
                Tag::Variable | Tag::Block => {
                    self.skip_to(begin);
                    let line = self.line;
                    let token = if tag == Tag::Block { Token::BlockBegin } else { Token::VariableBegin };
                    self.tokens.push((token, line));
                    self.code(tag == Tag::Block)?;
                }
            }
        }
        Ok(())
    }

    /// The text before a tag, without the white space that the tag strips.
    fn stripped<'t>(&self, text: &'t str, sign: Option<char>, variable: bool) -> &'t str {
        match sign {
            Some('-') => return text.trim_end_matches(unicode::is_space),
            Some(_) => return text,
            None if variable => return text,
            None => {}
        }
        let start = text.rfind('\n').map_or(0, |at| at + 1);
        let blank = start < text.len() && text[start..].chars().all(unicode::is_space);
        if blank && (start > 0 || self.line_starts) { &text[..start] } else { text }
    }

    fn data(&mut self, text: &str) {
        if !text.is_empty() {
            self.tokens.push((Token::Data(text.into()), self.line));
        }
    }

    fn skip(&mut self, bytes: usize) {
        let read = &self.source[self.at..self.at + bytes];
        self.line += read.matches('\n').count() as u32;
        self.line_starts = read.ends_with('\n');
        self.at += bytes;
    }

    fn skip_to(&mut self, at: usize) {
        self.skip(at - self.at);
    }

    fn comment(&mut self) -> Result<()> {
        let rest = &self.source[self.at..];
        let Some(close) = rest.find("#}") else { return fail!(Syntax, "Missing end of comment tag") };
        let sign = rest[..close].chars().next_back().filter(|c| matches!(c, '-' | '+'));
        self.skip(close + 2 + after_tag(&rest[close + 2..], sign));
        Ok(())
    }

    fn raw(&mut self) -> Result<()> {
        let rest = &self.source[self.at..];
        for (at, _) in rest.match_indices("{%") {
            let sign = rest[at + 2..].chars().next().filter(|c| matches!(c, '-' | '+'));
            let begin = at + 2 + usize::from(sign.is_some());
            if let Some(end) = raw_tag(&rest[begin..], "endraw", true) {
                self.data(self.stripped(&rest[..at], sign, false));
                self.skip(begin + end);
                return Ok(());
            }
        }
        fail!(Syntax, "Missing end of raw directive")
    }

    /// Reads the inside of a block or variable tag, with its end.
    fn code(&mut self, block: bool) -> Result<()> {
        let mut open: Vec<&'static str> = Vec::new();
        loop {
            let rest = &self.source[self.at..];
            if open.is_empty()
                && let Some(end) = code_end(rest, block)
            {
                let line = self.line;
                self.tokens.push((if block { Token::BlockEnd } else { Token::VariableEnd }, line));
                self.skip(end);
                return Ok(());
            }
            let Some(char) = rest.chars().next() else { return Ok(()) };
            if unicode::is_space(char) {
                self.skip(rest.len() - rest.trim_start_matches(unicode::is_space).len());
                continue;
            }
            let (token, length) = self.token(rest)?;
            if let Token::Operator(operator) = token {
                balance(&mut open, operator)?;
            }
            self.tokens.push((token, self.line));
            self.skip(length);
        }
    }

    fn token(&mut self, rest: &str) -> Result<(Token, usize)> {
        let char = rest.chars().next().unwrap_or_default();
        if char.is_ascii_digit() {
            let after_dot = self.source[..self.at].ends_with('.');
            return number(rest, after_dot);
        }
        if char == '_' || unicode::is_alphanumeric(char) {
            let length = rest.find(|c| !(c == '_' || unicode::is_word_part(c))).unwrap_or(rest.len());
            if unicode::is_numeric(char) {
                return fail!(Syntax, "Invalid character in identifier");
            }
            return Ok((Token::Name(self.text(rest[..length].into())), length));
        }
        if matches!(char, '\'' | '"')
            && let Some(length) = string_length(rest)
        {
            let text = unescape(&rest[1..length - 1])?;
            return Ok((Token::Str(self.text(text)), length));
        }
        match OPERATORS.iter().find(|operator| rest.starts_with(**operator)) {
            Some(&operator) => Ok((Token::Operator(operator), operator.len())),
            None => fail!(Syntax, "unexpected char {char:?} at {}", self.source[..self.at].chars().count()),
        }
    }

    fn text(&mut self, text: String) -> Arc<str> {
        self.texts.entry(text).or_insert_with_key(|text| Arc::from(text.as_str())).clone()
    }
}

/// The first tag and its offset.
fn next_tag(rest: &str) -> Option<(usize, Tag)> {
    rest.match_indices('{').find_map(|(at, _)| {
        let tag = match rest.as_bytes().get(at + 1)? {
            b'#' => Tag::Comment,
            b'{' => Tag::Variable,
            b'%' => {
                let after = &rest[at + 2..];
                let after = after.strip_prefix(['-', '+']).unwrap_or(after);
                if raw_tag(after, "raw", false).is_some() { Tag::Raw } else { Tag::Block }
            }
            _ => return None,
        };
        Some((at, tag))
    })
}

/// Length of a tag that contains only `word`, with the white space that it strips.
fn raw_tag(rest: &str, word: &str, is_end: bool) -> Option<usize> {
    let after = rest.trim_start_matches(unicode::is_space).strip_prefix(word)?;
    let after = after.trim_start_matches(unicode::is_space);
    let used = rest.len() - after.len();
    if let Some(text) = after.strip_prefix("-%}") {
        return Some(used + 3 + after_tag(text, Some('-')));
    }
    match after.strip_prefix("+%}") {
        Some(_) if is_end => Some(used + 3),
        _ => {
            let text = after.strip_prefix("%}")?;
            Some(used + 2 + if is_end { after_tag(text, None) } else { 0 })
        }
    }
}

/// Bytes of white space that a tag strips from the text after it.
fn after_tag(text: &str, sign: Option<char>) -> usize {
    match sign {
        Some('-') => text.len() - text.trim_start_matches(unicode::is_space).len(),
        Some(_) => 0,
        None => usize::from(text.starts_with('\n')),
    }
}

fn code_end(rest: &str, block: bool) -> Option<usize> {
    let close = if block { "%}" } else { "}}" };
    if let Some(text) = rest.strip_prefix('-').and_then(|rest| rest.strip_prefix(close)) {
        return Some(3 + after_tag(text, Some('-')));
    }
    if block && rest.starts_with("+%}") {
        return Some(3);
    }
    let text = rest.strip_prefix(close)?;
    Some(2 + if block { after_tag(text, None) } else { 0 })
}

fn balance(open: &mut Vec<&'static str>, operator: &'static str) -> Result<()> {
    match operator {
        "{" => open.push("}"),
        "(" => open.push(")"),
        "[" => open.push("]"),
        "}" | ")" | "]" => match open.pop() {
            Some(expected) if expected == operator => {}
            Some(expected) => return fail!(Syntax, "unexpected '{operator}', expected '{expected}'"),
            None => return fail!(Syntax, "unexpected '{operator}'"),
        },
        _ => {}
    }
    Ok(())
}

/// Length of a run of digits, with single underscores between them.
fn digits(text: &str, accept: impl Fn(char) -> bool) -> usize {
    let mut end = 0;
    let mut previous = '_';
    for (at, char) in text.char_indices() {
        match char {
            '_' if previous != '_' => {}
            c if accept(c) => end = at + 1,
            _ => break,
        }
        previous = char;
    }
    end
}

fn number(rest: &str, after_dot: bool) -> Result<(Token, usize)> {
    let is_digit = |c: char| c.is_ascii_digit();
    let whole = digits(rest, is_digit);
    if !after_dot {
        let mut end = whole;
        if let Some(fraction) = rest[end..].strip_prefix('.') {
            let length = digits(fraction, is_digit);
            end += if length > 0 { length + 1 } else { 0 };
        }
        if let Some(exponent) = rest[end..].strip_prefix(['e', 'E']) {
            let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            let length = digits(unsigned, is_digit);
            end += if length > 0 { 1 + exponent.len() - unsigned.len() + length } else { 0 };
        }
        if end > whole {
            let value = rest[..end].replace('_', "").parse();
            let value = value.map_err(|_| Error::new(ErrorKind::Syntax, "a malformed number"))?;
            return Ok((Token::Float(value), end));
        }
    }
    let (radix, length, text) = match rest.as_bytes().get(1).map(u8::to_ascii_lowercase) {
        Some(b'x') if rest.starts_with('0') => prefixed(rest, 16),
        Some(b'o') if rest.starts_with('0') => prefixed(rest, 8),
        Some(b'b') if rest.starts_with('0') => prefixed(rest, 2),
        _ => None,
    }
    .unwrap_or_else(|| {
        let length = if rest.starts_with('0') { digits(rest, |c| c == '0') } else { whole };
        (10, length, &rest[..length])
    });
    match i128::from_str_radix(&text.replace('_', ""), radix) {
        Ok(value) => Ok((Token::Int(value), length)),
        Err(_) => fail!(Unsupported, "the number {} does not fit 128 bits", &rest[..length]),
    }
}

fn prefixed(rest: &str, radix: u32) -> Option<(u32, usize, &str)> {
    let text = rest[2..].strip_prefix('_').unwrap_or(&rest[2..]);
    let length = digits(text, |c| c.is_digit(radix));
    (length > 0).then(|| (radix, rest.len() - text.len() + length, &text[..length]))
}

/// Length of a quoted string with its quotes.
fn string_length(rest: &str) -> Option<usize> {
    let quote = rest.chars().next()?;
    let mut escaped = false;
    for (at, char) in rest.char_indices().skip(1) {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Python's decoding of escapes. As in jinja2, characters beyond ASCII are escaped first.
fn unescape(text: &str) -> Result<String> {
    if !text.contains('\\') {
        return Ok(text.into());
    }
    let mut plain = String::with_capacity(text.len());
    for char in text.chars() {
        match u32::from(char) {
            0..=0x7F => plain.push(char),
            code @ 0x80..=0xFF => plain += &format!("\\x{code:02x}"),
            code @ 0x100..=0xFFFF => plain += &format!("\\u{code:04x}"),
            code => plain += &format!("\\U{code:08x}"),
        }
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = plain.as_str();
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(code) = rest.chars().next() else { return fail!(Syntax, "\\ at end of string") };
        let mut length = 1;
        match code {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(code),
            'a' => out.push('\x07'),
            'b' => out.push('\x08'),
            'f' => out.push('\x0C'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\x0B'),
            '0'..='7' => {
                length = rest.bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
                out.push(code_point(&rest[..length], 8)?);
            }
            'x' | 'u' | 'U' => {
                length = 1 + [2, 4, 8][usize::from(code != 'x') + usize::from(code == 'U')];
                match rest.get(1..length) {
                    Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => out.push(code_point(hex, 16)?),
                    _ => return fail!(Syntax, "truncated \\{code} escape"),
                }
            }
            'N' => return fail!(Unsupported, "the escape \\N, a character by its name"),
            _ => {
                out.push('\\');
                out.push(code);
            }
        }
        rest = &rest[length..];
    }
    Ok(out + rest)
}

fn code_point(digits: &str, radix: u32) -> Result<char> {
    match u32::from_str_radix(digits, radix).ok().and_then(char::from_u32) {
        Some(char) => Ok(char),
        None => fail!(Unsupported, "the escape of {digits}, which is not a character"),
    }
}
