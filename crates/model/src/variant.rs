//! Sizes of the published variants: what `config.json` has of them.

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
/// A name that is none; the error lists those that there are.
pub fn variant(name: &str) -> Result<ModelSpec> {
    let mut all = sizes()?;
    let Some(Value::Object(mut config)) = all.remove(name) else {
        let names: Vec<String> = all.into_iter().map(|(name, _)| name).collect();
        return Err(Error::Request {
            what: "unknown variant",
            found: format!("{name:?}"),
            limit: format!("there are {}", names.join(", ")),
            hint: "-m takes any checkpoint",
        });
    };
    config.insert("model_type".into(), "phi3".into());
    ModelSpec::parse(Path::new(FILE), Value::Object(config).to_string().as_bytes())
}

/// Names of the variants that [`variant`] knows.
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

    #[test]
    fn every_variant_is_a_configuration() {
        let names = variants();
        assert!(names.len() >= 7);
        for name in &names {
            assert!(variant(name).is_ok_and(|spec| spec.heads.qkv_dim() > spec.hidden_size), "{name}");
        }
        let phi_4_mini = variant("phi-4-mini").unwrap();
        assert_eq!(
            (phi_4_mini.heads.rotary_dim, phi_4_mini.heads.head_dim, phi_4_mini.tie_word_embeddings),
            (96, 128, true)
        );
        assert!(variant("phi-5").unwrap_err().to_string().contains("phi-3-mini-4k"));
    }
}
