//! Tensor table of a tower. Loading, the memory plan and the count of parameters take names, shapes and roles from it.

use super::{PatchEmbedding, VisionSpec};
use phi3_tensor::Role;

/// The norm before the first layer, in the spelling of published checkpoints.
pub(super) const PRE_NORM: &str = "pre_layrnorm";

/// The norm after the last layer.
const POST_NORM: &str = "post_layernorm";

/// A matrix of a tower.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VisionTensor {
    /// Names without `.weight`; several are stacked by rows.
    pub(crate) sources: Vec<String>,
    /// Shape of each source, outermost dimension first; all dimensions but the first are a row.
    pub(crate) shape: Vec<usize>,
    /// Role of the matrix.
    pub(crate) role: Role,
    /// Whether each source has a bias.
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

/// Vectors and tables that are read as numbers: name and shape.
pub(crate) type VisionValues = (String, Vec<usize>);

/// The name of a tensor of the tower.
pub(super) fn tower(spec: &VisionSpec, name: &str) -> String {
    format!("{}{name}", spec.names.tower)
}

/// The name of a tensor of a layer.
pub(super) fn of_layer(spec: &VisionSpec, layer: usize, name: &str) -> String {
    format!("{}encoder.layers.{layer}.{name}", spec.names.tower)
}

fn matrix(source: impl Into<String>, rows: usize, cols: usize) -> VisionTensor {
    VisionTensor { sources: vec![source.into()], shape: vec![rows, cols], role: Role::Plain, bias: true }
}

pub(super) fn patch_embedding(spec: &VisionSpec) -> VisionTensor {
    let (rows, patch) = (spec.hidden_size, spec.patch_size);
    let (shape, bias) = match spec.patch_embedding {
        PatchEmbedding::Convolution => (vec![rows, 3, patch, patch], false),
        PatchEmbedding::Linear => (vec![rows, spec.patch_values()], true),
    };
    let sources = vec![tower(spec, "embeddings.patch_embedding")];
    VisionTensor { sources, shape, role: Role::Plain, bias }
}

/// Matrices of a layer: queries, keys and values; output projection of attention; up projection; down projection.
pub(super) fn layer(spec: &VisionSpec, layer: usize) -> [VisionTensor; 4] {
    let (hidden, inner) = (spec.hidden_size, spec.inner);
    let name = |name: &str| of_layer(spec, layer, name);
    let qkv = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(name);
    [
        VisionTensor { sources: qkv.to_vec(), shape: vec![hidden, hidden], role: Role::Qkv(spec.heads), bias: true },
        matrix(name("self_attn.out_proj"), hidden, hidden),
        matrix(name("mlp.fc1"), inner, hidden),
        matrix(name("mlp.fc2"), hidden, inner),
    ]
}

/// Both layers of the projection to the decoder's width.
pub(super) fn projection(spec: &VisionSpec, width: usize) -> [VisionTensor; 2] {
    let [first, second] = spec.names.projection;
    [matrix(first, width, spec.token_width()), matrix(second, width, width)]
}

/// Position embeddings.
pub(super) fn positions(spec: &VisionSpec) -> VisionValues {
    (tower(spec, "embeddings.position_embedding.weight"), vec![spec.positions(), spec.hidden_size])
}

/// The embedding of the class token, if there is one.
pub(super) fn class(spec: &VisionSpec) -> Option<VisionValues> {
    spec.class_token().then(|| (tower(spec, "embeddings.class_embedding"), vec![spec.hidden_size]))
}

/// Separators after rows, and between picture and global view, if there are any.
pub(super) fn separators(spec: &VisionSpec) -> Option<[VisionValues; 2]> {
    let [sub, glb] = spec.names.separators.map(str::to_owned);
    let width = spec.token_width();
    spec.class_token().then(|| [(sub, vec![1, 1, 1, width]), (glb, vec![1, 1, width])])
}

/// Weight and bias of a norm of the tower.
pub(super) fn norm(spec: &VisionSpec, name: &str) -> [VisionValues; 2] {
    ["weight", "bias"].map(|kind| (format!("{}{name}.{kind}", spec.names.tower), vec![spec.hidden_size]))
}

/// Weights and biases of both norms of a layer.
pub(super) fn norms(spec: &VisionSpec, layer: usize) -> [[VisionValues; 2]; 2] {
    ["layer_norm1", "layer_norm2"].map(|of| norm(spec, &format!("encoder.layers.{layer}.{of}")))
}

/// Every matrix that is loaded onto a device, for a decoder of `width`.
pub(crate) fn vision_tensors(spec: &VisionSpec, width: usize) -> Vec<VisionTensor> {
    let layers = (0..spec.layers).flat_map(|i| layer(spec, i));
    [patch_embedding(spec)].into_iter().chain(layers).chain(projection(spec, width)).collect()
}

/// Every other tensor that is used.
pub(crate) fn vision_values(spec: &VisionSpec) -> Vec<VisionValues> {
    let embeddings = [positions(spec)].into_iter().chain(class(spec)).chain(separators(spec).into_iter().flatten());
    let pre_norm = spec.pre_norm.then(|| norm(spec, PRE_NORM)).into_iter().flatten();
    embeddings.chain(pre_norm).chain((0..spec.layers).flat_map(|i| norms(spec, i).into_iter().flatten())).collect()
}

/// Tensors of published files that are not used: the last layer, the norm after it, and the pooling head.
pub(crate) fn vision_unused(spec: &VisionSpec) -> Vec<VisionValues> {
    let (hidden, inner) = (spec.hidden_size, spec.inner);
    let mut unused: Vec<VisionValues> = layer(spec, spec.layers).into_iter().flat_map(weights_and_biases).collect();
    unused.extend(norms(spec, spec.layers).into_iter().flatten());
    unused.extend(norm(spec, POST_NORM));
    if spec.pooling_head {
        unused.push((tower(spec, "head.probe"), vec![1, 1, hidden]));
        unused.push((tower(spec, "head.attention.in_proj_weight"), vec![3 * hidden, hidden]));
        unused.push((tower(spec, "head.attention.in_proj_bias"), vec![3 * hidden]));
        unused.extend(norm(spec, "head.layernorm"));
        let of = |name, rows, cols| weights_and_biases(matrix(tower(spec, name), rows, cols));
        unused.extend(of("head.attention.out_proj", hidden, hidden));
        unused.extend(of("head.mlp.fc1", inner, hidden));
        unused.extend(of("head.mlp.fc2", hidden, inner));
    }
    unused
}

/// Names and shapes of all tensors of a tower and its projection in a published file, for a decoder of `width`. The unused
/// tensors are included: the last layer, the norm after it, and the pooling head.
pub fn published_vision_tensors(spec: &VisionSpec, width: usize) -> Vec<(String, Vec<usize>)> {
    let matrices = vision_tensors(spec, width).into_iter().flat_map(weights_and_biases);
    matrices.chain(vision_values(spec)).chain(vision_unused(spec)).collect()
}

/// Number of parameters of a tower and its projection, unused ones included.
pub(crate) fn vision_parameters(spec: &VisionSpec, width: usize) -> u64 {
    published_vision_tensors(spec, width).iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum()
}

/// Names and shapes of the file tensors of a matrix.
fn weights_and_biases(tensor: VisionTensor) -> impl Iterator<Item = VisionValues> {
    let VisionTensor { sources, shape, bias, .. } = tensor;
    sources.into_iter().flat_map(move |name| {
        let bias = bias.then(|| (format!("{name}.bias"), vec![shape[0]]));
        [(format!("{name}.weight"), shape.clone())].into_iter().chain(bias)
    })
}

/// Size in bytes of the used weights of a bf16 file: matrices in bf16, all other tensors in f32.
pub(crate) fn vision_weight_bytes(spec: &VisionSpec, width: usize) -> u64 {
    let matrices = vision_tensors(spec, width).into_iter().map(|tensor| {
        let bias = if tensor.bias { 4 * tensor.rows() } else { 0 };
        (2 * tensor.rows() * tensor.cols() + bias) as u64
    });
    let values = vision_values(spec).into_iter().map(|(_, shape)| 4 * shape.iter().product::<usize>() as u64);
    matrices.sum::<u64>() + values.sum::<u64>()
}
