//! Projections: which kernel, and its parameters.

use super::device::Buffer;
use super::pipelines::Slots;
use super::recorder::folded;
use super::upload::Matrix;
use super::{Gpu, Rows, same};
use crate::{Norm, Result};
use bytemuck::{Pod, Zeroable};
use phi3_shaders::{Finish, Input, Op, Product, binding};

/// Rows up to which a weight is better read once per four rows than tiled.
const FEW_ROWS: usize = 8;

/// `Params` of matvec.wgsl and matmul.wgsl.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Params {
    rows: u32,
    cols: u32,
    k8: u32,
    stride: u32,
    outputs: u32,
    first: u32,
    eps: f32,
    pad: u32,
    finish: FinishParams,
}

/// `Finish` of the texts in finish/: those but qkv.wgsl have only a stride, and three words of padding.
pub(super) type FinishParams = [u32; 8];

/// What becomes of a projection's result, and where it goes.
pub(super) struct Target<'a> {
    pub(super) finish: Finish,
    pub(super) params: FinishParams,
    pub(super) output: &'a Buffer,
    pub(super) keys: Option<&'a Buffer>,
    pub(super) values: Option<&'a Buffer>,
}

impl Gpu {
    /// Records the product of x and a weight, one dispatch per piece of the weight.
    pub(super) fn product(
        &mut self,
        op: &'static str,
        x: &Rows,
        norm: Option<Norm<'_, Self>>,
        weight: &Matrix,
        target: &Target<'_>,
    ) -> Result<()> {
        same(op, "input width", weight.cols, x.dim)?;
        if let Some(norm) = norm {
            same(op, "norm width", x.dim, norm.weight.len)?;
        }
        x.check(op, self.rows)?;

        let product = match self.rows {
            1 => Product::Matvec,
            2..=FEW_ROWS => Product::Matvec4,
            _ => Product::Matmul,
        };
        let input = if norm.is_some() { Input::Normed } else { Input::Plain };
        let kernel = Op::Project { product, format: weight.format, input, finish: target.finish };
        for piece in &weight.pieces {
            let params = Params {
                rows: self.rows as u32,
                cols: weight.cols as u32,
                k8: weight.groups() as u32,
                stride: (x.stride / 4) as u32,
                outputs: piece.padded() as u32,
                first: piece.rows.start as u32,
                eps: norm.map_or(0.0, |norm| norm.eps),
                pad: 0,
                finish: target.params,
            };
            let mut slots = Slots::default();
            slots[binding::INPUT as usize] = Some(&x.buffer);
            slots[binding::WEIGHT as usize] = Some(&piece.weight);
            slots[binding::SCALES as usize] = piece.scales.as_ref();
            slots[binding::GAIN as usize] = norm.map(|norm| &norm.weight.buffer);
            slots[binding::OUTPUT as usize] = Some(target.output);
            slots[binding::KEYS as usize] = target.keys;
            slots[binding::VALUES as usize] = target.values;
            slots[binding::BATCH as usize] = self.table.buffer.as_ref();
            let grid = grid(product, self.rows, piece.padded());
            self.recorder.dispatch(&mut self.device, kernel, &slots, &params, grid)?;
        }
        Ok(())
    }
}

fn grid(product: Product, rows: usize, outputs: usize) -> [u32; 3] {
    let (tile_rows, tile_outputs) = product.tile();
    let rows = (rows as u32).div_ceil(tile_rows);
    let outputs = (outputs as u32).div_ceil(tile_outputs);
    match product {
        Product::Matvec | Product::Matvec4 => {
            let [x, y, _] = folded(outputs as usize);
            [x, y, rows]
        }
        Product::Matmul => [outputs, rows, 1],
    }
}
