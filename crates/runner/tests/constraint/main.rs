//! Constraints: masks of real vocabularies, schemas and their refusals, answers of the demo model.

mod answers;
mod grammars;
mod random;
mod schemas;
mod vocabulary;

use phi3_runner::constraint::{Constraint, ConstraintError, ConstraintFactory, Grammar};
use phi3_runner::text::Tokenizer;
use std::path::Path;
use std::sync::LazyLock;

/// `<|end|>` of Phi-3.
const END: u32 = 32007;

static PHI_3: LazyLock<Tokenizer> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/tokenizer/phi-3/tokenizer.json");
    Tokenizer::from_file(path).unwrap()
});

static FACTORY: LazyLock<ConstraintFactory> = LazyLock::new(|| ConstraintFactory::new(&PHI_3, &[END, 32000]).unwrap());

/// Short tokens that close something.
static CLOSERS: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let closes = |token: &u32| {
        let word = FACTORY.token_bytes(*token);
        word.len() <= 2 && word.iter().any(|byte| b"\"]}".contains(byte))
    };
    (0..32011).filter(closes).collect()
});

/// Pseudorandom numbers, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (self.0 >> 33) as usize % limit
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

fn is_allowed(mask: &[u32], token: u32) -> bool {
    mask.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
}

fn tokens(mask: &[u32]) -> Vec<u32> {
    (0..32 * mask.len() as u32).filter(|&token| is_allowed(mask, token)).collect()
}

fn mask(constraint: &mut Constraint) -> Vec<u32> {
    let mut mask = Vec::new();
    constraint.mask(&mut mask).unwrap();
    mask
}

/// A random answer: its text, and whether it is complete. After `length` tokens those that close something are preferred.
fn answer(constraint: &mut Constraint, random: &mut Random, length: usize) -> Result<(String, bool), ConstraintError> {
    let mut stream = PHI_3.stream(true);
    let (mut text, mut mask) = (String::new(), Vec::new());
    for step in 0..4 * length {
        constraint.mask(&mut mask)?;
        let of_mask =
            |tokens: &[u32]| -> Vec<u32> { tokens.iter().copied().filter(|&token| is_allowed(&mask, token)).collect() };
        let ends = of_mask(&[END, 32000]);
        assert_eq!(!ends.is_empty(), constraint.is_accepting().unwrap(), "{text}");
        let closers = of_mask(&CLOSERS);
        let late = step > length;
        let token = match () {
            () if !ends.is_empty() && (late || random.chance(50)) => *random.of(&ends),
            () if !closers.is_empty() && (late || random.chance(30)) => *random.of(&closers),
            () => {
                let (count, from) = (32 * mask.len(), random.below(32 * mask.len()));
                (0..count).map(|i| ((from + i) % count) as u32).find(|&token| is_allowed(&mask, token)).unwrap()
            }
        };
        constraint.advance(token)?;
        if ends.contains(&token) {
            assert!(constraint.is_complete());
            return Ok((text + &stream.finish().unwrap(), true));
        }
        text += &stream.push(token).unwrap();
    }
    Ok((text, false))
}

fn compile(grammar: Grammar) -> Constraint {
    FACTORY.compile(&grammar).unwrap()
}

/// Whether a grammar matches a text, fed as the tokens of the text, and as single bytes where they differ.
fn matches(grammar: &Grammar, text: &str) -> bool {
    let mut constraint = FACTORY.compile(grammar).unwrap();
    let ids = PHI_3.encode(text, false).unwrap();
    let fits = ids.iter().all(|&id| constraint.advance(id).is_ok());
    fits && constraint.is_accepting().unwrap()
}
