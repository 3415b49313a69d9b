//! What GGUF files call the tensors of a published checkpoint.

/// Tensors of a layer: published name, GGUF's name.
const LAYER: [(&str, &str); 6] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// The other tensors.
const TOP: [(&str, &str); 3] =
    [("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")];

/// The name in a GGUF file; names that stand in neither table stay as they are.
pub(crate) fn translate(published: &str) -> String {
    let translated = || {
        let (stem, kind) = published.rsplit_once('.')?;
        if let Some((_, name)) = TOP.iter().find(|(published, _)| *published == stem) {
            return Some(format!("{name}.{kind}"));
        }
        let (layer, part) = stem.strip_prefix("model.layers.")?.split_once('.')?;
        let (_, name) = LAYER.iter().find(|(published, _)| *published == part)?;
        Some(format!("blk.{layer}.{name}.{kind}"))
    };
    translated().unwrap_or_else(|| published.to_owned())
}

/// The published name of a layer's tensor, without layer and `.weight`; another name stays as it is.
pub fn published_part(name: &str) -> &str {
    LAYER.iter().find(|(_, gguf)| *gguf == name).map_or(name, |(published, _)| published)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_translated() {
        for (published, name) in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("model.layers.31.mlp.gate_up_proj.weight", "blk.31.ffn_up.weight"),
            ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
            ("lm_head.weight", "output.weight"),
            ("rope_factors_long.weight", "rope_factors_long.weight"),
        ] {
            assert_eq!(super::translate(published), name);
        }
    }
}
