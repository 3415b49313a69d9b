//! `Phi3SmallForCausalLM`: Phi-3-small 8k and 128k. Fields and defaults are those of the published `configuration_phi3_small.py`.

use super::{Common, epsilon, heads, rope, token_ids};
use crate::Result;
use crate::json::Object;
use crate::spec::{Block, LayerSpec, Mlp, ModelSpec, NormSpec, limits};
use phi3_tensor::{Activation, BlockSparse, Mask};

/// Size of the published vocabulary, and its placeholder tokens, which occur in no text.
const VOCABULARY: usize = 100_352;
const DUMMIES: [u32; 6] = [100_256, 100_258, 100_259, 100_260, 100_264, 100_265];
const LAST_DUMMIES: std::ops::Range<u32> = 100_267..100_352;

pub(super) fn read(json: &Object, notes: &mut Vec<String>) -> Result<ModelSpec> {
    if !matches!(json.string("hidden_act")?, None | Some("gegelu")) {
        return Err(json.bad("hidden_act", "\"gegelu\"", "published Phi-3-small has no other activation"));
    }
    let hidden_size = json.required("hidden_size", 1..=limits::WIDTH)?;
    let vocab_size = json.required("vocab_size", 1..=limits::VOCABULARY)?;
    let common = Common {
        hidden_size,
        heads: heads(json, hidden_size)?,
        vocab_size,
        max_position_embeddings: json.integer("max_position_embeddings", 1..=limits::POSITIONS)?.unwrap_or(8192),
        layers: json.required("num_hidden_layers", 1..=limits::LAYERS)?,
        inner: inner(json, hidden_size)?,
        tie_word_embeddings: json.boolean("tie_word_embeddings")?.unwrap_or(true),
        bos_token_id: json.integer("bos_token_id", 0..=u32::MAX as usize)?.map(|id| id as u32),
        eos_token_id: token_ids(json, "eos_token_id")?,
    };
    let rope = rope::read_small(json, common.heads.head_dim, common.max_position_embeddings, notes)?;
    let norm = NormSpec::Layer { eps: epsilon(json, "layer_norm_epsilon", 1e-5)? };
    let limit = json.positive("gegelu_limit")?.map_or(f32::INFINITY, |limit| limit as f32);
    let sparse = Mask::Blocks(blocks(json, common.heads.heads)?);
    let layer = LayerSpec {
        block: Block::Sequential,
        mask: sparse,
        attention_bias: true,
        mlp: Mlp::Dense { inner: common.inner, activation: Activation::GeGlu { limit }, bias: true },
    };
    let dense = json.integer("dense_attention_every_n_layers", 0..=limits::LAYERS)?.unwrap_or(0);
    let head_dim = common.heads.head_dim as f32;
    let mut spec = common.spec(norm, rope, layer);
    for (i, layer) in spec.layers.iter_mut().enumerate() {
        if dense > 0 && (i + 1).is_multiple_of(dense) {
            layer.mask = Mask::Causal;
        }
    }
    if json.boolean("mup_use_scaling")?.unwrap_or(true) {
        spec.attention_scale = factor(json, "mup_attn_multiplier", 1.0)? / head_dim;
    }
    // the reference applies each multiplier only if it is positive
    let embedding = factor(json, "mup_embedding_multiplier", 0.0)?;
    spec.embedding_scale = if embedding > 0.0 { embedding } else { 1.0 };
    let width = factor(json, "mup_width_multiplier", 0.0)?;
    spec.logit_scale = if width == 0.0 { 1.0 } else { 1.0 / width };
    if vocab_size == VOCABULARY {
        spec.suppressed = DUMMIES.into_iter().chain(LAST_DUMMIES).collect();
    }
    Ok(spec)
}

fn factor(json: &Object, field: &str, default: f32) -> Result<f32> {
    let value = json.number(field)?.map_or(default, |value| value as f32);
    if value.is_finite() {
        Ok(value)
    } else {
        Err(json.bad(field, "a number that f32 can hold", "compare the file with the published one"))
    }
}

/// Width of the feed-forward: a field, or computed from `hidden_size`.
fn inner(json: &Object, hidden_size: usize) -> Result<usize> {
    let multiplier = json.integer("ff_dim_multiplier", 1..=limits::WIDTH)?;
    let given = json.integer("ff_intermediate_size", 1..=limits::WIDTH)?;
    let Some(multiplier) = multiplier else {
        let hint = "one of ff_intermediate_size and ff_dim_multiplier must give the width of the feed-forward";
        return given.ok_or_else(|| json.bad("ff_intermediate_size", "a width", hint));
    };
    if given.is_some() {
        let hint = "only one of ff_intermediate_size and ff_dim_multiplier may be set";
        return Err(json.bad("ff_dim_multiplier", "null", hint));
    }
    let inner = multiplier.saturating_mul(hidden_size / 3).saturating_mul(2);
    let padded = json.boolean("gegelu_pad_to_256")?.unwrap_or(true);
    let inner = if padded { inner.checked_next_multiple_of(256).unwrap_or(usize::MAX) } else { inner };
    if (1..=limits::WIDTH).contains(&inner) {
        return Ok(inner);
    }
    let expected = format!("a width from 1 to {}", limits::WIDTH);
    Err(json.bad("ff_dim_multiplier", expected, "the feed-forward is 2 * ff_dim_multiplier * hidden_size / 3 wide"))
}

fn blocks(json: &Object, heads: usize) -> Result<BlockSparse> {
    let number = |field, default| Ok::<_, crate::Error>(json.integer(field, 1..=1 << 20)?.unwrap_or(default));
    let stride = number("blocksparse_vert_stride", 8)?;
    let alike = json.boolean("blocksparse_homo_head_pattern")?.unwrap_or(false);
    Ok(BlockSparse {
        block: number("blocksparse_block_size", 64)?,
        local: number("blocksparse_num_local_blocks", 16)?,
        stride,
        head_step: if alike { 0 } else { (stride / heads.max(1)).max(1) },
    })
}
