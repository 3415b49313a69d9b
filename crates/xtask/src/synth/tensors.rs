//! The tensors of a checkpoint, by its configuration: the names and shapes of the published files.

use serde_json::Value;

use crate::Result;

/// A tensor to write.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) shape: Vec<u64>,
    pub(super) fill: Fill,
}

/// Its values.
#[derive(Debug)]
pub(super) enum Fill {
    Normal { mean: f32, sigma: f32 },
    InverseFrequencies { base: f64 },
}

impl Tensor {
    pub(super) fn normal(name: impl Into<String>, shape: &[u64], mean: f32, sigma: f32) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), fill: Fill::Normal { mean, sigma } }
    }

    pub(super) fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// All tensors, in the order of the model.
pub(super) fn of(config: &Value) -> Result<Vec<Tensor>> {
    let sizes = Sizes::of(config)?;
    let mut list = List(Vec::new());
    match config["model_type"].as_str() {
        Some("phi3") => phi3(&mut list, &sizes),
        Some("phi3_v") => {
            phi3(&mut list, &sizes);
            vision(&mut list, sizes.hidden);
        }
        Some("phi4-siglip") => {
            phi3(&mut list, &sizes);
            siglip(&mut list, &config["vision_config"], sizes.hidden)?;
        }
        Some("phi3small") => phi3small(&mut list, &sizes, config),
        Some("phimoe") => phimoe(&mut list, &sizes),
        Some("phi") => phi(&mut list, &sizes),
        other => return Err(format!("no model_type {other:?}")),
    }
    Ok(list.0)
}

struct Sizes {
    hidden: u64,
    layers: u64,
    vocabulary: u64,
    intermediate: u64,
    query: u64,
    key: u64,
    head: u64,
    experts: u64,
    tied: bool,
}

impl Sizes {
    fn of(config: &Value) -> Result<Self> {
        let number = |name: &str| config[name].as_u64().ok_or_else(|| format!("config.json has no {name}"));
        let heads = number("num_attention_heads")?;
        let key_heads = config["num_key_value_heads"].as_u64().unwrap_or(heads);
        let hidden = number("hidden_size")?;
        let head = config["head_dim"].as_u64().unwrap_or(hidden / heads);
        Ok(Self {
            hidden,
            layers: number("num_hidden_layers")?,
            vocabulary: number("vocab_size")?,
            intermediate: number("intermediate_size").or_else(|_| number("ff_intermediate_size"))?,
            query: heads * head,
            key: key_heads * head,
            head,
            experts: config["num_local_experts"].as_u64().unwrap_or(0),
            tied: config["tie_word_embeddings"].as_bool().unwrap_or(false),
        })
    }
}

/// Every matrix keeps the size of what goes through it, and norms are near 1, so that activations stay of the size that they
/// have in a trained model.
struct List(Vec<Tensor>);

impl List {
    fn linear(&mut self, name: String, rows: u64, columns: u64) {
        self.scaled(name, rows, columns, 1.0);
    }

    fn scaled(&mut self, name: String, rows: u64, columns: u64, scale: f32) {
        let sigma = scale / (columns as f32).sqrt();
        self.0.push(Tensor::normal(name + ".weight", &[rows, columns], 0.0, sigma));
    }

    fn linear_with_bias(&mut self, name: String, rows: u64, columns: u64) {
        self.linear(name.clone(), rows, columns);
        self.bias(name, rows);
    }

    fn bias(&mut self, name: String, size: u64) {
        self.0.push(Tensor::normal(name + ".bias", &[size], 0.0, 0.02));
    }

    fn embedding(&mut self, name: &str, rows: u64, columns: u64, sigma: f32) {
        self.0.push(Tensor::normal(format!("{name}.weight"), &[rows, columns], 0.0, sigma));
    }

    fn norm(&mut self, name: String, size: u64) {
        self.0.push(Tensor::normal(name + ".weight", &[size], 1.0, 0.05));
    }

    fn norm_with_bias(&mut self, name: String, size: u64) {
        self.norm(name.clone(), size);
        self.bias(name, size);
    }
}

fn phi3(list: &mut List, s: &Sizes) {
    list.embedding("model.embed_tokens", s.vocabulary, s.hidden, if s.tied { 0.02 } else { 0.5 });
    for i in 0..s.layers {
        let p = format!("model.layers.{i}");
        list.norm(format!("{p}.input_layernorm"), s.hidden);
        list.scaled(format!("{p}.mlp.down_proj"), s.hidden, s.intermediate, 0.5);
        list.linear(format!("{p}.mlp.gate_up_proj"), 2 * s.intermediate, s.hidden);
        list.norm(format!("{p}.post_attention_layernorm"), s.hidden);
        list.scaled(format!("{p}.self_attn.o_proj"), s.hidden, s.query, 0.5);
        list.linear(format!("{p}.self_attn.qkv_proj"), s.query + 2 * s.key, s.hidden);
    }
    list.norm("model.norm".into(), s.hidden);
    if !s.tied {
        list.linear("lm_head".into(), s.vocabulary, s.hidden);
    }
}

fn phi(list: &mut List, s: &Sizes) {
    list.embedding("model.embed_tokens", s.vocabulary, s.hidden, 0.5);
    for i in 0..s.layers {
        let p = format!("model.layers.{i}");
        list.norm_with_bias(format!("{p}.input_layernorm"), s.hidden);
        list.linear_with_bias(format!("{p}.mlp.fc1"), s.intermediate, s.hidden);
        list.linear_with_bias(format!("{p}.mlp.fc2"), s.hidden, s.intermediate);
        list.linear_with_bias(format!("{p}.self_attn.dense"), s.hidden, s.query);
        list.linear_with_bias(format!("{p}.self_attn.k_proj"), s.key, s.hidden);
        list.linear_with_bias(format!("{p}.self_attn.q_proj"), s.query, s.hidden);
        list.linear_with_bias(format!("{p}.self_attn.v_proj"), s.key, s.hidden);
    }
    list.norm_with_bias("model.final_layernorm".into(), s.hidden);
    list.linear_with_bias("lm_head".into(), s.vocabulary, s.hidden);
}

fn phimoe(list: &mut List, s: &Sizes) {
    list.embedding("model.embed_tokens", s.vocabulary, s.hidden, 0.5);
    for i in 0..s.layers {
        let p = format!("model.layers.{i}");
        list.linear(format!("{p}.block_sparse_moe.gate"), s.experts, s.hidden);
        for expert in 0..s.experts {
            let q = format!("{p}.block_sparse_moe.experts.{expert}");
            list.linear(format!("{q}.w1"), s.intermediate, s.hidden);
            list.linear(format!("{q}.w2"), s.hidden, s.intermediate);
            list.linear(format!("{q}.w3"), s.intermediate, s.hidden);
        }
        list.norm_with_bias(format!("{p}.input_layernorm"), s.hidden);
        list.norm_with_bias(format!("{p}.post_attention_layernorm"), s.hidden);
        list.linear_with_bias(format!("{p}.self_attn.k_proj"), s.key, s.hidden);
        list.linear_with_bias(format!("{p}.self_attn.o_proj"), s.hidden, s.query);
        list.linear_with_bias(format!("{p}.self_attn.q_proj"), s.query, s.hidden);
        list.linear_with_bias(format!("{p}.self_attn.v_proj"), s.key, s.hidden);
    }
    list.norm_with_bias("model.norm".into(), s.hidden);
    list.linear_with_bias("lm_head".into(), s.vocabulary, s.hidden);
}

fn phi3small(list: &mut List, s: &Sizes, config: &Value) {
    list.embedding("model.embed_tokens", s.vocabulary, s.hidden, 0.05);
    let base = config["rope_embedding_base"].as_f64().unwrap_or(10_000.0);
    for i in 0..s.layers {
        let p = format!("model.layers.{i}");
        list.norm_with_bias(format!("{p}.input_layernorm"), s.hidden);
        list.linear_with_bias(format!("{p}.mlp.down_proj"), s.hidden, s.intermediate);
        list.linear_with_bias(format!("{p}.mlp.up_proj"), 2 * s.intermediate, s.hidden);
        list.norm_with_bias(format!("{p}.post_attention_layernorm"), s.hidden);
        list.linear_with_bias(format!("{p}.self_attn.dense"), s.hidden, s.query);
        list.linear_with_bias(format!("{p}.self_attn.query_key_value"), s.query + 2 * s.key, s.hidden);
        if config["rope_scaling"].is_null() {
            // A buffer that the published 8k files carry, and that nobody reads.
            let fill = Fill::InverseFrequencies { base };
            let name = format!("{p}.self_attn.rotary_emb.inv_freq");
            list.0.push(Tensor { name, shape: vec![s.head / 2], fill });
        }
    }
    list.norm_with_bias("model.final_layernorm".into(), s.hidden);
}

/// CLIP ViT-L/14 at 336 pixels, and the projection of its features.
fn vision(list: &mut List, hidden: u64) {
    const WIDTH: u64 = 1024;
    const INTERMEDIATE: u64 = 4096;
    const LAYERS: u64 = 24;
    const PATCH: u64 = 14;
    const POSITIONS: u64 = (336 / PATCH) * (336 / PATCH) + 1;
    let v = "model.vision_embed_tokens";
    list.0.push(Tensor::normal(format!("{v}.glb_GN"), &[1, 1, 4 * WIDTH], 0.0, 0.5));
    list.linear_with_bias(format!("{v}.img_projection.0"), hidden, 4 * WIDTH);
    list.linear_with_bias(format!("{v}.img_projection.2"), hidden, hidden);
    let t = format!("{v}.img_processor.vision_model");
    list.0.push(Tensor::normal(format!("{t}.embeddings.class_embedding"), &[WIDTH], 0.0, 0.5));
    let patch = (1.0 / (3 * PATCH * PATCH) as f32).sqrt();
    let shape = [WIDTH, 3, PATCH, PATCH];
    list.0.push(Tensor::normal(format!("{t}.embeddings.patch_embedding.weight"), &shape, 0.0, patch));
    list.embedding(&format!("{t}.embeddings.position_embedding"), POSITIONS, WIDTH, 0.3);
    for i in 0..LAYERS {
        let p = format!("{t}.encoder.layers.{i}");
        list.norm_with_bias(format!("{p}.layer_norm1"), WIDTH);
        list.norm_with_bias(format!("{p}.layer_norm2"), WIDTH);
        list.linear_with_bias(format!("{p}.mlp.fc1"), INTERMEDIATE, WIDTH);
        list.linear_with_bias(format!("{p}.mlp.fc2"), WIDTH, INTERMEDIATE);
        for name in ["k_proj", "out_proj", "q_proj", "v_proj"] {
            list.linear_with_bias(format!("{p}.self_attn.{name}"), WIDTH, WIDTH);
        }
    }
    list.norm_with_bias(format!("{t}.post_layernorm"), WIDTH);
    list.norm_with_bias(format!("{t}.pre_layrnorm"), WIDTH);
    list.0.push(Tensor::normal(format!("{v}.sub_GN"), &[1, 1, 1, 4 * WIDTH], 0.0, 0.5));
}

/// SigLIP2 for naflex with its pooling head, and the projection of its features.
fn siglip(list: &mut List, config: &Value, hidden: u64) -> Result {
    let number = |name: &str| config[name].as_u64().ok_or_else(|| format!("config.json has no vision_config.{name}"));
    let (width, inner, patch) = (number("hidden_size")?, number("intermediate_size")?, 16);
    list.linear_with_bias("model.mm_projector.0".into(), hidden, width);
    list.linear_with_bias("model.mm_projector.2".into(), hidden, hidden);
    let t = "model.vision_tower.vision_tower.vision_model";
    list.linear_with_bias(format!("{t}.embeddings.patch_embedding"), width, 3 * patch * patch);
    list.embedding(&format!("{t}.embeddings.position_embedding"), number("num_patches")?, width, 0.3);
    for i in 0..number("num_hidden_layers")? {
        let p = format!("{t}.encoder.layers.{i}");
        list.norm_with_bias(format!("{p}.layer_norm1"), width);
        list.norm_with_bias(format!("{p}.layer_norm2"), width);
        list.linear_with_bias(format!("{p}.mlp.fc1"), inner, width);
        list.linear_with_bias(format!("{p}.mlp.fc2"), width, inner);
        for name in ["k_proj", "out_proj", "q_proj", "v_proj"] {
            list.linear_with_bias(format!("{p}.self_attn.{name}"), width, width);
        }
    }
    let sigma = (1.0 / width as f32).sqrt();
    list.0.push(Tensor::normal(format!("{t}.head.attention.in_proj_weight"), &[3 * width, width], 0.0, sigma));
    list.0.push(Tensor::normal(format!("{t}.head.attention.in_proj_bias"), &[3 * width], 0.0, 0.02));
    list.linear_with_bias(format!("{t}.head.attention.out_proj"), width, width);
    list.norm_with_bias(format!("{t}.head.layernorm"), width);
    list.linear_with_bias(format!("{t}.head.mlp.fc1"), inner, width);
    list.linear_with_bias(format!("{t}.head.mlp.fc2"), width, inner);
    list.0.push(Tensor::normal(format!("{t}.head.probe"), &[1, 1, width], 0.0, 0.5));
    list.norm_with_bias(format!("{t}.post_layernorm"), width);
    Ok(())
}
