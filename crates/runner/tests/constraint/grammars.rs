//! Regular expressions, Lark, limits and faults.

use super::*;
use phi3_runner::constraint::GrammarKind;

fn refusal(grammar: Grammar) -> String {
    let Err(error) = FACTORY.compile(&grammar) else { panic!("{grammar:?} is taken") };
    let kind = grammar.kind();
    assert!(
        matches!(&error, ConstraintError::Refused { kind: k, .. } | ConstraintError::TooLarge { kind: k, .. } if *k == kind),
        "{error:?}"
    );
    error.to_string()
}

#[test]
fn regular_expressions_match_whole_answers() {
    for (pattern, yes, no) in [
        (r"[a-f]+/\d{2}", &["abc/12", "a/00"][..], &["/12", "abc/1", "abc/123", "xabc/12"][..]),
        ("(red|green), (blue|black)", &["red, blue", "green, black"], &["red", "red,blue"]),
        ("a\nb", &["a\nb"], &["a b"]),
        ("(?i)yes", &["YES", "yEs"], &["no"]),
        ("^a|b$", &["a", "b"], &["ab"]),
        ("ü{2}", &["üü"], &["ü"]),
    ] {
        let grammar = Grammar::Regex(pattern.into());
        assert!(yes.iter().all(|text| matches(&grammar, text)), "{pattern}");
        assert!(!no.iter().any(|text| matches(&grammar, text)), "{pattern}");
    }
    for (pattern, word) in
        [("a(", "unclosed"), (r"(a)\1", "back"), ("a(?=b)", "look"), (r"\bword\b", "look"), ("a^b", "look")]
    {
        let error = refusal(Grammar::Regex(pattern.into()));
        assert!(error.contains(word) && error.contains("hint"), "{pattern}: {error}");
    }
}

#[test]
fn lark_grammars_have_rules_and_special_tokens() {
    let sums = Grammar::Lark("start: sum\nsum: NUMBER | \"(\" sum \"+\" sum \")\"\nNUMBER: /[0-9]+/\n".into());
    assert!(matches(&sums, "((1+2)+34)") && matches(&sums, "7"));
    assert!(!matches(&sums, "((1+2)+34") && !matches(&sums, "1+2"));
    // a special token by its name, then JSON
    let call = Grammar::Lark("start: <|placeholder1|> %json {\"type\": \"integer\"}\n".into());
    let mut constraint = compile(call);
    let place = PHI_3.token_to_id("<|placeholder1|>").unwrap();
    assert_eq!(tokens(&mask(&mut constraint)), [place]);
    constraint.advance(place).unwrap();
    for id in PHI_3.encode("12", false).unwrap() {
        constraint.advance(id).unwrap();
    }
    assert!(constraint.is_accepting().unwrap());
    constraint.rollback(1).unwrap();
    // a rule up to the end of the answer
    let open = Grammar::Lark("start: x\nx[stop=\"\"]: /[a-z]+/\n".into());
    let (text, complete) = answer(&mut compile(open), &mut Random(3), 10).unwrap();
    assert!(complete && text.bytes().all(|byte| byte.is_ascii_lowercase()), "{text}");
    for (grammar, word) in [
        ("start: \"a", "\""),
        ("start: foo\n", "foo"),
        ("start: <|nothing|>\n", "nothing"),
        ("start: x\nx[temperature=0.5]: /a+/\n", "temperature"),
        (
            "start: %json {\"oneOf\": [{\"minimum\": 1}, {\"minimum\": 2}], \"x-guidance\": {\"coerce_one_of\": true}}",
            "oneOf",
        ),
        ("", "start"),
    ] {
        let error = refusal(Grammar::Lark(grammar.into()));
        assert!(error.contains(word) && error.contains("hint"), "{grammar}: {error}");
    }
}

#[test]
fn dead_ends_and_limits_are_errors() {
    // no word of the language exists
    for grammar in ["start: X\nX: /a+/ & /b+/\n", "start: start\n"] {
        let error = refusal(Grammar::Lark(grammar.into()));
        assert!(error.contains("no text matches") || error.contains("atisf"), "{error}");
    }
    // an ambiguous grammar exceeds the parser's items
    let longer: String = (2..14).map(|count| format!(" | {}", "s ".repeat(count))).collect();
    let mut constraint = compile(Grammar::Lark(format!("start: s\ns: \"a\"{longer}\n")));
    let a = PHI_3.token_to_id("a").unwrap();
    let mut mask = Vec::new();
    let error = (0..300).find_map(|_| constraint.mask(&mut mask).and_then(|()| constraint.advance(a)).err()).unwrap();
    assert!(matches!(&error, ConstraintError::Failed { .. }) && error.to_string().contains("hint"), "{error}");
    let error = compile(Grammar::Regex("a*".into())).rollback(1).unwrap_err();
    assert!(matches!(error, ConstraintError::Rollback { count: 1, .. }), "{error}");
}

#[test]
fn large_grammars_are_refused_without_a_crash() {
    let deep = |open: &str, close: &str, n: usize| open.repeat(n) + "a" + &close.repeat(n);
    for grammar in [Grammar::Regex("a".repeat(9000)), Grammar::Lark(format!("start: \"{}\"", "a".repeat(17_000)))] {
        assert!(refusal(grammar).contains("bytes"));
    }
    let chain = |rule: &str| {
        let rules: String = (0..800).map(|i| format!("{rule}{i}: \"x\" {rule}{}\n", i + 1)).collect();
        Grammar::Lark(rules + rule + "800: \"y\"\nstart: " + rule + "0\n")
    };
    for grammar in [
        Grammar::Regex("((((((((((a{100}){100}){100}){100}){100}){100}){100}){100}){100}){100})".into()),
        Grammar::Regex("[^a]{1,100000}b|(a|b)*a(a|b){900}".into()),
        Grammar::Regex("a|".repeat(4000) + "b"),
        Grammar::Regex("a?".repeat(4000)),
        Grammar::Regex(deep("(", ")*", 95)),
        Grammar::Regex(deep("(", ")*", 2500)),
        Grammar::Lark(format!("start: {}", deep("(", ")", 4000).replace('a', "\"a\""))),
        Grammar::Lark("start: a{1,100000000}\na: \"x\"\n".into()),
        chain("r"),
        chain("R"),
    ] {
        // taken or refused, in finite time
        match FACTORY.compile(&grammar) {
            Ok(mut constraint) => drop(constraint.mask(&mut Vec::new())),
            Err(error) => assert!(error.to_string().contains("hint"), "{error}"),
        }
    }
    assert_eq!(Grammar::JsonObject.kind(), GrammarKind::JsonSchema);
}
