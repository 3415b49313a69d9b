//! Citations in an answer: `[1]`, `[1][2]` or `[1, 2]`.

use std::collections::BTreeSet;

/// The numbers in square brackets of an answer. Other text in brackets is none.
pub(crate) fn citations(answer: &str) -> BTreeSet<usize> {
    let mut numbers = BTreeSet::new();
    for bracket in answer.split('[').skip(1) {
        let Some((inside, _)) = bracket.split_once(']') else { continue };
        let cited: Result<Vec<usize>, _> = inside.split(',').map(|number| number.trim().parse()).collect();
        numbers.extend(cited.into_iter().flatten());
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_brackets() {
        let of = |answer| citations(answer).into_iter().collect::<Vec<_>>();
        assert_eq!(of("A page has 16 positions [2]. It is counted [1][3]."), [1, 2, 3]);
        assert_eq!(of("[1, 2] and [ 4 ] and [2]"), [1, 2, 4]);
        assert_eq!(of("[12]"), [12]);
    }

    #[test]
    fn other_brackets() {
        for answer in
            ["", "no brackets", "a[i]", "[]", "[1", "1]", "[1-3]", "[-1]", "[1, x]", "[99999999999999999999999]"]
        {
            assert!(citations(answer).is_empty(), "{answer}");
        }
        assert_eq!(citations("[[1]]"), BTreeSet::from([1]));
        assert_eq!(citations("[see [2]"), BTreeSet::from([2]));
    }
}
