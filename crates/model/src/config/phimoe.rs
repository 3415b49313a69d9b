//! `PhiMoEForCausalLM`: Phi-3.5-MoE, Phi-mini-MoE, Phi-tiny-MoE.

use super::{Common, epsilon, refuse, rope};
use crate::Result;
use crate::json::Object;
use crate::spec::{Block, LayerSpec, Mlp, ModelSpec, NormSpec, limits};
use phi3_tensor::{Activation, Mask, Router, TOP_EXPERTS};

pub(super) fn read(json: &Object, notes: &mut Vec<String>) -> Result<ModelSpec> {
    if !matches!(json.string("hidden_act")?, None | Some("silu" | "swish")) {
        return Err(json.bad("hidden_act", "\"silu\"", "no published Phi with experts has another activation"));
    }
    refuse(json, "mup_width_multiplier", 1.0)?;
    refuse(json, "mup_embedding_multiplier", 1.0)?;
    let experts = json.integer("num_experts_per_tok", 0..=usize::MAX)?.unwrap_or(TOP_EXPERTS);
    if experts != TOP_EXPERTS {
        return Err(json.bad("num_experts_per_tok", "2", "sparsemixer routes each row to two experts"));
    }
    let common = Common::read(json, 131_072)?;
    // second names of two fields in some files
    for (field, usual) in [("moe_intermediate_size", "intermediate_size"), ("num_experts", "num_local_experts")] {
        let (found, wanted) = (json.integer(field, 0..=usize::MAX)?, json.integer(usual, 0..=usize::MAX)?);
        if let (Some(found), Some(wanted)) = (found, wanted)
            && found != wanted
        {
            return Err(json.bad(
                field,
                format!("{wanted}, as {usual}"),
                "two fields of one meaning contradict each other",
            ));
        }
    }
    let rope = rope::read(json, &rope::PHIMOE, common.heads.head_dim, common.max_position_embeddings, notes)?;
    let norm = NormSpec::Layer { eps: epsilon(json, "rms_norm_eps", 1e-5)? };
    let jitter = json.number("router_jitter_noise")?.unwrap_or(0.01) as f32;
    if !(0.0..=1e6).contains(&jitter) {
        return Err(json.bad("router_jitter_noise", "a number from 0 to 1000000", "published models have 0.01"));
    }
    let layer = LayerSpec {
        block: Block::Sequential,
        mask: Mask::windowed(json.integer("sliding_window", 1..=limits::POSITIONS)?),
        attention_bias: json.boolean("attention_bias")?.unwrap_or(false),
        mlp: Mlp::Experts {
            inner: common.inner,
            count: json.required("num_local_experts", 1..=limits::EXPERTS)?,
            router: Router::SparseMixer { jitter },
            activation: Activation::SwiGlu,
        },
    };
    let head_bias = json.boolean("lm_head_bias")?.unwrap_or(false);
    Ok(ModelSpec { head_bias, ..common.spec(norm, rope, layer) })
}
