//! Projection to queries, keys and values, with rotation, and keys and values appended to the paged cache.

#[cfg(any(test, feature = "reference"))]
pub(crate) mod cases;
mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(any(test, feature = "reference"))]
mod reference;

use crate::checks::{ActivePass, CacheShape, Shape, same};
use crate::ops::norm::untimed;
use crate::{Device, Error, Norm, Result, Role, Timed};

/// The operation `project_qkv`.
pub trait ProjectQkv: Device {
    /// Projects `norm(x)` to queries, keys and values, rotates queries and keys by [`Batch::rope`](crate::Batch::rope) (rotary
    /// position embedding, Su et al. 2021, arXiv 2104.09864), appends keys and values to `layer` of the cache at the rows'
    /// positions, and stores the queries in `q`. The order of the queries depends on the backend; they are input of
    /// [`attention`](crate::ops::Attend::attention) only.
    ///
    /// x is `[rows, cols]`, q `[rows, heads * head_dim]`. `weights` is one matrix of role [`Role::Qkv`], or several of role
    /// [`Role::QkvPart`] that follow each other.
    ///
    /// # Errors
    ///
    /// [`Error::Role`] where a matrix has another role or other heads than the cache, [`Error::Mismatch`] where widths, rows,
    /// rotations, layers or pages do not fit.
    fn project_qkv(
        &mut self,
        x: &Self::Rows,
        norm: Option<Norm<'_, Self>>,
        weights: &[&Self::Matrix],
        q: &mut Self::Rows,
        cache: &mut Self::Cache,
        layer: usize,
    ) -> Result<()>;
}

impl ActivePass {
    /// Checks the arguments of [`ProjectQkv::project_qkv`]; `norm` has the widths of the norm's vectors.
    pub(crate) fn project_qkv(
        &self,
        x: Shape,
        norm: impl IntoIterator<Item = usize>,
        weights: impl IntoIterator<Item = (Shape, Role)>,
        q: Shape,
        (cache, layer): (CacheShape, usize),
    ) -> Result<()> {
        const OP: &str = "project_qkv";
        let heads = cache.heads;
        let mut rows = 0;
        for (weight, role) in weights {
            match role.qkv() {
                Some((of, first)) if of == heads => same(OP, "first row of a part", rows, first)?,
                Some(_) => {
                    let found = "queries, keys and values of other heads";
                    return Err(Error::Role { op: OP, expected: "those of the cache's heads", found });
                }
                None => return Err(Error::Role { op: OP, expected: Role::Qkv(heads).name(), found: role.name() }),
            }
            rows += weight.rows;
            self.input(OP, x, [], weight)?;
        }
        same(OP, "rows of all parts", heads.qkv_dim(), rows)?;
        norm.into_iter().try_for_each(|width| same(OP, "norm width", x.cols, width))?;
        same(OP, "query width", heads.q_dim(), q.cols)?;
        self.capacity(OP, q)?;
        same(OP, "rotations", self.batch.rows() * heads.rotary_dim, self.batch.rope().len())?;
        self.cache(OP, cache, layer)
    }
}

impl<D: ProjectQkv> ProjectQkv for Timed<D> {
    fn project_qkv(
        &mut self,
        x: &D::Rows,
        norm: Option<Norm<'_, Self>>,
        weights: &[&Self::Matrix],
        q: &mut D::Rows,
        cache: &mut D::Cache,
        layer: usize,
    ) -> Result<()> {
        let inner: Vec<&D::Matrix> = weights.iter().map(|weight| &weight.inner).collect();
        self.inner.project_qkv(x, norm.map(untimed), &inner, q, cache, layer)?;
        // parts have one label
        weights.first().map_or(Ok(()), |weight| self.lap(weight.label))
    }
}
