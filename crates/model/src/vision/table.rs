//! The tensors of a tower: one row each, from which loading and the plan take names, shapes and purposes.

use super::VisionSpec;
use phi3_tensor::Role;

/// A matrix of a tower.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VisionTensor {
    /// Names without `.weight`; several stand one below the other.
    pub(crate) sources: Vec<String>,
    /// Shape of each of them, outermost dimension first; all dimensions but the first are a row.
    pub(crate) shape: Vec<usize>,
    /// What it is for.
    pub(crate) role: Role,
    /// Whether a bias is beside each.
    pub(crate) bias: bool,
}

impl VisionTensor {
    /// Rows of all sources.
    pub(crate) fn rows(&self) -> usize {
        self.sources.len() * self.shape[0]
    }

    /// Width of a row.
    pub(crate) fn cols(&self) -> usize {
        self.shape[1..].iter().product()
    }
}

/// What all names begin with.
pub(super) const ROOT: &str = "model.vision_embed_tokens.";

/// What the tower's names begin with.
const TOWER: &str = "model.vision_embed_tokens.img_processor.vision_model.";

/// The name of a tensor of the tower.
pub(super) fn tower(name: &str) -> String {
    format!("{TOWER}{name}")
}

/// The name of a tensor of a layer.
pub(super) fn of_layer(layer: usize, name: &str) -> String {
    format!("{TOWER}encoder.layers.{layer}.{name}")
}

fn matrix(source: String, rows: usize, cols: usize) -> VisionTensor {
    VisionTensor { sources: vec![source], shape: vec![rows, cols], role: Role::Plain, bias: true }
}

pub(super) fn patch_embedding(spec: &VisionSpec) -> VisionTensor {
    VisionTensor {
        sources: vec![tower("embeddings.patch_embedding")],
        shape: vec![spec.hidden_size, 3, spec.patch_size, spec.patch_size],
        role: Role::Plain,
        bias: false,
    }
}

/// Queries, keys and values; the projection of what the heads give; up and down.
pub(super) fn layer(spec: &VisionSpec, layer: usize) -> [VisionTensor; 4] {
    let (hidden, inner) = (spec.hidden_size, spec.inner);
    let qkv = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(|name| of_layer(layer, name));
    [
        VisionTensor { sources: qkv.to_vec(), shape: vec![hidden, hidden], role: Role::Qkv(spec.heads), bias: true },
        matrix(of_layer(layer, "self_attn.out_proj"), hidden, hidden),
        matrix(of_layer(layer, "mlp.fc1"), inner, hidden),
        matrix(of_layer(layer, "mlp.fc2"), hidden, inner),
    ]
}

/// Both layers of the projection to the decoder's width.
pub(super) fn projection(spec: &VisionSpec, width: usize) -> [VisionTensor; 2] {
    [
        matrix(format!("{ROOT}img_projection.0"), width, spec.merged()),
        matrix(format!("{ROOT}img_projection.2"), width, width),
    ]
}

/// Every matrix that is brought to a device, for a decoder of `width`.
pub(crate) fn vision_tensors(spec: &VisionSpec, width: usize) -> Vec<VisionTensor> {
    let layers = (0..spec.layers).flat_map(|i| layer(spec, i));
    [patch_embedding(spec)].into_iter().chain(layers).chain(projection(spec, width)).collect()
}
