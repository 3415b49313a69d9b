//! Parsers of option values.

use phi3_tensor::cpu::{Activations, Isa, Repack};
use phi3_tensor::{DType, KvType};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Largest number that [`positive`] takes.
const MOST: usize = 1 << 20;

pub(super) fn positive(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=MOST).contains(&n) => Ok(n),
        _ => Err(format!("expected a whole number from 1 to {MOST}")),
    }
}

/// A time in seconds, of at least a millisecond and at most a year.
#[cfg(feature = "server")]
pub(super) fn seconds(text: &str) -> std::result::Result<std::time::Duration, String> {
    const YEAR: f64 = 365.0 * 24.0 * 3600.0;
    match text.parse::<f64>() {
        Ok(seconds) if (1e-3..=YEAR).contains(&seconds) => Ok(std::time::Duration::from_secs_f64(seconds)),
        _ => Err(format!("expected a number of seconds from 0.001 to {YEAR}")),
    }
}

/// A number, or -1 for none: no limit, all tokens, a new seed each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrNone<T>(pub(crate) Option<T>);

/// A whole number of at least 0, or -1.
pub(super) fn or_none<T: FromStr>(text: &str) -> std::result::Result<OrNone<T>, String> {
    match text {
        "-1" => Ok(OrNone(None)),
        _ => text.parse().map(|n| OrNone(Some(n))).map_err(|_| "expected a whole number of at least 0, or -1".into()),
    }
}

/// A number of at least 0, or -1.
pub(super) fn or_off(text: &str) -> std::result::Result<OrNone<f32>, String> {
    match text.parse::<f32>() {
        Ok(-1.0) => Ok(OrNone(None)),
        Ok(n) if n.is_finite() && n >= 0.0 => Ok(OrNone(Some(n))),
        _ => Err("expected a number of at least 0, or -1".into()),
    }
}

/// A token's id with a signed number, in llama.cpp's syntax: 15043+1, 15043-1.5, 15043-inf.
pub(super) fn bias(text: &str) -> std::result::Result<(u32, f32), String> {
    let parts = text.find(['+', '-']).map(|at| text.split_at(at));
    let parsed = parts.and_then(|(token, bias)| Some((token.parse().ok()?, bias.parse::<f32>().ok()?)));
    let valid = parsed.filter(|(_, bias)| *bias < f32::INFINITY);
    valid.ok_or_else(|| "expected a token's id with a number, such as 15043+1, 15043-1 or 15043-inf".into())
}

/// A sequence breaker, or `none`. An escape `\n` is a line break, since a shell's quotes keep it.
pub(super) fn breaker(text: &str) -> std::result::Result<OrNone<String>, String> {
    match text {
        "none" => Ok(OrNone(None)),
        "" => Err("expected a text of at least one character, or none".into()),
        _ => Ok(OrNone(Some(text.replace("\\n", "\n").replace("\\t", "\t")))),
    }
}

/// A version of mirostat: whether it is used.
pub(super) fn mirostat(text: &str) -> std::result::Result<bool, String> {
    match text {
        "0" => Ok(false),
        "2" => Ok(true),
        _ => Err("expected 0 or 2".into()),
    }
}

/// Numbers and ranges in llama-bench's syntax, separated by commas: 512, 4-8, 4-16+4 or 4-64*2.
#[derive(Clone, Debug)]
pub(crate) struct Numbers(Vec<usize>);

/// The numbers of an option that may be given several times.
pub(crate) fn all(lists: &[Numbers]) -> impl Iterator<Item = usize> {
    lists.iter().flat_map(|numbers| numbers.0.iter().copied())
}

pub(super) fn numbers(text: &str) -> std::result::Result<Numbers, String> {
    numbers_within(text, 0..=usize::MAX)
}

pub(super) fn rows(text: &str) -> std::result::Result<Numbers, String> {
    numbers_within(text, 1..=MOST)
}

fn numbers_within(text: &str, limits: RangeInclusive<usize>) -> std::result::Result<Numbers, String> {
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let bad = || format!("expected whole numbers or ranges such as 4-8, 4-16+4 or 4-64*2, found {part:?}");
        numbers.extend(range(part).ok_or_else(bad)?);
    }
    match numbers.iter().find(|n| !limits.contains(n)) {
        Some(n) => Err(format!("expected whole numbers from {} to {}, found {n}", limits.start(), limits.end())),
        None => Ok(Numbers(numbers)),
    }
}

/// Largest count of numbers in a range.
const LONGEST: usize = 1000;

/// A number or `first-last`, `first-last+step`, `first-last*factor`.
fn range(text: &str) -> Option<Vec<usize>> {
    let Some((first, rest)) = text.split_once('-') else { return Some(vec![text.parse().ok()?]) };
    let at = rest.find(['+', '*']).unwrap_or(rest.len());
    let (last, step) = rest.split_at(at);
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    let next = |n: usize| match step.split_at_checked(1) {
        Some(("*", factor)) => n.checked_mul(factor.parse().ok()?),
        Some((_, step)) => n.checked_add(step.parse().ok()?),
        None => n.checked_add(1),
    };
    let mut numbers = Vec::new();
    let mut n = first;
    while n <= last && numbers.len() < LONGEST {
        numbers.push(n);
        n = next(n).filter(|&after| after > n)?;
    }
    (!numbers.is_empty() && n > last).then_some(numbers)
}

pub(super) fn no_layers(_: &str) -> std::result::Result<String, String> {
    Err("a model runs on one device as a whole; --device gpu or --device cpu selects it".into())
}

pub(super) fn threads(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=512).contains(&n) => Ok(n),
        _ => Err("expected a whole number from 1 to 512".into()),
    }
}

pub(super) fn level(text: &str) -> std::result::Result<Isa, String> {
    let known = Isa::from_name(&text.to_ascii_lowercase());
    let known = known.ok_or_else(|| format!("expected one of {}", Isa::ALL.map(Isa::name).join(", ")))?;
    if known.available() { Ok(known) } else { Err(format!("this processor does not support {known}")) }
}

pub(super) fn activations(text: &str) -> std::result::Result<Activations, String> {
    let known = Activations::ALL.into_iter().find(|known| known.name() == text.to_ascii_lowercase());
    known.ok_or_else(|| format!("expected one of {}", Activations::ALL.map(Activations::name).join(", ")))
}

pub(super) fn pack(text: &str) -> std::result::Result<Repack, String> {
    let known = Repack::ALL.into_iter().find(|known| known.name() == text.to_ascii_lowercase());
    known.ok_or_else(|| format!("expected one of {}", Repack::ALL.map(Repack::name).join(", ")))
}

pub(super) fn kv_type(text: &str) -> std::result::Result<KvType, String> {
    let known = KvType::ALL.into_iter().find(|kv| kv.to_string() == text.to_ascii_lowercase());
    known.ok_or_else(|| format!("expected one of {}", KvType::ALL.map(|kv| kv.to_string()).join(", ")))
}

pub(super) fn bytes(text: &str) -> std::result::Result<u64, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit.to_ascii_uppercase().trim_end_matches("IB") {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err("expected bytes, such as 134217728 or 128M".into()),
    };
    let n: u64 = digits.parse().map_err(|_| "expected bytes, such as 134217728 or 128M")?;
    n.checked_mul(1 << shift).ok_or_else(|| "too many bytes".into())
}

pub(super) fn dtype(text: &str) -> std::result::Result<DType, String> {
    let known = DType::ALL.into_iter().find(|dtype| dtype.name() == text.to_ascii_lowercase());
    known.ok_or_else(|| format!("expected some of {}", DType::ALL.map(DType::name).join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_one_is_none() {
        assert_eq!(or_none::<usize>("-1"), Ok(OrNone(None)));
        assert_eq!(or_none::<u64>("18446744073709551615"), Ok(OrNone(Some(u64::MAX))));
        for bad in ["-2", "-1.0", "1.5", "", "x"] {
            assert!(or_none::<usize>(bad).unwrap_err().contains("-1"), "{bad}");
        }
    }

    #[test]
    fn biases_are_those_of_llama_cpp() {
        assert_eq!(bias("15043+1"), Ok((15043, 1.0)));
        assert_eq!(bias("7-1.5"), Ok((7, -1.5)));
        assert_eq!(bias("7-inf"), Ok((7, f32::NEG_INFINITY)));
        for bad in ["", "7", "+1", "-1", "7+", "7+inf", "7+nan", "7.5+1", "x+1", "4294967296+1", "7=1"] {
            assert!(bias(bad).unwrap_err().contains("15043+1"), "{bad}");
        }
    }

    #[test]
    fn values_of_samplers() {
        assert_eq!((or_off("-1"), or_off("1.5")), (Ok(OrNone(None)), Ok(OrNone(Some(1.5)))));
        for bad in ["-2", "nan", "inf", "x", ""] {
            assert!(or_off(bad).unwrap_err().contains("-1"), "{bad}");
        }
        assert_eq!((breaker("none"), breaker("\\n")), (Ok(OrNone(None)), Ok(OrNone(Some("\n".into())))));
        assert!(breaker("").is_err());
        assert_eq!((mirostat("0"), mirostat("2")), (Ok(false), Ok(true)));
        assert!(mirostat("1").unwrap_err().contains("2"));
    }

    #[test]
    fn numbers_and_ranges_are_those_of_llama_bench() {
        let of = |text: &str| numbers(text).map(|numbers| numbers.0);
        assert_eq!(of("512").unwrap(), [512]);
        assert_eq!(of("4-8").unwrap(), [4, 5, 6, 7, 8]);
        assert_eq!(of("4-16+4,1").unwrap(), [4, 8, 12, 16, 1]);
        assert_eq!(of("4-17*2").unwrap(), [4, 8, 16]);
        for bad in ["", "4-", "8-4", "4-8+0", "4-8*1", "0-8*2", "1-2000", "4-8/2", "x", "1,,2"] {
            assert!(of(bad).is_err(), "{bad}");
        }
        let most = rows("64,99999999999").unwrap_err();
        assert!(most.contains("from 1 to 1048576") && most.contains("99999999999"), "{most}");
    }
}
