//! Memory plan of a model, computed before its weights are loaded.

use crate::decoder::{DecoderOptions, max_outputs};
use crate::table::{TensorSpec, tensors};
use crate::vision::{scratch_bytes, vision_parameters, vision_tensors, vision_weight_bytes};
use crate::{Checkpoint, ModelSpec, QuantScheme, Result};
use phi3_tensor::{Backend, DType, PAGE, TOP_EXPERTS};

/// Bytes of a model on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Weights: matrices in the type that they have on the device, norms and biases in f32.
    pub weights: u64,
    /// Part of `weights` that stays in the memory map of the file and is not copied; 0 on a GPU. The operating system can reclaim
    /// its pages.
    pub mapped: u64,
    /// Keys and values of one token in all layers.
    pub cache_per_token: u64,
    /// Activations, allocated once.
    pub scratch: u64,
}

impl Plan {
    /// Bytes of keys and values of `tokens` tokens, in whole pages. With a sliding window, at most those of the window, a pass
    /// and a page.
    pub fn cache(&self, spec: &ModelSpec, options: DecoderOptions, tokens: usize) -> u64 {
        let window = spec.window().map_or(usize::MAX, |window| window + options.max_rows + PAGE);
        tokens.min(window).next_multiple_of(PAGE) as u64 * self.cache_per_token
    }

    /// Bytes of weights and activations, and of a KV cache of `tokens` tokens.
    pub fn total(&self, spec: &ModelSpec, options: DecoderOptions, tokens: usize) -> u64 {
        self.weights + self.scratch + self.cache(spec, options, tokens)
    }
}

/// The plan of `checkpoint` on `backend`. Makes an empty cache on the backend. Reads the headers of the files, biases, and
/// matrices whose file tensors have several types. Of a vision tower, only matrices are counted.
pub fn plan<B: Backend>(backend: &mut B, checkpoint: &Checkpoint, options: DecoderOptions) -> Result<Plan> {
    let spec = checkpoint.spec();
    let mut plan = Plan { weights: 0, mapped: 0, cache_per_token: 0, scratch: 0 };
    for tensor in tensors(spec) {
        let vectors = usize::from(tensor.shape.len() == 1) + usize::from(tensor.bias);
        plan.weights += (4 * vectors * tensor.shape[0]) as u64;
        if tensor.shape.len() == 1 {
            continue;
        }
        for weight in checkpoint.matrices(&tensor)? {
            let dtype = options.quant.map_or(weight.dtype, |scheme| scheme.target(weight.dtype, &tensor, spec));
            let footprint = backend.footprint(&tensor.name, dtype, weight.rows, weight.cols, tensor.role)?;
            plan.weights += footprint.bytes;
            plan.mapped += if footprint.in_place && dtype == weight.dtype { footprint.bytes } else { 0 };
        }
    }
    if let Some(vision) = &spec.vision {
        for tensor in vision_tensors(vision, spec.hidden_size) {
            let weight = checkpoint.vision_matrix(&tensor)?;
            let footprint = backend.footprint(&weight.name, weight.dtype, tensor.rows(), tensor.cols(), tensor.role)?;
            plan.weights += footprint.bytes;
            plan.mapped += if footprint.in_place { footprint.bytes } else { 0 };
        }
    }
    let cache = backend.cache(spec.layers.len(), spec.heads, options.kv)?;
    plan.cache_per_token = backend.page_bytes(&cache) / PAGE as u64;
    let (rows, hidden, heads) = (options.rows(spec), spec.hidden_size, spec.heads);
    // x, head_input and normed; q, attn_out; the fused projection; the gated feed-forward
    let experts = spec.most_experts();
    let routes = if experts > 0 { TOP_EXPERTS } else { 1 };
    // gathered inputs, outputs and scores of experts
    let gathered = if experts > 0 { (1 + routes) * hidden + experts } else { 0 };
    let row = 3 * hidden + 2 * heads.q_dim() + heads.qkv_dim() + routes * spec.widest_mlp() + gathered;
    plan.scratch = 4 * (rows * row + max_outputs(spec, rows) * spec.vocab_size) as u64;
    plan.scratch += spec.vision.as_ref().map_or(0, |vision| scratch_bytes(vision, hidden));
    Ok(plan)
}

/// Number of parameters: the elements of all tensors, biases and unused tensors of a vision tower included.
pub fn parameters(spec: &ModelSpec) -> u64 {
    let of = |tensor: &TensorSpec| {
        let bias = if tensor.bias { tensor.shape[0] } else { 0 };
        tensor.shape.iter().product::<usize>() as u64 + bias as u64
    };
    let tower = spec.vision.as_ref().map_or(0, |vision| vision_parameters(vision, spec.hidden_size));
    tensors(spec).iter().map(of).sum::<u64>() + tower
}

/// Size in bytes of the weights of a bf16 checkpoint after quantization by `scheme`; norms, biases and routers are f32, and
/// a vision tower stays bf16. Padding of a device is not counted.
pub fn weight_bytes(spec: &ModelSpec, scheme: QuantScheme) -> u64 {
    let of = |tensor: &TensorSpec| {
        let bias = if tensor.bias { 4 * tensor.shape[0] } else { 0 };
        let weight = match tensor.shape[..] {
            [rows, cols] if !tensor.slot.is_router() => {
                rows * scheme.target(DType::Bf16, tensor, spec).bytes(cols).unwrap_or(4 * cols)
            }
            _ => 4 * tensor.shape.iter().product::<usize>(),
        };
        (weight + bias) as u64
    };
    let tower = spec.vision.as_ref().map_or(0, |vision| vision_weight_bytes(vision, spec.hidden_size));
    tensors(spec).iter().map(of).sum::<u64>() + tower
}
