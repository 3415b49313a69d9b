//! Projection to queries, keys and values on the GPU: the product's epilogue rotates and stores them. Keys and values of a
//! quantized cache are staged, and one more dispatch quantizes them.

use crate::gpu::pipelines::Bindings;
use crate::gpu::project::Target;
use crate::gpu::recorder::folded;
use crate::gpu::{Cache, Gpu, Matrix, Rows};
use crate::ops::ProjectQkv;
use crate::{Norm, Result};
use phi3_shaders::{Kv, Op, Sink, binding};

impl ProjectQkv for Gpu {
    fn project_qkv(
        &mut self,
        x: &Rows,
        norm: Option<Norm<'_, Self>>,
        weights: &[&Matrix],
        q: &mut Rows,
        cache: &mut Cache,
        layer: usize,
    ) -> Result<()> {
        let cached = (cache.shape(), layer);
        let norms = norm.into_iter().flat_map(Norm::vectors).map(|vector| vector.len);
        self.pass.project_qkv(x.shape(), norms, weights.iter().map(|w| (w.shape(), w.role)), q.shape(), cached)?;
        let heads = cache.heads;
        let strides = cache.stored();
        let params = [
            heads.q_dim() as u32,
            heads.kv_dim() as u32,
            heads.head_dim as u32,
            heads.rotary_dim as u32,
            (q.stride / 2) as u32,
            strides.slot,
            strides.head,
            self.metadata.rope_at as u32,
        ];
        if cache.kv == Kv::Q8_0 {
            cache.stage(&mut self.device, self.pass.rows)?;
        }
        let (keys, values) = match cache.kv {
            Kv::F32 | Kv::F16 => (cache.layers[layer].keys.as_ref(), cache.layers[layer].values.as_ref()),
            Kv::Q8_0 => (cache.staged.as_ref(), None),
        };
        let sink = Sink::Qkv(cache.kv);
        let target = Target { sink, params, output: &q.buffer, keys, values };
        for weight in weights {
            self.product(x, norm, weight, &target)?;
        }
        if cache.kv == Kv::Q8_0 { self.quantize_kv(cache, layer) } else { Ok(()) }
    }
}

impl Gpu {
    /// Records the quantization of the staged keys and values into the cache.
    fn quantize_kv(&mut self, cache: &Cache, layer: usize) -> Result<()> {
        const THREADS: usize = 64;
        let layer = &cache.layers[layer];
        let count = self.pass.rows * cache.heads.kv_heads * cache.blocks();
        let strides = cache.loaded();
        let params = [
            count as u32,
            cache.heads.kv_heads as u32,
            cache.head4() as u32,
            cache.blocks() as u32,
            (cache.heads.kv_heads * cache.head4()) as u32,
            strides.slot,
            strides.head,
            0,
        ];
        let mut bindings = Bindings::default();
        bindings[binding::INPUT as usize] = cache.staged.as_ref();
        bindings[binding::KEYS as usize] = layer.keys.as_ref();
        bindings[binding::VALUES as usize] = layer.values.as_ref();
        bindings[binding::BATCH as usize] = self.metadata.buffer.as_ref();
        let grid = folded(count.div_ceil(THREADS));
        self.recorder.dispatch(&mut self.device, Op::Quantize, &bindings, &params, grid)
    }
}
