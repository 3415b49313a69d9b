//! `wordwrap`: Python's `textwrap.wrap`, line by line.

use super::given;
use crate::args::Args;
use crate::error::{Result, fail};
use crate::methods;
use crate::unicode;
use crate::value::Value;
use crate::vm::Vm;

struct Settings {
    width: usize,
    break_long_words: bool,
    break_on_hyphens: bool,
}

pub(super) fn wordwrap(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [width, long_words, wrapstring, hyphens] = args.bind("do_wordwrap", names, 0)?;
    let mut on = |argument: Option<Value>| argument.map_or(Ok(true), |argument| vm.truth(&argument));
    let (break_long_words, break_on_hyphens) = (on(long_words)?, on(hyphens)?);
    let separator = given(wrapstring).unwrap_or_else(|| Value::str("\n"));
    let separator = separator.text("wrapstring")?;
    value.defined()?;
    let text = value.text("the text to wrap")?;
    let lines = methods::split_lines(text, false);
    if lines.is_empty() {
        return Ok(Value::str(""));
    }
    let width = width.map_or(Ok(79), |width| width.index())?;
    if width <= 0 {
        return fail!(Value, "invalid width {width} (must be > 0)");
    }
    let width = usize::try_from(width).unwrap_or(usize::MAX);
    let settings = Settings { width, break_long_words, break_on_hyphens };
    vm.budget.charge_many(text.len(), 16)?;
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        let wrapped = settings.wrap(line);
        vm.budget.charge_many(wrapped.len() + 1, separator.len())?;
        out.push_str(if i == 0 { "" } else { separator });
        out.push_str(&wrapped.join(separator));
    }
    vm.budget.charge(out.len())?;
    Ok(Value::Str(out.into()))
}

/// White space as defined by `textwrap`.
fn is_blank(char: char) -> bool {
    matches!(char, '\t' | '\n' | '\x0B' | '\x0C' | '\r' | ' ')
}

fn is_word(char: char) -> bool {
    char == '_' || unicode::is_alphanumeric(char)
}

fn is_letter(char: char) -> bool {
    is_word(char) && !unicode::is_decimal(char)
}

/// Characters allowed before a dash between words.
fn is_before_dash(char: char) -> bool {
    is_word(char) || "!\"'&.,?".contains(char)
}

impl Settings {
    fn wrap(&self, line: &str) -> Vec<String> {
        let chars: Vec<char> = line.chars().collect();
        let mut chunks: Vec<&[char]> = if self.break_on_hyphens { chunks(&chars) } else { simple_chunks(&chars) };
        chunks.reverse();
        let is_space = |chunk: &[char]| chunk.iter().copied().all(unicode::is_space);
        let mut lines: Vec<String> = Vec::new();
        while let Some(first) = chunks.last() {
            let mut current: Vec<&[char]> = Vec::new();
            let mut length = 0;
            if !lines.is_empty() && is_space(first) {
                chunks.pop();
            }
            while let Some(chunk) = chunks.pop_if(|chunk| length + chunk.len() <= self.width) {
                length += chunk.len();
                current.push(chunk);
            }
            if let Some(chunk) = chunks.pop_if(|chunk| chunk.len() > self.width) {
                self.break_word(chunk, &mut chunks, &mut current, length);
            }
            if current.last().is_some_and(|chunk| is_space(chunk)) {
                current.pop();
            }
            if !current.is_empty() {
                lines.push(current.concat().into_iter().collect());
            }
        }
        lines
    }

    /// Adds a word longer than a line to this line, or the part that fits.
    fn break_word<'c>(
        &self,
        chunk: &'c [char],
        chunks: &mut Vec<&'c [char]>,
        current: &mut Vec<&'c [char]>,
        length: usize,
    ) {
        if !self.break_long_words {
            if current.is_empty() {
                current.push(chunk)
            } else {
                chunks.push(chunk)
            }
            return;
        }
        let room = self.width - length;
        let mut end = room;
        if self.break_on_hyphens && chunk.len() > room {
            let hyphen = chunk[..room].iter().rposition(|char| *char == '-');
            if let Some(hyphen) = hyphen.filter(|&at| chunk[..at].iter().any(|char| *char != '-')) {
                end = hyphen + 1;
            }
        }
        let (head, rest) = chunk.split_at(end.min(chunk.len()));
        current.push(head);
        chunks.push(rest);
    }
}

/// Words and the white space between them.
fn simple_chunks(chars: &[char]) -> Vec<&[char]> {
    chars.chunk_by(|a, b| is_blank(*a) == is_blank(*b)).collect()
}

/// White space, words, hyphenated parts of words, dashes.
fn chunks(chars: &[char]) -> Vec<&[char]> {
    let mut chunks = Vec::new();
    let mut start = 0;
    while start < chars.len() {
        let end = chunk_end(chars, start);
        chunks.push(&chars[start..end]);
        start = end;
    }
    chunks
}

fn chunk_end(chars: &[char], start: usize) -> usize {
    let at = |index: usize| chars.get(index).copied();
    let is = |index: Option<usize>, test: fn(char) -> bool| index.and_then(at).is_some_and(test);
    let back = |index: usize, count: usize| index.checked_sub(count);
    // two or more hyphens before a word
    let dash_end = |index: usize| {
        let end = index + chars[index..].iter().take_while(|char| **char == '-').count();
        (end >= index + 2 && is(Some(end), is_word)).then_some(end)
    };
    if is_blank(chars[start]) {
        return start + chars[start..].iter().take_while(|char| is_blank(**char)).count();
    }
    if is(back(start, 1), is_before_dash)
        && let Some(end) = dash_end(start)
    {
        return end;
    }
    let mut end = start + 1;
    loop {
        let Some(char) = at(end) else { return end };
        if is_blank(char) {
            return end;
        }
        if char == '-' {
            let after_two = is(back(end, 1), is_letter) && is(back(end, 2), is_letter);
            let after_one =
                is(back(end, 1), is_letter) && back(end, 2).and_then(at) == Some('-') && is(back(end, 3), is_letter);
            let next = if at(end + 2) == Some('-') { end + 3 } else { end + 2 };
            let before_letters = is(Some(end + 1), is_letter) && is(Some(next), is_letter);
            if (after_two || after_one) && before_letters {
                return end + 1;
            }
            if is(back(end, 1), is_before_dash) && dash_end(end).is_some() {
                return end;
            }
        }
        end += 1;
    }
}
