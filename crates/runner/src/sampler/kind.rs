//! Names and order of the samplers.

use super::error::SamplerError;
use std::fmt;
use std::str::FromStr;

/// A sampler: a step from logits to the choice of a token. Names are llama.cpp's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SamplerKind {
    /// `penalties`: repetition, frequency and presence penalty.
    Penalties,
    /// `dry`: penalty on the continuation of a repeated sequence.
    Dry,
    /// `temperature`: division of the logits, by a fixed or a dynamic temperature.
    Temperature,
    /// `top_n_sigma`: truncation by distance from the largest logit.
    TopNSigma,
    /// `top_k`: truncation to a number of tokens.
    TopK,
    /// `top_p`: truncation to a cumulative probability.
    TopP,
    /// `min_p`: truncation by share of the largest probability.
    MinP,
    /// `typ_p`: truncation to the locally typical tokens.
    TypicalP,
    /// `xtc`: removal of the most likely tokens.
    Xtc,
}

impl SamplerKind {
    /// Every sampler, in the default order. That of the truncations after the temperature is transformers'.
    pub const ALL: [Self; 9] = [
        Self::Penalties,
        Self::Dry,
        Self::Temperature,
        Self::TopNSigma,
        Self::TopK,
        Self::TopP,
        Self::MinP,
        Self::TypicalP,
        Self::Xtc,
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Penalties => "penalties",
            Self::Dry => "dry",
            Self::Temperature => "temperature",
            Self::TopNSigma => "top_n_sigma",
            Self::TopK => "top_k",
            Self::TopP => "top_p",
            Self::MinP => "min_p",
            Self::TypicalP => "typ_p",
            Self::Xtc => "xtc",
        }
    }

    /// Whether the sampler only removes tokens. Mirostat replaces these samplers, and temperature 0 needs none of them.
    pub fn is_truncation(self) -> bool {
        !matches!(self, Self::Penalties | Self::Dry | Self::Temperature)
    }

    /// Parses an order: names separated by semicolons. An empty text is no sampler.
    ///
    /// # Errors
    /// A name is unknown or repeated.
    pub fn order(text: &str) -> Result<Vec<Self>, SamplerError> {
        let names = text.split(';').map(str::trim).filter(|name| !name.is_empty());
        let order = names.map(str::parse).collect::<Result<Vec<Self>, _>>()?;
        Self::check_order(&order)?;
        Ok(order)
    }

    /// Checks that no sampler is repeated.
    pub(super) fn check_order(order: &[Self]) -> Result<(), SamplerError> {
        match (1..order.len()).find(|&i| order[..i].contains(&order[i])) {
            Some(i) => {
                Err(SamplerError::Order { expected: "every sampler once at most".into(), found: order[i].to_string() })
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SamplerKind {
    type Err = SamplerError;

    /// Hyphens count as underscores. llama.cpp's other names are known too: `temp`, `typical_p`, `typical`, `nucleus`.
    fn from_str(text: &str) -> Result<Self, SamplerError> {
        let name = text.to_ascii_lowercase().replace('-', "_");
        let name = match name.as_str() {
            "temp" => "temperature",
            "typical" | "typical_p" | "typ" => "typ_p",
            "nucleus" => "top_p",
            other => other,
        };
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| SamplerError::Order {
            expected: format!("some of {}", Self::ALL.map(Self::name).join(", ")),
            found: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed() {
        assert_eq!(SamplerKind::order(&SamplerKind::ALL.map(SamplerKind::name).join(";")).unwrap(), SamplerKind::ALL);
        let kinds = [SamplerKind::TopK, SamplerKind::TypicalP, SamplerKind::Temperature];
        assert_eq!(SamplerKind::order("top-k; typical;;TEMP").unwrap(), kinds);
        assert_eq!(SamplerKind::order("").unwrap(), []);
        for (bad, word) in [("top_k;infill", "infill"), ("top_k;min_p;top-k", "once")] {
            let error = SamplerKind::order(bad).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("hint"), "{error}");
        }
    }
}
