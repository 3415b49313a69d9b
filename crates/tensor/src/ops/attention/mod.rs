//! Attention of the queries of a pass over the paged cache.

#[cfg(any(test, feature = "reference"))]
pub(crate) mod cases;
mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
mod mask;
#[cfg(any(test, feature = "reference"))]
mod reference;
#[cfg(feature = "gpu")]
pub(crate) mod self_check;

use crate::checks::{ActivePass, CacheShape, Shape, at_most, same};
use crate::{Device, Expected, PAGE, Result, Timed};
pub use mask::{BlockSparse, Mask};

/// Largest number in a block-sparse mask; sums and products of the numbers do not overflow.
const MAX_BLOCKS: usize = 1 << 20;

/// The operation `attention`.
pub trait Attend: Device {
    /// `out[r] = softmax(scale * q kᵀ) v` per head, over the positions that row r sees by `mask` (Vaswani et al. 2017, arXiv
    /// 1706.03762). Query head h reads key/value head `h * kv_heads / heads` (Ainslie et al. 2023, arXiv 2305.13245). `scale` is
    /// usually `1 / sqrt(head_dim)`.
    ///
    /// q holds the queries of [`project_qkv`](crate::ops::ProjectQkv::project_qkv); q and out are `[rows, heads * head_dim]`.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`](crate::Error::Mismatch) where widths, rows, layers or pages do not fit, a page that the mask sees is
    /// missing, or a number of the mask is out of range.
    fn attention(
        &mut self,
        q: &Self::Rows,
        cache: &Self::Cache,
        layer: usize,
        mask: Mask,
        scale: f32,
        out: &mut Self::Rows,
    ) -> Result<()>;
}

impl ActivePass {
    /// Checks the arguments of [`Attend::attention`].
    pub(crate) fn attention(
        &self,
        q: Shape,
        (cache, layer): (CacheShape, usize),
        mask: Mask,
        out: Shape,
    ) -> Result<()> {
        const OP: &str = "attention";
        same(OP, "query width", cache.heads.q_dim(), q.cols)?;
        same(OP, "output width", cache.heads.q_dim(), out.cols)?;
        self.capacity(OP, q)?;
        self.capacity(OP, out)?;
        self.cache(OP, cache, layer)?;
        if let Mask::Blocks(BlockSparse { block, local, stride, .. }) = mask {
            for (what, value) in
                [("positions of a block", block), ("local blocks", local), ("stride of blocks", stride)]
            {
                Expected::AtLeast(1).check(OP, what, value)?;
                at_most(OP, what, MAX_BLOCKS, value)?;
            }
        }
        let Some(window) = mask.window() else {
            let gone = self.batch.segments().iter().map(|segment| segment.gone).max();
            return at_most(OP, "missing pages without a window", 0, gone.unwrap_or(0));
        };
        Expected::AtLeast(1).check(OP, "window", window)?;
        for segment in self.batch.segments() {
            let first = (segment.position + 1).saturating_sub(window) / PAGE;
            at_most(OP, "missing pages before the window", first, segment.gone)?;
        }
        Ok(())
    }
}

impl<D: Attend> Attend for Timed<D> {
    fn attention(
        &mut self,
        q: &D::Rows,
        cache: &D::Cache,
        layer: usize,
        mask: Mask,
        scale: f32,
        out: &mut D::Rows,
    ) -> Result<()> {
        self.inner.attention(q, cache, layer, mask, scale, out)?;
        self.lap_of("attention", Some(layer))
    }
}
