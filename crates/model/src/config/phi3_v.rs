//! `Phi3VForCausalLM`: Phi-3-vision and Phi-3.5-vision. The text part is Phi-3's; pictures go through a CLIP tower.

use super::{expect, phi3};
use crate::json::Object;
use crate::spec::limits;
use crate::vision::{CLIP, ImageTag, PatchEmbedding, PictureSpec};
use crate::{ModelSpec, Result, VisionSpec};
use phi3_tensor::{Activation, Heads};

const HINT: &str = "published Phi-3-vision and Phi-3.5-vision checkpoints have this value";

/// Largest accepted side of a crop or a patch in pixels, equal to the HD transform's limit.
const MOST_PIXELS: usize = 4096;

pub(super) fn read(json: &Object, notes: &mut Vec<String>) -> Result<ModelSpec> {
    let vision = Some(vision(json)?);
    Ok(ModelSpec { vision, ..phi3::read(json, notes)? })
}

/// The tower from `img_processor` and `embd_layer`.
fn vision(json: &Object) -> Result<VisionSpec> {
    let Some(processor) = json.object("img_processor")? else {
        return Err(json.bad("img_processor", "an object", HINT));
    };
    expect(&processor, "name", "clip_vision_model", HINT)?;
    expect(&processor, "type_feature", "patch", HINT)?;
    if processor.get("layer_idx").is_some_and(|layer| layer.as_i64() != Some(-2)) {
        return Err(processor.bad("layer_idx", "-2", HINT));
    }
    let (spec, image_size) = match processor.object("clip_config")? {
        Some(clip) => of_clip(&clip)?,
        None => (vit_large(), 336),
    };
    let side = image_size / spec.patch_size / 2;
    for (field, value) in [("image_dim_out", spec.hidden_size), ("num_img_tokens", side * side)] {
        if processor.integer(field, 0..=limits::WIDTH)?.is_some_and(|found| found != value) {
            return Err(processor.bad(field, format!("{value}, as the tower has it"), HINT));
        }
    }
    let Some(layer) = json.object("embd_layer")? else {
        return Err(json.bad("embd_layer", "an object", HINT));
    };
    expect(&layer, "embedding_cls", "image", HINT)?;
    expect(&layer, "projection_cls", "mlp", HINT)?;
    expect(&layer, "hd_transform_order", "sub_glb", HINT)?;
    for field in ["use_hd_transform", "with_learnable_separator"] {
        if layer.boolean(field)? != Some(true) {
            return Err(layer.bad(field, "true", HINT));
        }
    }
    Ok(spec)
}

/// CLIP ViT-L/14 at 336 pixels: the tower of published models, whose `config.json` omits its sizes.
fn vit_large() -> VisionSpec {
    VisionSpec {
        hidden_size: 1024,
        heads: Heads { heads: 16, kv_heads: 16, head_dim: 64, rotary_dim: 0 },
        inner: 4096,
        activation: Activation::QuickGelu,
        layers: 23,
        eps: 1e-5,
        patch_size: 14,
        patch_embedding: PatchEmbedding::Convolution,
        pre_norm: true,
        pooling_head: false,
        picture: PictureSpec::Crops { size: 336 },
        tag: ImageTag::Numbered,
        names: &CLIP,
    }
}

/// The tower from `clip_config`, and the side of its crops in pixels.
fn of_clip(json: &Object) -> Result<(VisionSpec, usize)> {
    let hidden_size = json.required("hidden_size", 1..=limits::WIDTH)?;
    let heads = json.required("num_attention_heads", 1..=limits::HEADS)?;
    if !hidden_size.is_multiple_of(2 * heads) {
        let expected = format!("heads of an even width that divide hidden_size ({hidden_size})");
        return Err(json.bad("num_attention_heads", expected, HINT));
    }
    let activation = match json.string("hidden_act")? {
        None | Some("quick_gelu") => Activation::QuickGelu,
        Some("gelu") => Activation::GeluErf,
        Some(_) => return Err(json.bad("hidden_act", "\"quick_gelu\" or \"gelu\"", HINT)),
    };
    let image_size = json.required("image_size", 1..=MOST_PIXELS)?;
    let patch_size = json.required("patch_size", 1..=MOST_PIXELS)?;
    if !image_size.is_multiple_of(2 * patch_size) {
        let expected = format!("an even number of patches along image_size ({image_size})");
        return Err(json.bad("patch_size", expected, HINT));
    }
    if json.integer("num_channels", 0..=limits::WIDTH)?.is_some_and(|channels| channels != 3) {
        return Err(json.bad("num_channels", "3", HINT));
    }
    let eps = json.positive("layer_norm_eps")?.map_or(1e-5, |eps| eps as f32);
    if !eps.is_normal() {
        return Err(json.bad("layer_norm_eps", "a number that f32 can hold", HINT));
    }
    let spec = VisionSpec {
        hidden_size,
        heads: Heads { heads, kv_heads: heads, head_dim: hidden_size / heads, rotary_dim: 0 },
        inner: json.required("intermediate_size", 1..=limits::WIDTH)?,
        activation,
        layers: json.required("num_hidden_layers", 2..=limits::LAYERS)? - 1,
        eps,
        patch_size,
        picture: PictureSpec::Crops { size: image_size },
        ..vit_large()
    };
    Ok((spec, image_size))
}
