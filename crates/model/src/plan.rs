//! What a model will take, before anything is loaded.

use crate::decoder::{DecoderOptions, max_outputs};
use crate::layout::{role, tensors};
use crate::{Checkpoint, Config, Result};
use phi3_tensor::{Backend, PAGE};

/// Bytes of a model on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Matrices in the type that they will have, and norms in f32.
    pub weights: u64,
    /// Of these, bytes that stay in the file's mapping and are not copied: all of them, some, or (on a GPU) none. The
    /// system takes their memory back when it is short of it.
    pub mapped: u64,
    /// Keys and values of a token.
    pub cache_per_token: u64,
    /// Activations, made once.
    pub scratch: u64,
}

impl Plan {
    /// Keys and values of `tokens` tokens; whole pages, and with a sliding window no more than it and a pass need.
    pub fn cache(&self, config: &Config, options: DecoderOptions, tokens: usize) -> u64 {
        let window = config.sliding_window.map_or(usize::MAX, |window| window + options.max_rows + PAGE);
        tokens.min(window).next_multiple_of(PAGE) as u64 * self.cache_per_token
    }

    /// Everything with a cache of `tokens` tokens.
    pub fn total(&self, config: &Config, options: DecoderOptions, tokens: usize) -> u64 {
        self.weights + self.scratch + self.cache(config, options, tokens)
    }
}

/// Counts what `checkpoint` will take on `backend`. Only headers are read; on the backend an empty cache is made.
pub fn plan<B: Backend>(backend: &mut B, checkpoint: &Checkpoint, options: DecoderOptions) -> Result<Plan> {
    let config = checkpoint.config();
    let (hidden, heads) = (config.hidden_size, config.heads);
    let mut plan = Plan { weights: 0, mapped: 0, cache_per_token: 0, scratch: 0 };
    let mut matrix = |name: &str, rows: usize, cols: usize| -> Result<()> {
        let kept = checkpoint.matrix(name, rows, cols)?.dtype;
        let dtype = options.quant.map_or(kept, |recipe| recipe.target(kept, name, cols, config));
        let footprint = backend.footprint(name, dtype, rows, cols, role(config, name))?;
        plan.weights += footprint.bytes;
        plan.mapped += if footprint.in_place && dtype == kept { footprint.bytes } else { 0 };
        Ok(())
    };
    let mut vectors = 0;
    for (name, shape) in tensors(config) {
        match shape[..] {
            [rows, cols] => matrix(&name, rows, cols)?,
            _ => vectors += 4 * shape.iter().product::<usize>() as u64,
        }
    }
    plan.weights += vectors;
    let cache = backend.cache(config.num_hidden_layers, heads, options.kv)?;
    plan.cache_per_token = backend.page_bytes(&cache) / PAGE as u64;
    let rows = options.rows(config);
    // x, chosen and normed; q, mixed; the fused projection; the gated feed-forward
    let row = 3 * hidden + 2 * heads.q_dim() + heads.qkv_dim() + config.intermediate_size;
    plan.scratch = 4 * (rows * row + max_outputs(config, rows) * config.vocab_size) as u64;
    Ok(plan)
}
