//! Bytes of tokens, spaces at the start, stop tokens.

use super::*;

/// Compares the bytes of every token with what a stream says in the middle of a text.
#[test]
fn bytes_of_every_token_are_those_of_a_stream() {
    let [x] = PHI_3.encode("x", false).unwrap()[..] else { panic!() };
    let (mut special, mut text) = (0, 0);
    assert_eq!(FACTORY.vocab_size(), 32011);
    for id in 0..FACTORY.vocab_size() as u32 {
        let mut stream = PHI_3.stream(false);
        let mut said = stream.push(x).unwrap() + &stream.push(id).unwrap();
        said += &stream.finish().unwrap();
        let said = said.strip_prefix('x').unwrap();
        let bytes = FACTORY.token_bytes(id);
        if let [0xFF, name @ ..] = bytes {
            assert_eq!(name, said.as_bytes());
            special += 1;
        } else if bytes.is_empty() {
            // the bytes that no UTF-8 has are not told from marks
            assert_eq!(PHI_3.id_to_token(id).unwrap(), "<0xFF>");
        } else {
            assert_eq!(String::from_utf8_lossy(bytes), said, "{id}");
            text += 1;
        }
    }
    assert_eq!((special, text), (14, 32011 - 15));
    assert!(FACTORY.token_bytes(40_000).is_empty());
}

#[test]
fn a_constraint_can_move_to_another_thread() {
    fn check<T: Send>() {}
    check::<Constraint>();
    fn shared<T: Send + Sync>() {}
    shared::<ConstraintFactory>();
}

/// The decoder of Phi-3 drops one space at the start: the text that is left has to match.
#[test]
fn the_first_space_is_dropped_before_the_grammar() {
    let id = |token: &str| PHI_3.token_to_id(token).unwrap();
    let mut constraint = compile(Grammar::Regex("yes|no|[0-9]+".into()));
    let first = mask(&mut constraint);
    assert!(["▁yes", "yes", "▁no", "1", "▁"].iter().all(|token| is_allowed(&first, id(token))));
    assert!(!is_allowed(&first, id("▁▁")) && !is_allowed(&first, id("▁a")));
    constraint.advance(id("▁no")).unwrap();
    assert!(constraint.is_complete());
    constraint.rollback(1).unwrap();
    assert_eq!(mask(&mut constraint), first);
    constraint.advance(id("1")).unwrap();
    assert!(constraint.is_accepting().unwrap());
    // the second token's space is kept
    assert!(!is_allowed(&mask(&mut constraint), id("▁")));
    assert_eq!(constraint.advance(id("▁no")), Err(ConstraintError::NotAllowed { token: id("▁no") }));
    // nothing has changed
    constraint.advance(id("1")).unwrap();

    // a text that begins with a space needs one more
    let mut constraint = compile(Grammar::Regex(" yes".into()));
    let first = mask(&mut constraint);
    assert!(is_allowed(&first, id("▁")) && is_allowed(&first, id("▁▁")));
    assert!(!is_allowed(&first, id("▁yes")) && !is_allowed(&first, id("yes")));
    constraint.advance(id("▁")).unwrap();
    constraint.advance(id("▁yes")).unwrap();
    assert!(constraint.is_complete());
    constraint.rollback(2).unwrap();
    constraint.advance(id("▁▁")).unwrap();
    constraint.advance(id("yes")).unwrap();
    assert!(constraint.is_complete());

    // whatever is drawn, the text of the stream matches
    let mut random = Random(5);
    for _ in 0..40 {
        let mut constraint = compile(Grammar::Regex(" ?[a-z]{1,3} [0-9]{1,9}|  b".into()));
        let (text, complete) = answer(&mut constraint, &mut random, 20).unwrap();
        let rest = text.strip_prefix(' ').unwrap_or(&text);
        let (word, number) = rest.split_once(' ').unwrap_or(("", "0"));
        let common = (1..=3).contains(&word.len()) && number.parse::<u32>().is_ok();
        assert!(complete && (common || text == "  b"), "{text:?}");
    }
}

#[test]
fn stop_tokens_are_allowed_exactly_at_the_end() {
    let grammar = Grammar::Regex("ab*".into());
    let mut constraint = compile(grammar.clone());
    let [a, b] = ["a", "b"].map(|token| PHI_3.token_to_id(token).unwrap());
    assert!(!is_allowed(&mask(&mut constraint), END));
    assert_eq!(constraint.advance(END), Err(ConstraintError::NotAllowed { token: END }));
    constraint.advance(a).unwrap();
    constraint.advance(b).unwrap();
    assert!(!constraint.is_complete());
    let allowed = mask(&mut constraint);
    assert!([END, 32000, b].iter().all(|&token| is_allowed(&allowed, token)));
    constraint.advance(END).unwrap();
    assert!(constraint.is_complete());
    assert_eq!(tokens(&mask(&mut constraint)), [32000, END]);
    assert_eq!(constraint.advance(b), Err(ConstraintError::NotAllowed { token: b }));
    constraint.rollback(2).unwrap();
    constraint.advance(b).unwrap();
    // nothing can follow: only the stop tokens are left
    let mut constraint = compile(Grammar::Regex("a".into()));
    constraint.advance(a).unwrap();
    assert!(constraint.is_complete());
    assert_eq!(tokens(&mask(&mut constraint)), [32000, END]);
    // those of one answer, one of them in the rows that a checkpoint has more than tokens
    let mut constraint = FACTORY.compile_with(&grammar, &[32050, b]).unwrap();
    assert_eq!(mask(&mut constraint).len(), 32011usize.div_ceil(32));
    constraint.advance(a).unwrap();
    let allowed = mask(&mut constraint);
    assert!(is_allowed(&allowed, 32050) && is_allowed(&allowed, b) && !is_allowed(&allowed, END));
    constraint.advance(b).unwrap();
    assert!(constraint.is_complete());
    assert_eq!(FACTORY.compile_with(&grammar, &[]).unwrap_err(), ConstraintError::NoStopToken);
}

#[test]
fn special_tokens_are_not_in_strings() {
    let mut constraint = compile(Grammar::JsonSchema(serde_json::json!({"type": "string"})));
    let quote = PHI_3.token_to_id("\"").unwrap();
    constraint.advance(quote).unwrap();
    let inside = mask(&mut constraint);
    assert!(tokens(&inside).len() > 25_000);
    assert!(tokens(&inside).iter().all(|&token| !PHI_3.is_special(token) && FACTORY.token_bytes(token)[0] != 0xFF));
    for id in PHI_3.encode("<|end|> is text", false).unwrap() {
        assert_eq!(constraint.advance(id).is_err(), PHI_3.is_special(id), "{id}");
    }
}
