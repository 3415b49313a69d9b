//! Products of activations and weights: the kernel, and its parameters.

use super::device::{Buffer, STORAGE};
use super::grid::{grid, matvec};
use super::machine::{Gpu, Rows, Vector};
use super::pipelines::Bindings;
use super::recorder::folded;
use super::upload::Matrix;
use crate::{Norm, Phase, Result, Store};
use bytemuck::{Pod, Zeroable};
use phi3_shaders::{Epilogue, Input, Op, Precision, Product, RowMap, Sink, Tier, binding};
use std::ops::Range;

/// The halves of a row are a multiple of this number: DEPTH in matmul_coop.wgsl.
const HALVES: usize = 32;

/// `Params` of matvec.wgsl, matmul.wgsl, matmul_halves.wgsl and matmul_coop.wgsl.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Params {
    pub(crate) rows: u32,
    pub(crate) cols: u32,
    pub(crate) k8: u32,
    pub(crate) stride: u32,
    pub(crate) outputs: u32,
    pub(crate) first: u32,
    pub(crate) eps: u32,
    pub(crate) rows_at: u32,
    pub(crate) epilogue: EpilogueParams,
}

/// `Epilogue` of the shader sources in epilogue/.
pub(crate) type EpilogueParams = [u32; 8];

/// Epilogue of a product, and the buffers of its result.
pub(crate) struct Target<'a> {
    pub(crate) sink: Sink,
    pub(crate) params: EpilogueParams,
    pub(crate) output: &'a Buffer,
    pub(crate) keys: Option<&'a Buffer>,
    pub(crate) values: Option<&'a Buffer>,
}

/// Sink of an epilogue, and its parameters; `stride` is the floats of a row of the output.
pub(crate) fn epilogue_of(epilogue: crate::Epilogue, stride: usize) -> (Sink, EpilogueParams) {
    let (activation, limit) = epilogue.activation.shader();
    let store = match epilogue.store {
        Store::Overwrite => phi3_shaders::Store::Overwrite,
        Store::Accumulate => phi3_shaders::Store::Accumulate,
    };
    let stride = if epilogue.activation.is_gated() { stride / 2 } else { stride / 4 };
    let params = [stride as u32, epilogue.scale.to_bits(), limit.to_bits(), 0, 0, 0, 0, 0];
    (Sink::Rows(activation, store), params)
}

/// Input of a product: these rows of `[rows, dim]` f32, `stride` of them a row.
#[derive(Clone)]
struct Activations<'a> {
    buffer: &'a Buffer,
    dim: usize,
    stride: usize,
    rows: Range<usize>,
}

/// Layout of the halves in their buffer.
struct Layout {
    /// Halves of a row.
    stride: usize,
    /// Offset of the low halves: the rounding errors of the high halves.
    low: usize,
    bytes: u64,
}

impl Layout {
    fn of(cols: usize, rows: usize, product: Product) -> Self {
        let stride = cols.next_multiple_of(HALVES);
        let low = stride * rows.next_multiple_of(product.tile().0 as usize);
        let parts = if product.halves() == Some(Precision::TwoHalves) { 2 } else { 1 };
        Self { stride, low, bytes: (parts * low * 2) as u64 }
    }
}

impl Gpu {
    /// Records the product of x and a weight, one dispatch per run of rows of a phase and piece of the weight.
    pub(crate) fn product(
        &mut self,
        x: &Rows,
        norm: Option<Norm<'_, Self>>,
        weight: &Matrix,
        target: &Target<'_>,
    ) -> Result<()> {
        let mut normed = None;
        let result = self.product_of_runs(x, norm, weight, target, &mut normed);
        self.normed = normed.or_else(|| self.normed.take());
        result
    }

    /// `normed` is x after a norm that a kernel does not compute itself: once for all runs.
    fn product_of_runs(
        &mut self,
        x: &Rows,
        norm: Option<Norm<'_, Self>>,
        weight: &Matrix,
        target: &Target<'_>,
        normed: &mut Option<Buffer>,
    ) -> Result<()> {
        let epilogue = Epilogue { bias: weight.bias.is_some(), sink: target.sink };
        for run in 0..self.pass.runs.len() {
            let (phase, rows) = self.pass.runs[run].clone();
            let product = self.product_for(phase, rows.len(), weight, epilogue);
            // the weight of RMSNorm and a bias have the same binding
            let gain = match norm {
                Some(Norm::Rms { weight, eps }) if !epilogue.bias || product.halves().is_some() => Some((weight, eps)),
                _ => None,
            };
            let buffer = match norm.filter(|_| gain.is_none()) {
                Some(norm) => match normed {
                    Some(normed) => normed,
                    None => normed.insert(self.normed_first(x, norm)?),
                },
                None => &x.buffer,
            };
            let x = Activations { buffer, dim: x.dim, stride: x.stride, rows };
            self.multiply(x, gain, weight, target, product, epilogue)?;
        }
        Ok(())
    }

    /// Records a norm of x into a separate buffer, that of the last one where it is large enough. Returns the buffer.
    fn normed_first(&mut self, x: &Rows, norm: Norm<'_, Self>) -> Result<Buffer> {
        let bytes = (self.pass.rows * x.stride * size_of::<f32>()) as u64;
        let buffer = match self.normed.take().filter(|buffer| buffer.size >= bytes) {
            Some(buffer) => buffer,
            None => self.device.buffer("normed activations", bytes, STORAGE)?,
        };
        self.record_norm(x, norm, &buffer)?;
        Ok(buffer)
    }

    fn multiply(
        &mut self,
        x: Activations<'_>,
        gain: Option<(&Vector, f32)>,
        weight: &Matrix,
        target: &Target<'_>,
        product: Product,
        epilogue: Epilogue,
    ) -> Result<()> {
        let layout = Layout::of(x.dim, x.rows.len(), product);
        let halved = match product.halves() {
            Some(precision) => {
                self.halve(&x, gain, precision, &layout)?;
                true
            }
            None => false,
        };
        let input = if gain.is_some() && !halved { Input::Normed } else { Input::Plain };
        let kernel = Op::Project { product, format: weight.format, input, epilogue, rows: RowMap::Direct };
        for piece in &weight.pieces {
            let params = Params {
                // the halves are those of these rows only
                rows: if halved { x.rows.len() } else { x.rows.end } as u32,
                cols: weight.cols as u32,
                k8: weight.groups() as u32,
                stride: if halved { layout.stride } else { x.stride / 4 } as u32,
                outputs: piece.padded() as u32,
                first: (weight.first + piece.rows.start) as u32,
                // `low` of matmul_coop.wgsl has this offset
                eps: if halved { layout.low as u32 } else { gain.map_or(0, |(_, eps)| eps.to_bits()) },
                rows_at: x.rows.start as u32,
                epilogue: target.params,
            };
            let mut bindings = Bindings::default();
            bindings[binding::INPUT as usize] = if halved { self.halves.values.as_ref() } else { Some(x.buffer) };
            bindings[binding::ROW_SCALES as usize] = self.halves.row_scales.as_ref();
            bindings[binding::WEIGHT as usize] = Some(&piece.weight);
            bindings[binding::SCALES as usize] = piece.scales.as_ref();
            bindings[binding::GAIN as usize] = match &weight.bias {
                Some(bias) => Some(bias),
                None => gain.map(|(gain, _)| &gain.buffer),
            };
            bindings[binding::OUTPUT as usize] = Some(target.output);
            bindings[binding::KEYS as usize] = target.keys;
            bindings[binding::VALUES as usize] = target.values;
            bindings[binding::BATCH as usize] = self.metadata.buffer.as_ref();
            let grid = grid(product, x.rows.len(), piece.padded());
            let work = x.rows.len() as u64 * piece.padded() as u64 * weight.cols as u64;
            self.recorder.reserve_work(&mut self.device, work)?;
            self.recorder.dispatch(&mut self.device, kernel, &bindings, &params, grid)?;
        }
        Ok(())
    }

    /// The kernel of a product.
    fn product_for(&self, phase: Phase, rows: usize, weight: &Matrix, epilogue: Epilogue) -> Product {
        let best = match phase {
            Phase::Decode => matvec(rows),
            Phase::Prompt => self.matmul(rows, weight.rows),
        };
        if epilogue.fits(best, weight.format) { best } else { Product::Matmul }
    }

    /// The kernel of a prompt. The number of rows chooses between tiles with the same order of a row's sum.
    fn matmul(&self, rows: usize, outputs: usize) -> Product {
        let tier = self.tier();
        match self.adapter.coop_matrix {
            Some(matrix) if tier == Tier::Coop => {
                let precision = if self.exact { Precision::TwoHalves } else { Precision::Half };
                let large = Product::MatmulCoop { matrix, high: 4, precision };
                let [x, y, _] = grid(large, rows, outputs);
                let small = Product::MatmulCoop { matrix, high: 2, precision };
                if self.exact || x * y < self.enough { small } else { large }
            }
            _ if tier >= Tier::F16 && self.device.f16 && !self.exact => Product::MatmulHalves,
            _ => Product::Matmul,
        }
    }

    fn halve(
        &mut self,
        x: &Activations<'_>,
        gain: Option<(&Vector, f32)>,
        precision: Precision,
        layout: &Layout,
    ) -> Result<()> {
        self.device.grow(&mut self.halves.values, "activations in half precision", layout.bytes, STORAGE)?;
        let bytes = (x.rows.len() * size_of::<f32>()) as u64;
        self.device.grow(&mut self.halves.row_scales, "scales of activations", bytes, STORAGE)?;
        let params = [
            x.rows.len() as u32,
            x.dim as u32,
            (x.stride / 4) as u32,
            (layout.stride / 2) as u32,
            (layout.low / 2) as u32,
            gain.map_or(0, |(_, eps)| eps.to_bits()),
            x.rows.start as u32,
            0,
        ];
        let mut bindings = Bindings::default();
        bindings[binding::INPUT as usize] = Some(x.buffer);
        bindings[binding::GAIN as usize] = gain.map(|(gain, _)| &gain.buffer);
        bindings[binding::OUTPUT as usize] = self.halves.values.as_ref();
        bindings[binding::ROW_SCALES as usize] = self.halves.row_scales.as_ref();
        let op = Op::Halve(if gain.is_some() { Input::Normed } else { Input::Plain }, precision);
        self.recorder.dispatch(&mut self.device, op, &bindings, &params, folded(x.rows.len()))
    }
}
