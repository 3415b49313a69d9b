//! Sizes of the published variants, from fields of their `config.json`.

use crate::{Error, ModelSpec, Result};
use serde_json::{Map, Value};
use std::path::Path;

const SIZES: &str = include_str!("variants.json");

const FILE: &str = "variants.json";

/// The description of a published variant by its name, such as `phi-3-mini-4k`: the sizes of its `config.json`, without the
/// factors of LongRoPE, which change no shape.
///
/// # Errors
///
/// [`Error::Request`] for an unknown name; the message lists the known names.
pub fn variant(name: &str) -> Result<ModelSpec> {
    let mut all = sizes()?;
    let Some(config @ Value::Object(_)) = all.remove(name) else {
        let names: Vec<String> = all.into_iter().map(|(name, _)| name).collect();
        return Err(Error::Request {
            what: "unknown variant",
            found: format!("{name:?}"),
            limit: format!("the variants are {}", names.join(", ")),
            hint: "-m takes any checkpoint",
        });
    };
    ModelSpec::parse(Path::new(FILE), config.to_string().as_bytes())
}

/// Names of all published variants, for [`variant`].
pub fn variants() -> Vec<String> {
    sizes().map_or_else(|_| Vec::new(), |all| all.into_iter().map(|(name, _)| name).collect())
}

fn sizes() -> Result<Map<String, Value>> {
    serde_json::from_str(SIZES).map_err(|error| Error::Request {
        what: "sizes of the variants",
        found: error.to_string(),
        limit: format!("{FILE} is a JSON object"),
        hint: "this program was built from a damaged source",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{parameters, weight_bytes};

    #[test]
    fn every_variant_has_the_published_number_of_parameters() {
        let published = [
            ("phi-1", 1_418_270_720),
            ("phi-1.5", 1_418_270_720),
            ("phi-2", 2_779_683_840),
            ("phi-3-mini-4k", 3_821_079_552),
            ("phi-3-mini-128k", 3_821_079_552),
            ("phi-3-small-8k", 7_392_272_384),
            ("phi-3-small-128k", 7_392_272_384),
            ("phi-3-medium-4k", 13_960_238_080),
            ("phi-3-medium-128k", 13_960_238_080),
            ("phi-3-vision", 4_146_621_440),
            ("phi-3.5-mini", 3_821_079_552),
            ("phi-3.5-moe", 41_873_153_344),
            ("phi-3.5-vision", 4_146_621_440),
            ("phi-mini-moe", 7_647_632_704),
            ("phi-tiny-moe", 3_755_220_288),
            ("phi-4", 14_659_507_200),
            ("phi-4-mini", 3_836_021_760),
            ("phi-4-reasoning-vision", 15_119_518_144),
        ];
        let names = variants();
        assert_eq!(names, published.map(|(name, _)| name));
        for (name, count) in published {
            assert_eq!(parameters(&variant(name).unwrap()), count, "{name}");
        }
    }

    #[test]
    fn sizes_are_those_of_the_class() {
        let phi_4_mini = variant("phi-4-mini").unwrap();
        assert_eq!(
            (phi_4_mini.heads.rotary_dim, phi_4_mini.heads.head_dim, phi_4_mini.tie_word_embeddings),
            (96, 128, true)
        );
        assert_eq!(variant("phi-2").unwrap().heads.rotary_dim, 32);
        let tiny = variant("phi-tiny-moe").unwrap();
        assert_eq!((tiny.heads.q_dim(), tiny.most_experts(), tiny.window()), (2048, 16, Some(2047)));
        assert!(variant("phi-3-small-8k").unwrap().norm.has_bias());
        assert!(variant("phi-5").unwrap_err().to_string().contains("phi-3-mini-4k"));
    }

    #[test]
    fn memory_is_that_of_the_type() {
        let bytes = |name: &str, scheme: &str| weight_bytes(&variant(name).unwrap(), scheme.parse().unwrap());
        // two bytes a parameter, and two more for each value of the 65 norms
        assert_eq!(bytes("phi-3-mini-4k", "bf16"), 2 * 3_821_079_552 + 2 * 65 * 3072);
        let parameters = 3_821_079_552.0;
        assert!((8.0 * bytes("phi-3-mini-4k", "q8_0") as f64 / parameters - 8.5).abs() < 0.01);
        assert!((8.0 * bytes("phi-3-mini-4k", "q4_k_m") as f64 / parameters - 4.9).abs() < 0.2);
        for name in variants() {
            let of = |scheme: &str| bytes(&name, scheme);
            assert!(of("q4_k_m") < of("q8_0") && of("q8_0") < of("bf16"), "{name}");
        }
    }
}
