//! The tensors of a checkpoint, by its configuration: the names and shapes of the published files.

use phi3_model::{ModelSpec, Naming, Part, PublishedTensor, Slot, published_tensors};
use serde_json::Value;

use crate::{Result, spec};

/// A tensor to write.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) shape: Vec<u64>,
    pub(super) fill: Fill,
}

/// Values of a tensor.
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
    let spec = spec(config)?;
    let naming = match config["model_type"].as_str() {
        Some("phi3" | "phi3_v") => Naming::Phi3,
        Some("phi3small") => Naming::Phi3Small,
        Some("phimoe") => Naming::PhiMoe,
        Some("phi") => Naming::Phi,
        other => return Err(format!("no model_type {other:?}")),
    };
    let published = published_tensors(&spec, naming);
    let mut list = List(published.into_iter().map(|tensor| decoder(tensor, &spec)).collect());
    if naming == Naming::Phi3Small && spec.rope.scaling().is_none() {
        // a buffer of the published 8k files that no reader uses
        let shape = vec![spec.heads.head_dim as u64 / 2];
        for i in 0..spec.layers.len() {
            let fill = Fill::InverseFrequencies { base: f64::from(spec.rope.theta()) };
            let name = format!("model.layers.{i}.self_attn.rotary_emb.inv_freq");
            list.0.push(Tensor { name, shape: shape.clone(), fill });
        }
    }
    if spec.vision.is_some() {
        vision(&mut list, spec.hidden_size as u64);
    }
    Ok(list.0)
}

/// A tensor of the decoder.
fn decoder(tensor: PublishedTensor, spec: &ModelSpec) -> Tensor {
    let (mean, sigma) = distribution(tensor.slot, &tensor.shape, tensor.name.ends_with(".bias"), spec);
    let shape: Vec<u64> = tensor.shape.iter().map(|&size| size as u64).collect();
    Tensor::normal(tensor.name, &shape, mean, sigma)
}

/// Mean and standard deviation of a tensor's values. A matrix product keeps the magnitude of its rows, and norms are near 1:
/// activations have about the magnitude of a trained model's.
pub(super) fn distribution(slot: Slot, shape: &[usize], is_bias: bool, spec: &ModelSpec) -> (f32, f32) {
    let width = shape.last().map_or(1.0, |&cols| cols as f32);
    match slot {
        _ if is_bias => (0.0, 0.02),
        Slot::Norm | Slot::Layer(_, Part::InputNorm | Part::MlpNorm) => (1.0, 0.05),
        Slot::Embedding if spec.tie_word_embeddings => (0.0, 1.0 / width.sqrt()),
        Slot::Embedding => (0.0, 0.5),
        Slot::Layer(_, Part::AttentionOut | Part::Down | Part::ExpertsDown) => (0.0, 0.5 / width.sqrt()),
        Slot::Head | Slot::Layer(..) => (0.0, 1.0 / width.sqrt()),
    }
}

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
