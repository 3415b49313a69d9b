//! The tensors of a checkpoint, by its configuration: the names and shapes of the published files.

use phi3_model::{ModelSpec, Naming, Part, PublishedTensor, Slot, published_tensors, published_vision_tensors};
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
    let model_type = config["model_type"].as_str().unwrap_or("");
    let naming = Naming::of_model_type(model_type).ok_or_else(|| format!("no model_type {model_type:?}"))?;
    let published = published_tensors(&spec, naming);
    let mut list: Vec<Tensor> = published.into_iter().map(|tensor| decoder(tensor, &spec)).collect();
    if naming == Naming::Phi3Small && spec.rope.scaling().is_none() {
        // a buffer of the published 8k files that no reader uses
        let shape = vec![spec.heads.head_dim as u64 / 2];
        for i in 0..spec.layers.len() {
            let fill = Fill::InverseFrequencies { base: f64::from(spec.rope.theta()) };
            let name = format!("model.layers.{i}.self_attn.rotary_emb.inv_freq");
            list.push(Tensor { name, shape: shape.clone(), fill });
        }
    }
    if let Some(vision) = &spec.vision {
        list.extend(
            published_vision_tensors(vision, spec.hidden_size).into_iter().map(|(name, shape)| tower(name, &shape)),
        );
    }
    Ok(list)
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

/// A tensor of a vision tower.
fn tower(name: String, shape: &[usize]) -> Tensor {
    let width: usize = shape.iter().skip(1).product();
    let (mean, sigma) = match () {
        () if name.ends_with("bias") => (0.0, 0.02),
        () if name.contains("norm") => (1.0, 0.05),
        () if name.ends_with("position_embedding.weight") => (0.0, 0.3),
        () if name.ends_with(".weight") || name.ends_with("_weight") => (0.0, 1.0 / (width as f32).sqrt()),
        // class token, separators, probe
        () => (0.0, 0.5),
    };
    let shape: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
    Tensor::normal(name, &shape, mean, sigma)
}
