//! `Phi3VForCausalLM`: Phi-3-vision and Phi-3.5-vision. The text part is Phi-3's, in front of which a tower stands.

use super::phi3;
use crate::json::Object;
use crate::{ModelSpec, Result, VisionSpec};

pub(super) fn read(json: &Object, notes: &mut Vec<String>) -> Result<ModelSpec> {
    let vision = Some(VisionSpec::read(json)?);
    Ok(ModelSpec { vision, ..phi3::read(json, notes)? })
}
