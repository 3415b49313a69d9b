//! `PhiForCausalLM`: Phi-1, Phi-1.5, Phi-2.

use super::{Common, epsilon, refuse, rope};
use crate::Result;
use crate::json::Object;
use crate::spec::{Block, LayerSpec, Mlp, ModelSpec, NormSpec};
use phi3_tensor::{Activation, Mask};

pub(super) fn read(json: &Object, notes: &mut Vec<String>) -> Result<ModelSpec> {
    let activation = match json.string("hidden_act")? {
        None | Some("gelu_new" | "gelu_pytorch_tanh") => Activation::GeluTanh,
        Some("gelu") => Activation::GeluErf,
        Some("quick_gelu") => Activation::QuickGelu,
        Some(_) => {
            let expected = "\"gelu_new\", \"gelu\" or \"quick_gelu\"";
            return Err(json.bad("hidden_act", expected, "published Phi-1, 1.5 and 2 have \"gelu_new\""));
        }
    };
    for field in ["num_local_experts", "sliding_window", "mup_width_multiplier", "mup_embedding_multiplier"] {
        refuse(json, field, f64::NAN)?;
    }
    let common = Common::read(json, 2048)?;
    let rope = rope::read(json, &rope::PHI, common.heads.head_dim, common.max_position_embeddings, notes)?;
    let norm = NormSpec::Layer { eps: epsilon(json, "layer_norm_eps", 1e-5)? };
    let layer = LayerSpec {
        block: Block::Parallel,
        mask: Mask::Causal,
        attention_bias: true,
        mlp: Mlp::Dense { inner: common.inner, activation, bias: true },
    };
    Ok(ModelSpec { head_bias: true, ..common.spec(norm, rope, layer) })
}
