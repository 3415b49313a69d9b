//! `urlize`: turns addresses in a text into links.

use std::sync::LazyLock;

use regex::Regex;

use super::{given, html};
use crate::args::Args;
use crate::ast::Compare;
use crate::error::{Result, fail};
use crate::iterate::Iter;
use crate::unicode;
use crate::value::Value;
use crate::vm::Vm;

/// jinja2's pattern of a web address.
static PAGE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let word = r"[\p{L}\p{N}_%-]";
    let rule = format!(
        concat!(
            r"(?i)^(?:(?:https?://|www\.)(?:(?:{word}+\.)+)?(?:[a-z]{{2,63}}|xn--[\p{{L}}\p{{N}}_%]{{2,59}})",
            r"|(?:{word}{{2,63}}\.)+(?:com|net|int|edu|gov|org|info|mil)",
            r"|https?://(?:\p{{Nd}}{{1,3}}(?:\.\p{{Nd}}{{1,3}}){{3}}",
            r"|\[(?:[\p{{Nd}}a-f]{{0,4}}:){{2}}(?:[\p{{Nd}}a-f]{{0,4}}:?){{1,6}}\]))",
            r"(?::\p{{Nd}}{{1,5}})?(?:[/?#][^\s\x1C-\x1F]*)?$"
        ),
        word = word
    );
    Regex::new(&rule).ok()
});

static MAIL: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^[^\s\x1C-\x1F]+@[\p{L}\p{N}_][\p{L}\p{N}_.-]*\.[\p{L}\p{N}_]+$").ok());

fn matches(rule: &LazyLock<Option<Regex>>, text: &str) -> bool {
    rule.as_ref().is_some_and(|rule| rule.is_match(text))
}

pub(super) fn urlize(vm: &mut Vm, value: &Value, args: Args) -> Result<Value> {
    let [limit, nofollow, target, rel, schemes] =
        args.bind("do_urlize", ["trim_url_limit", "nofollow", "target", "rel", "extra_schemes"], 0)?;
    let limit = given(limit);
    let rel = match rel {
        Some(rel) if vm.truth(&rel)? => rel.text("rel")?.to_string(),
        _ => String::new(),
    };
    let rel = html::rel_attribute(vm, &rel, nofollow)?;
    let target = match given(target) {
        Some(target) if vm.truth(&target)? => format!(" target=\"{}\"", vm.escape(&target)?),
        _ => String::new(),
    };
    let schemes = match given(schemes) {
        None => Vec::new(),
        Some(schemes) => Iter::of(&schemes)?.collect(vm)?,
    };
    for scheme in &schemes {
        let name = scheme.text("a scheme")?;
        let (before, slashes) = name.split_once(':').unwrap_or(("", "?"));
        let is_name = |char: char| unicode::is_alphanumeric(char) || "_.+-".contains(char);
        let is_scheme =
            before.chars().count() >= 2 && before.chars().all(is_name) && ["", "/", "//"].contains(&slashes);
        if !is_scheme {
            return fail!(Runtime, "{} is not a valid URI scheme prefix.", vm.repr(scheme)?);
        }
    }
    let text = vm.escape(value)?;
    let trimmed = |vm: &mut Vm, address: &str| {
        let Some(limit) = &limit else { return Ok(address.to_owned()) };
        let length = Value::Int(address.chars().count() as i128);
        if !vm.compare(Compare::Gt, &length, limit)? {
            return Ok(address.to_owned());
        }
        let kept = vm.slice(&Value::str(address), &[None, Some(limit.clone()), None])?;
        Ok(format!("{}...", vm.str(&kept)?))
    };
    let mut out = String::new();
    for word in words(&text) {
        let (head, middle, tail) = parts(word);
        let link = if matches(&PAGE, &middle) {
            let has_scheme = middle.starts_with("https://") || middle.starts_with("http://");
            let scheme = if has_scheme { "" } else { "https://" };
            format!("<a href=\"{scheme}{middle}\"{rel}{target}>{}</a>", trimmed(vm, &middle)?)
        } else if let Some(address) = middle.strip_prefix("mailto:").filter(|address| matches(&MAIL, address)) {
            format!("<a href=\"{middle}\">{address}</a>")
        } else if middle.contains('@')
            && !middle.starts_with("www.")
            && !middle.starts_with('@')
            && !middle.contains(':')
            && matches(&MAIL, &middle)
        {
            format!("<a href=\"mailto:{middle}\">{middle}</a>")
        } else {
            let mut link = middle.to_string();
            for scheme in schemes.iter().filter_map(Value::as_str) {
                if link != scheme && link.starts_with(scheme) {
                    link = format!("<a href=\"{link}\"{rel}{target}>{link}</a>");
                }
            }
            link
        };
        vm.budget.charge(head.len() + link.len() + tail.len())?;
        out.push_str(head);
        out.push_str(&link);
        out.push_str(&tail);
    }
    Ok(if vm.autoescape { Value::Markup(out.into()) } else { Value::Str(out.into()) })
}

/// Words and the white space between them.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_space = unicode::is_space(first);
        let end = rest.find(|char| unicode::is_space(char) != is_space).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        words.push(word);
        rest = after;
    }
    words
}

/// Splits a word into opening brackets, the address, and trailing brackets and punctuation.
fn parts(word: &str) -> (&str, String, String) {
    let mut middle = word;
    while let Some(rest) = ["(", "<", "&lt;"].iter().find_map(|open| middle.strip_prefix(open)) {
        middle = rest;
    }
    let head = &word[..word.len() - middle.len()];
    let rest = middle;
    while let Some(before) = [")", ">", ".", ",", "\n", "&gt;"].iter().find_map(|close| middle.strip_suffix(close)) {
        middle = before;
    }
    let mut tail = rest[middle.len()..].to_owned();
    let mut middle = middle.to_owned();
    // closing brackets that match opening ones are part of the address
    for (open, close) in [("(", ")"), ("<", ">"), ("&lt;", "&gt;")] {
        let opened = middle.matches(open).count();
        if opened <= middle.matches(close).count() {
            continue;
        }
        for _ in 0..opened.min(tail.matches(close).count()) {
            let Some(at) = tail.find(close) else { break };
            let after = tail.split_off(at + close.len());
            middle.push_str(&tail);
            tail = after;
        }
    }
    (head, middle, tail)
}
