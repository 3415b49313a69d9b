//! Comparison of a written vocabulary with its original tokenizer, on sample texts.

use phi3_model::gguf::Vocabulary;

use super::error::Result;
use super::tokenizer::Tokenizer;

/// Most ids in a note.
const SHOWN: usize = 12;

/// Approximate number of tokens of the vocabulary that are tried.
const SAMPLE: usize = 4000;

/// Texts that tokenizers often encode differently, by topic.
const TEXTS: [(&str, &[&str]); 6] = [
    ("the beginning and the end of a text", &["Hello", " Hello", "  Hello", "   ", "Hello world ", "Hello  ", "a", ""]),
    (
        "white space",
        &[
            "a  b   c    d",
            "\tHello\t\tyou",
            "a\nb\n\nc\n",
            "a\r\nb",
            " \n \n\n x",
            "a\u{a0}b",
            "x\u{3000}y",
            "a \u{200b} b",
        ],
    ),
    (
        "digits",
        &["1234567890", "In 1234 and 56789", "3.14159, 1,000,000", "12ab34", "\u{967}\u{968}\u{969}", "x² ½ \u{2167}"],
    ),
    (
        "letters outside of ASCII",
        &[
            "Grüße, naïve Œuvre",
            "Привет, как дела?",
            "漢字かな交じり文",
            "한국어",
            "مرحبا",
            "नमस्ते",
            "ΑΒΓ αβγ",
            "🦙👩‍👩‍👧🇩🇪",
            "x\u{0}y",
        ],
    ),
    (
        "normal forms and case",
        &[
            "e\u{301}a\u{308}",
            "\u{fb01}ve \u{ff21}\u{ff11} \u{338f}",
            "\u{212b} \u{2126}",
            "HELLO hello Hello",
            "İı ß ẞ",
        ],
    ),
    (
        "code and punctuation",
        &[
            "def f(x):\n    return x + 1\n",
            "if (a&&b) { c[i]++; } // d",
            "it's I'LL don\u{2019}t",
            "snake_case camelCase",
            "$x = \"y\";\n\t\t#",
            "https://a.b/c?d=e&f=g",
            "...---***",
            "<tag/>",
        ],
    ),
];

/// Compares a tokenizer with the one read from its written vocabulary. Adds a note with an example for every kind
/// of text that is encoded to other ids, or whose ids are decoded to another text.
///
/// # Errors
/// The vocabulary is not that of a usable tokenizer.
pub(crate) fn compare(folder: &Tokenizer, written: &Vocabulary, notes: &mut Vec<String>) -> Result<()> {
    let file = Tokenizer::from_gguf(written)?;
    let mut tell = |kind: &str, texts: &[String], special: bool| {
        let differing: Vec<String> = texts.iter().filter_map(|text| difference(folder, &file, text, special)).collect();
        if let Some(example) = differing.first() {
            notes.push(format!(
                "the tokenizer {} differs from that of the GGUF file in {kind} ({} of {} texts tried): {example}",
                folder.file(),
                differing.len(),
                texts.len()
            ));
        }
        differing.is_empty()
    };
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let mut same = true;
    for (kind, texts) in TEXTS {
        same &= tell(kind, &owned(texts), false);
    }
    let added = folder.added_tokens();
    let around = |before: &str, behind: &str| {
        added.iter().map(|token| format!("a{before}{token}{behind}b")).collect::<Vec<String>>()
    };
    if tell("added tokens", &around("", ""), false) {
        tell("white space in front of added tokens", &[around(" ", ""), around("\n", "")].concat(), false);
        tell("white space behind added tokens", &[around("", " "), around("", "\n")].concat(), false);
        let behind: Vec<String> = added.iter().map(|token| format!("{token}Hello you")).collect();
        tell("the text behind added tokens", &behind, false);
    }
    if same {
        // a difference in all texts is in the notes already
        tell("the pieces of the vocabulary", &pieces(folder), false);
        tell("the tokens that are put around a text", &owned(&["Hello"]), true);
    }
    Ok(())
}

/// The texts of tokens, spread over the vocabulary.
fn pieces(tokenizer: &Tokenizer) -> Vec<String> {
    let size = tokenizer.vocab_size();
    let ids = (0..size).step_by((size / SAMPLE).max(1)).map(|id| id as u32).filter(|&id| !tokenizer.is_special(id));
    let texts = ids.filter_map(|id| tokenizer.decode(&[id], false).ok());
    texts.filter(|text| !text.is_empty() && !text.contains('\u{fffd}')).map(|text| format!("x {text}")).collect()
}

/// Description of a difference on a text; `None` if there is none.
fn difference(folder: &Tokenizer, file: &Tokenizer, text: &str, special: bool) -> Option<String> {
    let ids = |tokenizer: &Tokenizer| tokenizer.encode(text, special);
    let shown = |ids: &Result<Vec<u32>>| match ids {
        Ok(ids) if ids.len() > SHOWN => format!("{:?} and {} more", &ids[..SHOWN], ids.len() - SHOWN),
        Ok(ids) => format!("{ids:?}"),
        Err(error) => error.to_string(),
    };
    match (ids(folder), ids(file)) {
        (Ok(here), Ok(there)) if here == there => {
            let back = |tokenizer: &Tokenizer| tokenizer.decode(&here, false).unwrap_or_else(|error| error.to_string());
            let (own, other) = (back(folder), back(file));
            (own != other)
                .then(|| format!("the ids {} become {own:?}, from the file {other:?}", shown(&Ok(here.clone()))))
        }
        (Err(_), Err(_)) => None,
        (here, there) => Some(format!("{text:?} becomes {}, from the file {}", shown(&here), shown(&there))),
    }
}
