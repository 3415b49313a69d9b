//! What stands behind an option, as what it means.

use phi3_tensor::cpu::{Activations, Level, Pack};
use phi3_tensor::{DType, KvType};

pub(super) fn positive(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=1 << 20).contains(&n) => Ok(n),
        _ => Err("expected a whole number of at least 1".into()),
    }
}

pub(super) fn threads(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=512).contains(&n) => Ok(n),
        _ => Err("expected a whole number from 1 to 512".into()),
    }
}

pub(super) fn level(text: &str) -> std::result::Result<Level, String> {
    let known = Level::from_name(&text.to_ascii_lowercase());
    let known = known.ok_or_else(|| format!("expected one of {}", Level::ALL.map(Level::name).join(", ")))?;
    if known.available() { Ok(known) } else { Err(format!("this processor has no {known}")) }
}

pub(super) fn activations(text: &str) -> std::result::Result<Activations, String> {
    let known = Activations::ALL.into_iter().find(|known| known.name() == text.to_ascii_lowercase());
    known.ok_or_else(|| format!("expected one of {}", Activations::ALL.map(Activations::name).join(", ")))
}

pub(super) fn pack(text: &str) -> std::result::Result<Pack, String> {
    let known = Pack::ALL.into_iter().find(|known| known.name() == text.to_ascii_lowercase());
    known.ok_or_else(|| format!("expected one of {}", Pack::ALL.map(Pack::name).join(", ")))
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
