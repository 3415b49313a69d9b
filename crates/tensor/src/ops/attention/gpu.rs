//! Attention on the GPU: a workgroup takes a row or a tile of rows, and a split of the positions.

use super::{Attend, BlockSparse, Mask};
use crate::Result;
use crate::gpu::device::STORAGE;
use crate::gpu::pipelines::Bindings;
use crate::gpu::{Cache, Gpu, Rows};
use phi3_shaders::{Attention, Op, Tier, binding};

/// Workgroups that keep a large device busy.
const ENOUGH: usize = 512;

/// Least number of positions of a split, and its divisor: the tile of attention.wgsl.
const LEAST: usize = 256;
const TILE: usize = 128;

impl Attend for Gpu {
    fn attention(
        &mut self,
        q: &Rows,
        cache: &Cache,
        layer: usize,
        mask: Mask,
        scale: f32,
        out: &mut Rows,
    ) -> Result<()> {
        self.pass.attention(q.shape(), (cache.shape(), layer), mask, out.shape())?;
        let heads = cache.heads;
        let layer = &cache.layers[layer];
        let (text, [window, local_blocks, block_stride, head_step]) = match mask {
            Mask::Causal => (phi3_shaders::Mask::Window, [0; 4]),
            Mask::Window(window) => (phi3_shaders::Mask::Window, [u32::try_from(window).unwrap_or(u32::MAX), 0, 0, 0]),
            Mask::Full => (phi3_shaders::Mask::Full, [self.metadata.ends_at as u32, 0, 0, 0]),
            Mask::Blocks(BlockSparse { block, local, stride, head_step }) => {
                (phi3_shaders::Mask::Blocks, [block, local, stride, head_step].map(|n| n as u32))
            }
        };
        let how = self.attention_for(heads.head_dim, text);
        let tiles = self.metadata.tiles(how);
        let groups = tiles.as_ref().map_or(self.pass.rows, |tiles| tiles.count);
        let longest = self.pass.batch.longest(mask);
        let (kv_splits, kv_per_split) = split_kv(groups * heads.heads, longest + how.rows() as usize - 1);
        let pitch = cache.head4() + 1;
        let mut bindings = Bindings::default();
        bindings[binding::INPUT as usize] = Some(&q.buffer);
        bindings[binding::KEYS as usize] = layer.keys.as_ref();
        bindings[binding::VALUES as usize] = layer.values.as_ref();
        bindings[binding::BATCH as usize] = self.metadata.buffer.as_ref();
        let strides = cache.loaded();
        let params = [
            heads.heads as u32,
            heads.kv_heads as u32,
            heads.head_dim as u32,
            cache.head4() as u32,
            strides.slot,
            q.stride as u32,
            out.stride as u32,
            window,
            scale.to_bits(),
            strides.head,
            kv_splits as u32,
            kv_per_split as u32,
            tiles.map_or(0, |tiles| tiles.at) as u32,
            local_blocks,
            block_stride,
            head_step,
        ];
        let grid = [heads.heads as u32, groups as u32, kv_splits as u32];
        let op = Op::Attention { kv: cache.kv, how, mask: text, partial: kv_splits > 1 };
        let work = 2 * self.pass.rows as u64 * longest as u64 * heads.q_dim() as u64;
        self.recorder.reserve_work(&mut self.device, work)?;
        if kv_splits == 1 {
            bindings[binding::OUTPUT as usize] = Some(&out.buffer);
            return self.recorder.dispatch(&mut self.device, op, &bindings, &params, grid);
        }
        let bytes = (self.pass.rows * heads.heads * kv_splits * pitch * 4 * size_of::<f32>()) as u64;
        self.device.grow(&mut self.partials, "partial results of attention", bytes, STORAGE)?;
        bindings[binding::OUTPUT as usize] = self.partials.as_ref();
        self.recorder.dispatch(&mut self.device, op, &bindings, &params, grid)?;

        let mut bindings = Bindings::default();
        bindings[binding::INPUT as usize] = self.partials.as_ref();
        bindings[binding::OUTPUT as usize] = Some(&out.buffer);
        let (heads, head_dim) = (heads.heads as u32, heads.head_dim as u32);
        let params = [heads, head_dim, cache.head4() as u32, kv_splits as u32, out.stride as u32, 0, 0, 0];
        self.recorder.dispatch(
            &mut self.device,
            Op::CombineSplits,
            &bindings,
            &params,
            [heads, self.pass.rows as u32, 1],
        )
    }
}

impl Gpu {
    /// The kernel for the rows of this pass.
    fn attention_for(&self, head_dim: usize, mask: phi3_shaders::Mask) -> Attention {
        if !self.metadata.many_rows {
            return Attention::Row;
        }
        let matrix =
            self.adapter.coop_matrix.filter(|_| self.tier() == Tier::Coop && self.device.coop_memory && !self.exact);
        let coop = matrix.and_then(|matrix| Attention::coop(matrix, head_dim)).filter(|coop| coop.takes(mask));
        let flash = Some(Attention::Flash).filter(|flash| head_dim <= flash.head_dim());
        coop.or(flash).unwrap_or(Attention::Row)
    }
}

/// Splits of rows that see up to `longest` positions, and positions of a split.
fn split_kv(groups: usize, longest: usize) -> (usize, usize) {
    let wanted = (ENOUGH / groups.max(1)).min(longest / LEAST).max(1);
    let kv_per_split = longest.div_ceil(wanted).max(1).next_multiple_of(TILE);
    (longest.div_ceil(kv_per_split).max(1), kv_per_split)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_cover_every_position_and_none_is_empty() {
        for groups in [1, 3, 32, 40, 511, 512, 100_000] {
            for longest in (0..3000).chain([4096, 131_072]) {
                let (kv_splits, kv_per_split) = split_kv(groups, longest);
                assert!(
                    kv_splits * kv_per_split >= longest && (kv_splits - 1) * kv_per_split < longest.max(1),
                    "{groups} {longest}"
                );
                assert!(
                    kv_splits == 1 || (kv_splits * groups <= ENOUGH && kv_per_split >= LEAST),
                    "{groups} {longest}"
                );
            }
        }
        assert_eq!(split_kv(32, 511).0, 1);
        assert_eq!(split_kv(32, 512), (2, 256));
        assert_eq!(split_kv(32, 4096), (16, 256));
        assert_eq!(split_kv(32, 131_072), (16, 8192));
    }
}
