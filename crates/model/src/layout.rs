//! The tensors of a checkpoint, by their published names.

use crate::Config;
use phi3_tensor::Role;

/// Every weight with its shape, outermost dimension first, in the order of llama.cpp's files.
pub(crate) fn tensors(config: &Config) -> Vec<(String, Vec<usize>)> {
    let (hidden, heads) = (config.hidden_size, config.heads);
    let mut all = vec![("model.embed_tokens.weight".to_owned(), vec![config.vocab_size, hidden])];
    for i in 0..config.num_hidden_layers {
        let mut add =
            |part: &str, shape: &[usize]| all.push((format!("model.layers.{i}.{part}.weight"), shape.to_vec()));
        add("input_layernorm", &[hidden]);
        add("self_attn.qkv_proj", &[heads.qkv_dim(), hidden]);
        add("self_attn.o_proj", &[hidden, heads.q_dim()]);
        add("post_attention_layernorm", &[hidden]);
        add("mlp.gate_up_proj", &[config.gate_up_dim(), hidden]);
        add("mlp.down_proj", &[hidden, config.intermediate_size]);
    }
    all.push(("model.norm.weight".to_owned(), vec![hidden]));
    if !config.tie_word_embeddings {
        all.push(("lm_head.weight".to_owned(), vec![config.vocab_size, hidden]));
    }
    all
}

/// What a matrix of [`tensors`] is for.
pub(crate) fn role(config: &Config, name: &str) -> Role {
    match name.strip_suffix(".weight").and_then(|name| name.rsplit('.').next()) {
        Some("embed_tokens") if !config.tie_word_embeddings => Role::Embedding,
        Some("qkv_proj") => Role::Qkv(config.heads),
        Some("gate_up_proj") => Role::GateUp,
        _ => Role::Plain,
    }
}
