//! What a vision tower is, from `img_processor` and `embd_layer` of `config.json`.

use crate::json::Object;
use crate::spec::limits;
use crate::{Error, Result};
use phi3_tensor::{Activation, Heads};

/// A CLIP tower with the HD transform and a projection of two layers, as in `Phi3VForCausalLM`.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionSpec {
    /// Width of a patch's features.
    pub hidden_size: usize,
    /// Attention heads, of which nothing is rotated.
    pub heads: Heads,
    /// Width between the projections of the feed-forward.
    pub inner: usize,
    /// Function between them.
    pub activation: Activation,
    /// Layers that are computed: all but the last, whose output is not used.
    pub layers: usize,
    /// Side of a crop in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels; an even number of them make a crop's side.
    pub patch_size: usize,
    /// Added to the variance in LayerNorm.
    pub eps: f32,
}

impl VisionSpec {
    /// Patches of a crop.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Positions of a crop: class token and patches.
    pub fn positions(&self) -> usize {
        1 + self.patches()
    }

    /// Pixels of a patch, all three channels.
    pub fn patch_pixels(&self) -> usize {
        3 * self.patch_size * self.patch_size
    }

    /// Tokens along a side of a crop: 2 · 2 patches are one.
    pub fn side(&self) -> usize {
        self.image_size / self.patch_size / 2
    }

    /// Width of 2 · 2 patches side by side.
    pub fn merged(&self) -> usize {
        4 * self.hidden_size
    }

    /// Tokens of a picture of `rows` · `cols` crops, its separators and its global view.
    pub fn tokens(&self, rows: usize, cols: usize) -> usize {
        let side = self.side();
        (rows * cols + 1) * side * side + 1 + (rows + 1) * side
    }

    /// Reads the fields of `config.json`.
    pub(crate) fn read(json: &Object) -> Result<Self> {
        let Some(processor) = json.object("img_processor")? else {
            return Err(json.bad("img_processor", "an object", HINT));
        };
        expect(&processor, "name", "clip_vision_model")?;
        expect(&processor, "type_feature", "patch")?;
        if processor.get("layer_idx").is_some_and(|layer| layer.as_i64() != Some(-2)) {
            return Err(processor.bad("layer_idx", "-2", HINT));
        }
        let spec = match processor.object("clip_config")? {
            Some(clip) => Self::of_clip(&clip)?,
            None => Self::vit_large(),
        };
        for (field, value) in [("image_dim_out", spec.hidden_size), ("num_img_tokens", spec.side().pow(2))] {
            if processor.integer(field, 0..=limits::WIDTH)?.is_some_and(|found| found != value) {
                return Err(processor.bad(field, format!("{value}, as the tower has it"), HINT));
            }
        }
        let Some(layer) = json.object("embd_layer")? else {
            return Err(json.bad("embd_layer", "an object", HINT));
        };
        expect(&layer, "embedding_cls", "image")?;
        expect(&layer, "projection_cls", "mlp")?;
        expect(&layer, "hd_transform_order", "sub_glb")?;
        for field in ["use_hd_transform", "with_learnable_separator"] {
            if layer.boolean(field)? != Some(true) {
                return Err(layer.bad(field, "true", HINT));
            }
        }
        Ok(spec)
    }

    /// CLIP ViT-L/14 at 336 pixels: what published models have and do not write down.
    fn vit_large() -> Self {
        Self {
            hidden_size: 1024,
            heads: Heads { heads: 16, kv_heads: 16, head_dim: 64, rotary_dim: 0 },
            inner: 4096,
            activation: Activation::QuickGelu,
            layers: 23,
            image_size: 336,
            patch_size: 14,
            eps: 1e-5,
        }
    }

    fn of_clip(json: &Object) -> Result<Self> {
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
        Ok(Self {
            hidden_size,
            heads: Heads { heads, kv_heads: heads, head_dim: hidden_size / heads, rotary_dim: 0 },
            inner: json.required("intermediate_size", 1..=limits::WIDTH)?,
            activation,
            layers: json.required("num_hidden_layers", 2..=limits::LAYERS)? - 1,
            image_size,
            patch_size,
            eps,
        })
    }
}

const HINT: &str = "published Phi-3-vision and Phi-3.5-vision checkpoints have it so";

/// Largest side of a crop in pixels, as the HD transform takes it.
const MOST_PIXELS: usize = 4096;

/// An error where a field is there and has another value.
fn expect(json: &Object, field: &str, value: &str) -> std::result::Result<(), Error> {
    match json.string(field)? {
        Some(found) if found != value => Err(json.bad(field, format!("\"{value}\""), HINT)),
        _ => Ok(()),
    }
}
