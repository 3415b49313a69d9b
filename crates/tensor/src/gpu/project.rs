//! Projections: which kernel, and its parameters.

use super::device::{Buffer, Device, STORAGE};
use super::pipelines::Slots;
use super::recorder::{Recorder, folded};
use super::upload::Matrix;
use super::{Gpu, Rows, Vector};
use crate::{Norm, Result};
use bytemuck::{Pod, Zeroable};
use phi3_shaders::{Epilogue, Input, Op, Precision, Product, RowMap, Sink, Tier, binding};

/// Rows up to which a weight is better read once per four rows than tiled.
const FEW_ROWS: usize = 8;

/// Workgroups that a large device wants.
pub(super) const ENOUGH: u32 = 128;

/// Halves of a row are a multiple of it: of DEPTH in matmul_units.wgsl.
const HALVES: usize = 32;

/// `Params` of matvec.wgsl, matmul.wgsl, matmul_halves.wgsl and matmul_units.wgsl.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Params {
    pub(super) rows: u32,
    pub(super) cols: u32,
    pub(super) k8: u32,
    pub(super) stride: u32,
    pub(super) outputs: u32,
    pub(super) first: u32,
    pub(super) eps: u32,
    pub(super) routes_at: u32,
    pub(super) epilogue: EpilogueParams,
}

/// `Epilogue` of the texts in epilogue/.
pub(super) type EpilogueParams = [u32; 8];

/// What becomes of a projection's result, and where it goes.
pub(super) struct Target<'a> {
    pub(super) sink: Sink,
    pub(super) params: EpilogueParams,
    pub(super) output: &'a Buffer,
    pub(super) keys: Option<&'a Buffer>,
    pub(super) values: Option<&'a Buffer>,
}

/// What a product takes: `[rows, dim]` f32, `stride` of them a row.
#[derive(Clone, Copy)]
struct Activations<'a> {
    buffer: &'a Buffer,
    dim: usize,
    stride: usize,
}

/// Records a norm of so many rows by itself.
pub(super) fn normalise(
    recorder: &mut Recorder,
    device: &mut Device,
    rows: usize,
    x: &Rows,
    norm: Norm<'_, Gpu>,
    out: &Buffer,
) -> Result<()> {
    let (op, weight, bias, eps) = match norm {
        Norm::Rms { weight, eps } => (Op::RmsNorm, weight, None, eps),
        Norm::Layer { weight, bias, eps } => (Op::LayerNorm, weight, Some(&bias.buffer), eps),
    };
    let mut slots = Slots::default();
    slots[binding::INPUT as usize] = Some(&x.buffer);
    slots[binding::GAIN as usize] = Some(&weight.buffer);
    slots[binding::NORM_BIAS as usize] = bias;
    slots[binding::OUTPUT as usize] = Some(out);
    let params = [rows as u32, x.dim as u32, (x.stride / 4) as u32, eps.to_bits()];
    recorder.dispatch(device, op, &slots, &params, folded(rows))
}

/// Activations in half precision, and what their rows were divided by.
#[derive(Default)]
pub(super) struct Halves {
    values: Option<Buffer>,
    row_scales: Option<Buffer>,
}

/// How halves lie in their buffer.
struct Layout {
    /// Halves of a row.
    stride: usize,
    /// Where what the halves lack begins.
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
    /// Records the product of x and a weight, one dispatch per piece of the weight.
    pub(super) fn product(
        &mut self,
        x: &Rows,
        norm: Option<Norm<'_, Self>>,
        weight: &Matrix,
        target: &Target<'_>,
    ) -> Result<()> {
        let epilogue = Epilogue { bias: weight.bias.is_some(), sink: target.sink };
        let product = self.product_for(weight, epilogue);
        // a kernel has room for the gain of RMSNorm, in the place of a bias
        let gain = match norm {
            Some(Norm::Rms { weight, eps }) if !epilogue.bias || product.halves().is_some() => Some((weight, eps)),
            _ => None,
        };
        let normed = self.normed.take();
        match norm.filter(|_| gain.is_none()) {
            Some(norm) => self.normed_first(x, norm, normed).and_then(|normed| {
                let x = Activations { buffer: &normed, dim: x.dim, stride: x.stride };
                let result = self.multiply(x, None, weight, target, product, epilogue);
                self.normed = Some(normed);
                result
            }),
            None => {
                self.normed = normed;
                let x = Activations { buffer: &x.buffer, dim: x.dim, stride: x.stride };
                self.multiply(x, gain, weight, target, product, epilogue)
            }
        }
    }

    /// Rows behind a norm, in a buffer of their own: `normed`, where it is large enough.
    fn normed_first(&mut self, x: &Rows, norm: Norm<'_, Self>, normed: Option<Buffer>) -> Result<Buffer> {
        let bytes = (self.pass.rows * x.stride * size_of::<f32>()) as u64;
        let buffer = match normed.filter(|buffer| buffer.size >= bytes) {
            Some(buffer) => buffer,
            None => self.device.buffer("normed activations", bytes, STORAGE)?,
        };
        normalise(&mut self.recorder, &mut self.device, self.pass.rows, x, norm, &buffer)?;
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
        let layout = Layout::of(x.dim, self.pass.rows, product);
        let halved = match product.halves() {
            Some(precision) => {
                self.halve(x, gain, precision, &layout)?;
                true
            }
            None => false,
        };
        let input = if gain.is_some() && !halved { Input::Normed } else { Input::Plain };
        let kernel = Op::Project { product, format: weight.format, input, epilogue, rows: RowMap::Direct };
        for piece in &weight.pieces {
            let params = Params {
                rows: self.pass.rows as u32,
                cols: weight.cols as u32,
                k8: weight.groups() as u32,
                stride: if halved { layout.stride } else { x.stride / 4 } as u32,
                outputs: piece.padded() as u32,
                first: (weight.first + piece.rows.start) as u32,
                // matmul_units.wgsl has `low` there
                eps: if halved { layout.low as u32 } else { gain.map_or(0, |(_, eps)| eps.to_bits()) },
                routes_at: 0,
                epilogue: target.params,
            };
            let mut slots = Slots::default();
            slots[binding::INPUT as usize] = if halved { self.halves.values.as_ref() } else { Some(x.buffer) };
            slots[binding::ROW_SCALES as usize] = self.halves.row_scales.as_ref();
            slots[binding::WEIGHT as usize] = Some(&piece.weight);
            slots[binding::SCALES as usize] = piece.scales.as_ref();
            slots[binding::GAIN as usize] = match &weight.bias {
                Some(bias) => Some(bias),
                None => gain.map(|(gain, _)| &gain.buffer),
            };
            slots[binding::OUTPUT as usize] = Some(target.output);
            slots[binding::KEYS as usize] = target.keys;
            slots[binding::VALUES as usize] = target.values;
            slots[binding::BATCH as usize] = self.table.buffer.as_ref();
            let grid = grid(product, self.pass.rows, piece.padded());
            let work = self.pass.rows as u64 * piece.padded() as u64 * weight.cols as u64;
            self.recorder.make_room(&mut self.device, work)?;
            self.recorder.dispatch(&mut self.device, kernel, &slots, &params, grid)?;
        }
        Ok(())
    }

    /// How a product is best computed.
    fn product_for(&self, weight: &Matrix, epilogue: Epilogue) -> Product {
        let best = self.best_for(weight.rows);
        if epilogue.fits(best, weight.format) { best } else { Product::Matmul }
    }

    fn best_for(&self, outputs: usize) -> Product {
        let tier = self.tier();
        match (self.pass.rows, self.adapter.units) {
            (1, _) => Product::Matvec,
            (2..=FEW_ROWS, _) => Product::Matvec4,
            (rows, Some(units)) if tier == Tier::Coop => {
                let precision = if self.exact { Precision::TwoHalves } else { Precision::Half };
                let large = Product::MatmulUnits { units, high: 4, precision };
                let [x, y, _] = grid(large, rows, outputs);
                let small = Product::MatmulUnits { units, high: 2, precision };
                if self.exact || x * y < self.enough { small } else { large }
            }
            _ if tier >= Tier::F16 && self.device.f16 && !self.exact => Product::MatmulHalves,
            _ => Product::Matmul,
        }
    }

    fn halve(
        &mut self,
        x: Activations<'_>,
        gain: Option<(&Vector, f32)>,
        precision: Precision,
        layout: &Layout,
    ) -> Result<()> {
        self.device.grow(&mut self.halves.values, "activations in half precision", layout.bytes, STORAGE)?;
        let bytes = (self.pass.rows * size_of::<f32>()) as u64;
        self.device.grow(&mut self.halves.row_scales, "scales of activations", bytes, STORAGE)?;
        let params = [
            self.pass.rows as u32,
            x.dim as u32,
            (x.stride / 4) as u32,
            (layout.stride / 2) as u32,
            (layout.low / 2) as u32,
            gain.map_or(0, |(_, eps)| eps.to_bits()),
            0,
            0,
        ];
        let mut slots = Slots::default();
        slots[binding::INPUT as usize] = Some(x.buffer);
        slots[binding::GAIN as usize] = gain.map(|(gain, _)| &gain.buffer);
        slots[binding::OUTPUT as usize] = self.halves.values.as_ref();
        slots[binding::ROW_SCALES as usize] = self.halves.row_scales.as_ref();
        let op = Op::Halve(if gain.is_some() { Input::Normed } else { Input::Plain }, precision);
        self.recorder.dispatch(&mut self.device, op, &slots, &params, folded(self.pass.rows))
    }
}

/// Whether a weight is better read for each few of so many rows than tiled.
pub(super) fn is_few(rows: usize) -> bool {
    rows <= FEW_ROWS
}

pub(super) fn grid(product: Product, rows: usize, outputs: usize) -> [u32; 3] {
    let (tile_rows, tile_outputs) = product.tile();
    let rows = (rows as u32).div_ceil(tile_rows);
    let outputs = (outputs as u32).div_ceil(tile_outputs);
    match product {
        Product::Matvec | Product::Matvec4 => {
            let [x, y, _] = folded(outputs as usize);
            [x, y, rows]
        }
        Product::Matmul | Product::MatmulHalves | Product::MatmulUnits { .. } => [outputs, rows, 1],
    }
}
