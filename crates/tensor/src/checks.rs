//! Checks of arguments that several operations share, the same on every backend. Checks of one operation are in its module.

use crate::error::{Expected, Result};
use crate::{Batch, Error, Heads, PAGE, Phase, Role, Weight};
use std::ops::Range;

/// Shape of a matrix or of activations.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Rows of a matrix; capacity of activations in rows.
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// Sizes of routes.
#[derive(Clone, Copy)]
pub(crate) struct RoutesShape {
    /// Capacity in rows.
    pub(crate) capacity: usize,
    pub(crate) experts: usize,
    /// Rows of the last routing.
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

/// The current pass of a backend: its batch, and the number of rows that the operations compute.
#[derive(Default)]
pub(crate) struct ActivePass {
    pub(crate) batch: Batch,
    /// Rows of the batch, or selected rows.
    pub(crate) rows: usize,
    /// These rows by phase, in order.
    pub(crate) runs: Vec<(Phase, Range<usize>)>,
}

impl ActivePass {
    pub(crate) fn begin(&mut self, batch: &Batch) {
        self.batch.clone_from(batch);
        self.rows = batch.rows();
        self.runs.clear();
        for segment in batch.segments() {
            self.run(segment.phase, segment.rows.len());
        }
    }

    /// Adds rows to the runs.
    pub(crate) fn run(&mut self, phase: Phase, rows: usize) {
        let start = self.runs.last().map_or(0, |(_, rows)| rows.end);
        match self.runs.last_mut().filter(|(last, _)| *last == phase) {
            Some((_, last)) => last.end += rows,
            None => self.runs.push((phase, start..start + rows)),
        }
    }

    /// Phase of a row.
    pub(crate) fn phase(&self, row: usize) -> Phase {
        self.runs.iter().find(|(_, rows)| rows.contains(&row)).map_or(Phase::Decode, |(phase, _)| *phase)
    }

    /// Checks the input of a product: widths of x, norm and weight, and the rows of x.
    pub(crate) fn input(
        &self,
        op: &'static str,
        x: Shape,
        norm: impl IntoIterator<Item = usize>,
        weight: Shape,
    ) -> Result<()> {
        same(op, "input width", weight.cols, x.cols)?;
        norm.into_iter().try_for_each(|width| same(op, "norm width", x.cols, width))?;
        self.capacity(op, x)
    }

    /// Checks the layer and the pages of a cache against the batch.
    pub(crate) fn cache(&self, op: &'static str, cache: CacheShape, layer: usize) -> Result<()> {
        self.all_rows(op)?;
        Expected::Below(cache.layers).check(op, "layer", layer)?;
        at_most(op, "pages", cache.pages, self.batch.pages_needed())
    }

    /// Checks that the pass has all rows of the batch, as operations on tokens or positions require: no rows were selected.
    pub(crate) fn all_rows(&self, op: &'static str) -> Result<()> {
        same(op, "rows", self.batch.rows(), self.rows)
    }

    /// Checks that activations have capacity for the rows of the pass.
    pub(crate) fn capacity(&self, op: &'static str, activations: Shape) -> Result<()> {
        at_most(op, "rows", activations.rows, self.rows)
    }
}

/// Rows that are read back.
pub(crate) fn read_back(x: Shape, rows: &Range<usize>) -> Result<()> {
    at_most("read back", "rows", x.rows, rows.end)?;
    at_most("read back", "first row", rows.end, rows.start)
}

/// Pages that are copied, of a cache.
pub(crate) fn copy_pages(cache: CacheShape, pairs: &[(u32, u32)]) -> Result<()> {
    let mut pages = pairs.iter().flat_map(|&(from, to)| [from, to]);
    pages.try_for_each(|page| Expected::Below(cache.pages).check("copy pages", "page", page as usize))
}

/// Checks a read of `len` elements. Returns its number of rows.
pub(crate) fn read(x: Shape, len: usize) -> Result<usize> {
    Expected::MultipleOf(x.cols).check("read", "elements", len)?;
    let rows = len / x.cols;
    at_most("read", "rows", x.rows, rows)?;
    Ok(rows)
}

/// Checks the width of activations.
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

/// Checks heads against the limits that all backends share; the kernels of a backend may have lower ones.
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
