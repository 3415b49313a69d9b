//! The arguments of every operation, checked in one place for all backends.

use crate::error::{Expected, Result};
use crate::{Activation, Batch, BlockSparse, Epilogue, Error, Heads, Mask, PAGE, Role, TOP_EXPERTS, Weight};

/// Bound of the numbers of a block-sparse mask, so that nothing made of them overflows.
const MOST_BLOCKS: usize = 1 << 20;

/// Shape of a matrix or of activations.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Rows of a matrix; rows that activations have room for.
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// Sizes of routes.
#[derive(Clone, Copy)]
pub(crate) struct RoutesShape {
    /// Rows that there is room for.
    pub(crate) capacity: usize,
    pub(crate) experts: usize,
    /// Rows that were routed last.
    pub(crate) routed: usize,
}

/// Shape of a cache.
#[derive(Clone, Copy)]
pub(crate) struct CacheShape {
    pub(crate) heads: Heads,
    pub(crate) layers: usize,
    /// Pages that every layer has.
    pub(crate) pages: usize,
}

/// The pass that a backend computes: its batch, and how many rows the operations work on.
#[derive(Default)]
pub(crate) struct ActivePass {
    pub(crate) batch: Batch,
    /// Rows of the batch, or those that were selected.
    pub(crate) rows: usize,
}

impl ActivePass {
    pub(crate) fn begin(&mut self, batch: &Batch) {
        self.batch.clone_from(batch);
        self.rows = batch.rows();
    }

    /// `chosen` rows have a token that the device chose.
    pub(crate) fn embed(&self, table: Shape, role: Role, chosen: usize, out: Shape) -> Result<()> {
        const OP: &str = "embed";
        if !matches!(role, Role::Plain | Role::Embedding) {
            return Err(Error::Role { op: OP, expected: "plain or embedding", found: role.name() });
        }
        same(OP, "output width", table.cols, out.cols)?;
        at_most(OP, "largest token", table.rows.saturating_sub(1), self.batch.token_bound().saturating_sub(1))?;
        at_most(OP, "rows with a chosen token", chosen, self.batch.chosen_bound())?;
        self.all_rows(OP)?;
        self.room(OP, out)
    }

    /// `len` numbers are written from row `first` on.
    pub(crate) fn write(&self, x: Shape, first: usize, len: usize) -> Result<()> {
        const OP: &str = "write";
        Expected::MultipleOf(x.cols).check(OP, "elements", len)?;
        self.room(OP, x)?;
        at_most(OP, "rows", self.rows, first.saturating_add(len / x.cols))
    }

    /// `norm` has the widths of the norm's vectors, here as below.
    pub(crate) fn norm(&self, x: Shape, norm: impl IntoIterator<Item = usize>, out: Shape) -> Result<()> {
        const OP: &str = "norm";
        norm.into_iter().try_for_each(|width| same(OP, "norm width", x.cols, width))?;
        same(OP, "output width", x.cols, out.cols)?;
        self.room(OP, x)?;
        self.room(OP, out)
    }

    /// The width of the output.
    pub(crate) fn project(
        &self,
        x: Shape,
        norm: impl IntoIterator<Item = usize>,
        weight: Shape,
        role: Role,
        epilogue: Epilogue,
        out: Shape,
    ) -> Result<usize> {
        const OP: &str = "project";
        let wanted = if epilogue.activation.is_gated() { Role::GateUp } else { Role::Plain };
        let width = epilogue.width(weight.rows);
        if role != wanted {
            return Err(Error::Role { op: OP, expected: wanted.name(), found: role.name() });
        }
        same(OP, "output width", width, out.cols)?;
        self.room(OP, out)?;
        self.input(OP, x, norm, weight)?;
        Ok(width)
    }

    pub(crate) fn route(&self, scores: Shape, routes: RoutesShape) -> Result<()> {
        const OP: &str = "route";
        same(OP, "scores of a row", routes.experts, scores.cols)?;
        self.room(OP, scores)?;
        at_most(OP, "rows", routes.capacity, self.rows)
    }

    /// The width of the output.
    pub(crate) fn project_experts(
        &self,
        x: Shape,
        weight: (Shape, Role),
        activation: Activation,
        routes: RoutesShape,
        out: Shape,
    ) -> Result<usize> {
        const OP: &str = "project_experts";
        let rows = self.experts(OP, weight, activation.is_gated(), routes)?;
        let width = Epilogue::of(activation).width(rows);
        same(OP, "input width", weight.0.cols, x.cols)?;
        same(OP, "output width", width, out.cols)?;
        self.room(OP, x)?;
        at_most(OP, "rows", out.rows, self.rows.saturating_mul(TOP_EXPERTS))?;
        Ok(width)
    }

    /// The width of the output.
    pub(crate) fn combine_experts(
        &self,
        x: Shape,
        weight: (Shape, Role),
        routes: RoutesShape,
        out: Shape,
    ) -> Result<usize> {
        const OP: &str = "combine_experts";
        let width = self.experts(OP, weight, false, routes)?;
        same(OP, "input width", weight.0.cols, x.cols)?;
        same(OP, "output width", width, out.cols)?;
        at_most(OP, "rows", x.rows, self.rows.saturating_mul(TOP_EXPERTS))?;
        self.room(OP, out)?;
        Ok(width)
    }

    /// Rows of an expert's matrix.
    fn experts(
        &self,
        op: &'static str,
        (weight, role): (Shape, Role),
        gated: bool,
        routes: RoutesShape,
    ) -> Result<usize> {
        let Role::Experts { count, .. } = role else {
            return Err(Error::Role { op, expected: Role::Experts { count: 0, gated }.name(), found: role.name() });
        };
        let wanted = Role::Experts { count, gated };
        if role != wanted {
            return Err(Error::Role { op, expected: wanted.name(), found: role.name() });
        }
        same(op, "experts", routes.experts, count)?;
        same(op, "routed rows", self.rows, routes.routed)?;
        Ok(weight.rows / count.max(1))
    }

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
        self.room(OP, q)?;
        same(OP, "rotations", self.batch.rows() * heads.rotary_dim, self.batch.rope().len())?;
        self.cache(OP, cache, layer)
    }

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
        self.room(OP, q)?;
        self.room(OP, out)?;
        self.cache(OP, cache, layer)?;
        if let Mask::Blocks(BlockSparse { block, local, stride, .. }) = mask {
            for (what, value) in
                [("positions of a block", block), ("local blocks", local), ("stride of blocks", stride)]
            {
                Expected::AtLeast(1).check(OP, what, value)?;
                at_most(OP, what, MOST_BLOCKS, value)?;
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

    /// The rows that follow from then on are `count`.
    pub(crate) fn select(&mut self, x: Shape, first: usize, count: usize, out: Shape) -> Result<()> {
        const OP: &str = "select";
        same(OP, "output width", x.cols, out.cols)?;
        at_most(OP, "outputs", self.batch.outputs().len(), first.saturating_add(count))?;
        at_most(OP, "rows", x.rows, self.batch.rows())?;
        at_most(OP, "rows", out.rows, count)?;
        self.rows = count;
        Ok(())
    }

    fn input(&self, op: &'static str, x: Shape, norm: impl IntoIterator<Item = usize>, weight: Shape) -> Result<()> {
        same(op, "input width", weight.cols, x.cols)?;
        norm.into_iter().try_for_each(|width| same(op, "norm width", x.cols, width))?;
        self.room(op, x)
    }

    fn cache(&self, op: &'static str, cache: CacheShape, layer: usize) -> Result<()> {
        self.all_rows(op)?;
        Expected::Below(cache.layers).check(op, "layer", layer)?;
        at_most(op, "pages", cache.pages, self.batch.page_bound())
    }

    /// Operations that look at tokens or positions take the rows of the batch, not those that were selected.
    fn all_rows(&self, op: &'static str) -> Result<()> {
        same(op, "rows", self.batch.rows(), self.rows)
    }

    fn room(&self, op: &'static str, activations: Shape) -> Result<()> {
        at_most(op, "rows", activations.rows, self.rows)
    }
}

/// The rows that a read of `len` elements takes.
pub(crate) fn read(x: Shape, len: usize) -> Result<usize> {
    Expected::MultipleOf(x.cols).check("read", "elements", len)?;
    let rows = len / x.cols;
    at_most("read", "rows", x.rows, rows)?;
    Ok(rows)
}

/// Activations of `rows` rows.
pub(crate) fn rows(dim: usize) -> Result<()> {
    Expected::AtLeast(1).check("rows", "width", dim)
}

pub(crate) fn matrix(weight: &Weight, role: Role) -> Result<()> {
    let rows = match role {
        Role::Plain | Role::Embedding => weight.rows.max(1),
        Role::GateUp => weight.rows.max(1).next_multiple_of(2),
        Role::Experts { count, gated } => {
            Expected::AtLeast(1).check("matrix", "experts", count)?;
            let unit = count.saturating_mul(if gated { 2 } else { 1 });
            weight.rows.max(1).checked_next_multiple_of(unit).unwrap_or(usize::MAX)
        }
        Role::Qkv(of) => {
            heads("matrix", of)?;
            of.qkv_dim()
        }
        Role::QkvPart(of, first) => {
            heads("matrix", of)?;
            Expected::MultipleOf(of.head_dim).check("matrix", "first row of a part", first)?;
            at_most("matrix", "first row of a part", of.qkv_dim() - of.head_dim, first)?;
            weight.rows.max(1).next_multiple_of(of.head_dim).min(of.qkv_dim() - first)
        }
    };
    let (expected, found) = (vec![rows, weight.cols.max(1)], vec![weight.rows, weight.cols]);
    if expected == found { Ok(()) } else { Err(Error::Shape { name: weight.name.clone(), expected, found }) }
}

/// Heads that every backend could take; the kernels of one may want them smaller.
pub(crate) fn heads(op: &'static str, heads: Heads) -> Result<()> {
    let Heads { heads, kv_heads, head_dim, rotary_dim } = heads;
    Expected::AtLeast(1).check(op, "kv_heads", kv_heads)?;
    Expected::AtLeast(kv_heads).check(op, "heads", heads)?;
    Expected::MultipleOf(kv_heads).check(op, "heads", heads)?;
    Expected::AtLeast(2).check(op, "head_dim", head_dim)?;
    Expected::MultipleOf(2).check(op, "head_dim", head_dim)?;
    Expected::MultipleOf(2).check(op, "rotary_dim", rotary_dim)?;
    at_most(op, "rotary_dim", head_dim, rotary_dim)?;
    // at most three times as wide, in bytes of f32
    at_most(op, "width of all heads", usize::MAX / 12 / PAGE, heads.saturating_mul(head_dim))
}

pub(crate) fn same(op: &'static str, what: &'static str, expected: usize, found: usize) -> Result<()> {
    Expected::Exactly(expected).check(op, what, found)
}

pub(crate) fn at_most(op: &'static str, what: &'static str, most: usize, found: usize) -> Result<()> {
    Expected::AtMost(most).check(op, what, found)
}
