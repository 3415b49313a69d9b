//! `Phi4ForCausalLMV`: Phi-4-reasoning-vision. The text part is Phi-3's; pictures go through a SigLIP2 tower at their own aspect
//! ratio (naflex).

use super::{expect, phi3};
use crate::json::Object;
use crate::spec::limits;
use crate::vision::{ImageTag, PatchEmbedding, PictureSpec, SIGLIP};
use crate::{ModelSpec, Result, VisionSpec};
use phi3_tensor::{Activation, Heads};

const HINT: &str = "the published Phi-4-reasoning-vision checkpoint has this value";

/// Largest accepted side of a patch in pixels.
const MOST_PIXELS: usize = 4096;

/// Largest accepted number of patches of a picture, and of positions in the table.
const MOST_PATCHES: usize = 1 << 16;

pub(super) fn read(json: &Object, notes: &mut Vec<String>) -> Result<ModelSpec> {
    let vision = Some(vision(json)?);
    Ok(ModelSpec { vision, ..phi3::read(json, notes)? })
}

/// The tower from `vision_config` and the fields `mm_…`; defaults are those of `Phi4VisionR` and `Siglip2VisionConfig`.
fn vision(json: &Object) -> Result<VisionSpec> {
    let name = json.string("mm_vision_tower")?.unwrap_or_default().to_lowercase();
    if !(name.contains("siglip") && name.contains("naflex")) {
        return Err(json.bad("mm_vision_tower", "the name of a SigLIP2 tower for naflex", HINT));
    }
    expect(json, "mm_projector_type", "mlp2x_gelu", HINT)?;
    if json.get("mm_vision_select_layer").is_some_and(|layer| layer.as_i64() != Some(-2)) {
        return Err(json.bad("mm_vision_select_layer", "-2", HINT));
    }
    if json.boolean("use_s2")? == Some(true) {
        return Err(json.bad("use_s2", "false", HINT));
    }
    let Some(tower) = json.object("vision_config")? else {
        return Err(json.bad("vision_config", "an object", HINT));
    };
    // default of `patch_size`: from the tower's name
    let patch = if name.contains("patch14") { 14 } else { 16 };
    let spec = of_siglip(&tower, picture(json, &tower)?, patch)?;
    if json.integer("mm_hidden_size", 0..=limits::WIDTH)?.is_some_and(|found| found != spec.hidden_size) {
        let expected = format!("{}, as vision_config.hidden_size", spec.hidden_size);
        return Err(json.bad("mm_hidden_size", expected, "two fields of one meaning contradict each other"));
    }
    Ok(spec)
}

fn picture(json: &Object, tower: &Object) -> Result<PictureSpec> {
    let number = |field, default| Ok::<_, crate::Error>(json.integer(field, 1..=MOST_PATCHES)?.unwrap_or(default));
    let (min_patches, max_patches) = (number("min_num_patches", 256)?, number("max_num_patches", 3600)?);
    if min_patches > max_patches {
        return Err(json.bad("min_num_patches", format!("at most max_num_patches ({max_patches})"), HINT));
    }
    let positions = tower.integer("num_patches", 1..=MOST_PATCHES)?.unwrap_or(256);
    let table = positions.isqrt();
    if table * table != positions {
        let expected = "the square of a number: the table of positions is a square";
        return Err(tower.bad("num_patches", expected, HINT));
    }
    Ok(PictureSpec::Whole { min_patches, max_patches, table })
}

fn of_siglip(json: &Object, picture: PictureSpec, patch: usize) -> Result<VisionSpec> {
    expect(json, "model_type", "siglip2_vision_model", HINT)?;
    let width = |field, default| Ok::<_, crate::Error>(json.integer(field, 1..=limits::WIDTH)?.unwrap_or(default));
    let hidden_size = width("hidden_size", 768)?;
    let heads = json.integer("num_attention_heads", 1..=limits::HEADS)?.unwrap_or(12);
    if !hidden_size.is_multiple_of(2 * heads) {
        let expected = format!("heads of an even width that divide hidden_size ({hidden_size})");
        return Err(json.bad("num_attention_heads", expected, HINT));
    }
    let activation = match json.string("hidden_act")? {
        None | Some("gelu_pytorch_tanh" | "gelu_new") => Activation::GeluTanh,
        Some("gelu") => Activation::GeluErf,
        Some("quick_gelu") => Activation::QuickGelu,
        Some(_) => return Err(json.bad("hidden_act", "\"gelu_pytorch_tanh\", \"gelu\" or \"quick_gelu\"", HINT)),
    };
    if json.integer("num_channels", 0..=limits::WIDTH)?.is_some_and(|channels| channels != 3) {
        return Err(json.bad("num_channels", "3", HINT));
    }
    let eps = json.positive("layer_norm_eps")?.map_or(1e-6, |eps| eps as f32);
    if !eps.is_normal() {
        return Err(json.bad("layer_norm_eps", "a number that f32 can hold", HINT));
    }
    Ok(VisionSpec {
        hidden_size,
        heads: Heads { heads, kv_heads: heads, head_dim: hidden_size / heads, rotary_dim: 0 },
        inner: width("intermediate_size", 3072)?,
        activation,
        layers: json.integer("num_hidden_layers", 2..=limits::LAYERS)?.unwrap_or(12) - 1,
        eps,
        patch_size: json.integer("patch_size", 1..=MOST_PIXELS)?.unwrap_or(patch),
        patch_embedding: PatchEmbedding::Linear,
        pre_norm: false,
        pooling_head: json.boolean("vision_use_head")?.unwrap_or(true),
        picture,
        tag: ImageTag::InOrder,
        names: &SIGLIP,
    })
}
