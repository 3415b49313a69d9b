//! Attention on the GPU: a workgroup takes a row or a tile of rows, and a split of the positions. Both depend on the phase of the
//! rows and on their own positions, never on the other rows of the pass.

use super::{Attend, BlockSparse, Mask};
use crate::gpu::batch_metadata::Tiles;
use crate::gpu::device::STORAGE;
use crate::gpu::pipelines::Bindings;
use crate::gpu::{Cache, Gpu, Rows};
use crate::{Phase, Result};
use phi3_shaders::{Attention, Op, Tier, binding};

/// Workgroups of a new token that keep a large device busy.
const ENOUGH: usize = 512;

/// A split is a multiple of this number of positions: SPLIT_STEP in kv_split.wgsl.
const SPLIT_STEP: usize = 128;

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
        for phase in [Phase::Decode, Phase::Prompt] {
            let how = self.attention_for(phase, cache.heads.head_dim, text(mask));
            if let Some(tiles) = self.metadata.tiles(phase, how) {
                self.attention_of(phase, how, tiles, q, cache, layer, mask, scale, out)?;
            }
        }
        Ok(())
    }
}

impl Gpu {
    /// The kernel for the rows of a phase.
    fn attention_for(&self, phase: Phase, head_dim: usize, mask: phi3_shaders::Mask) -> Attention {
        if phase == Phase::Decode {
            return Attention::Row;
        }
        let matrix =
            self.adapter.coop_matrix.filter(|_| self.tier() == Tier::Coop && self.device.coop_memory && !self.exact);
        let coop = matrix.and_then(|matrix| Attention::coop(matrix, head_dim)).filter(|coop| coop.takes(mask));
        let flash = Some(Attention::Flash).filter(|flash| head_dim <= flash.head_dim());
        coop.or(flash).unwrap_or(Attention::Row)
    }

    #[allow(clippy::too_many_arguments, reason = "the operands of attention")]
    fn attention_of(
        &mut self,
        phase: Phase,
        how: Attention,
        tiles: Tiles,
        q: &Rows,
        cache: &Cache,
        layer: usize,
        mask: Mask,
        scale: f32,
        out: &Rows,
    ) -> Result<()> {
        let heads = cache.heads;
        let layer = &cache.layers[layer];
        let [window, local_blocks, block_stride, head_step] = match mask {
            Mask::Causal => [0; 4],
            Mask::Window(window) => [u32::try_from(window).unwrap_or(u32::MAX), 0, 0, 0],
            Mask::Full => [self.metadata.ends_at as u32, 0, 0, 0],
            Mask::Blocks(BlockSparse { block, local, stride, head_step }) => {
                [block, local, stride, head_step].map(|n| n as u32)
            }
        };
        let splits = Splits::of(phase, heads.heads);
        let seen = self.metadata.firsts(tiles).map(|(_, position, end)| seen(mask, tiles.height, position, end));
        let kv_splits = seen.map(|seen| splits.count(seen)).max().unwrap_or(1);
        let rows = self.pass.batch.rows_of(phase);
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
            splits.most as u32,
            tiles.at as u32,
            local_blocks,
            block_stride,
            head_step,
            splits.least as u32,
            rows.start as u32,
        ];
        let grid = [heads.heads as u32, tiles.count as u32, kv_splits as u32];
        let op = Op::Attention { kv: cache.kv, how, mask: text(mask), partial: kv_splits > 1 };
        let longest = self.pass.batch.longest(phase, mask);
        let work = 2 * rows.len() as u64 * longest as u64 * heads.q_dim() as u64;
        self.recorder.reserve_work(&mut self.device, work)?;
        if kv_splits == 1 {
            bindings[binding::OUTPUT as usize] = Some(&out.buffer);
            return self.recorder.dispatch(&mut self.device, op, &bindings, &params, grid);
        }
        let pitch = cache.head4() + 1;
        let bytes = (rows.len() * heads.heads * kv_splits * pitch * 4 * size_of::<f32>()) as u64;
        self.device.grow(&mut self.partials, "partial results of attention", bytes, STORAGE)?;
        bindings[binding::OUTPUT as usize] = self.partials.as_ref();
        self.recorder.dispatch(&mut self.device, op, &bindings, &params, grid)?;

        let Some(each) = self.metadata.tiles(phase, Attention::Row) else { return Ok(()) };
        let mut bindings = Bindings::default();
        bindings[binding::INPUT as usize] = self.partials.as_ref();
        bindings[binding::OUTPUT as usize] = Some(&out.buffer);
        bindings[binding::BATCH as usize] = self.metadata.buffer.as_ref();
        let params = [
            heads.heads as u32,
            heads.head_dim as u32,
            cache.head4() as u32,
            kv_splits as u32,
            out.stride as u32,
            each.at as u32,
            rows.start as u32,
            0,
        ];
        let grid = [heads.heads as u32, each.count as u32, 1];
        self.recorder.dispatch(&mut self.device, Op::CombineSplits, &bindings, &params, grid)
    }
}

/// Shader source of a mask.
fn text(mask: Mask) -> phi3_shaders::Mask {
    match mask {
        Mask::Causal | Mask::Window(_) => phi3_shaders::Mask::Window,
        Mask::Full => phi3_shaders::Mask::Full,
        Mask::Blocks(_) => phi3_shaders::Mask::Blocks,
    }
}

/// Positions that a whole tile sees, of which a row is at `position`; `end` is that of the row's segment.
fn seen(mask: Mask, height: usize, position: usize, end: usize) -> usize {
    let base = position / height * height;
    match mask {
        Mask::Full => end,
        _ => base + height - (base + 1).saturating_sub(mask.window().unwrap_or(usize::MAX)),
    }
}

/// Splits of the positions of a tile, as kv_split.wgsl has them.
#[derive(Clone, Copy)]
struct Splits {
    most: usize,
    /// Least number of positions of a split.
    least: usize,
}

impl Splits {
    fn of(phase: Phase, heads: usize) -> Self {
        match phase {
            Phase::Decode => Self { most: (ENOUGH / heads.max(1)).max(1), least: 256 },
            // chunks of many rows need no splits, which cost them memory; short ones far into a text do
            Phase::Prompt => Self { most: 8, least: 512 },
        }
    }

    /// Positions of a split, of those that a tile sees.
    fn size(self, seen: usize) -> usize {
        let splits = (seen / self.least).clamp(1, self.most);
        seen.div_ceil(splits).max(1).next_multiple_of(SPLIT_STEP)
    }

    fn count(self, seen: usize) -> usize {
        seen.div_ceil(self.size(seen)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_cover_every_position_and_none_is_empty() {
        for splits in [1, 3, 32, 40, 511, 512, 100_000].map(|heads| Splits::of(Phase::Decode, heads)) {
            for splits in [splits, Splits::of(Phase::Prompt, 32)] {
                for seen in (1..3000).chain([4096, 131_072]) {
                    let (count, size) = (splits.count(seen), splits.size(seen));
                    assert!(count * size >= seen && (count - 1) * size < seen, "{seen}");
                    assert!(count == 1 || (count <= splits.most && size >= splits.least), "{seen}");
                }
            }
        }
        let decode = Splits::of(Phase::Decode, 32);
        assert_eq!([511, 512, 4096, 131_072].map(|seen| decode.count(seen)), [1, 2, 16, 16]);
        let prompt = Splits::of(Phase::Prompt, 32);
        assert_eq!([1008, 1024, 4096, 131_072].map(|seen| prompt.count(seen)), [1, 2, 8, 8]);
    }

    #[test]
    fn a_tile_sees_the_same_from_each_of_its_positions() {
        for (mask, positions) in [(Mask::Causal, 48), (Mask::Window(20), 35), (Mask::Window(100), 48)] {
            assert!((32..48).all(|position| seen(mask, 16, position, 99) == positions), "{mask:?}");
        }
        assert_eq!(seen(Mask::Full, 16, 33, 99), 99);
        assert_eq!(seen(Mask::Window(20), 1, 33, 34), 20);
    }
}
