//! Mixtures of experts: routes, and products by expert.

use super::device::{Buffer, STORAGE};
use super::pipelines::Slots;
use super::project::{Params, grid, is_few};
use super::recorder::folded;
use super::upload::Matrix;
use super::{Gpu, Rows, epilogue_of};
use crate::checks::RoutesShape;
use crate::{Activation, Epilogue, Result, Router, TOP_EXPERTS};
use phi3_shaders::{Input, Op, Product, RowMap, binding};

const _: () = assert!(TOP_EXPERTS == phi3_shaders::TOP_EXPERTS as usize);

/// Where an epilogue's parameters have the first output of a piece.
const EPILOGUE_FIRST: usize = 3;

/// Routes of a pass, as route.wgsl lists them.
pub struct Routes {
    /// Rows that there is room for.
    capacity: usize,
    experts: usize,
    /// Rows that were routed last.
    routed: usize,
    buffer: Buffer,
}

impl Routes {
    pub(super) fn shape(&self) -> RoutesShape {
        RoutesShape { capacity: self.capacity, experts: self.experts, routed: self.routed }
    }
}

/// The tiles of a pass's routes.
struct Tiles {
    product: Product,
    /// Routes of a tile.
    size: usize,
    /// As many as there may be.
    count: usize,
    /// Where they begin in the list.
    at: usize,
}

impl Tiles {
    fn of(rows: usize, experts: usize) -> Self {
        let product = if is_few(rows) { Product::Matvec } else { Product::Matmul };
        let (size, routes) = (product.tile().0 as usize, TOP_EXPERTS * rows);
        // each expert that has routes may have a tile that is not full
        Self { product, size, count: routes / size + experts.min(routes), at: 2 * routes }
    }

    fn words(&self) -> usize {
        self.at + self.count * (self.size + 1)
    }
}

impl Gpu {
    pub(super) fn new_routes(&mut self, rows: usize, experts: usize) -> Result<Routes> {
        let few = (1..=rows).rev().find(|rows| is_few(*rows)).unwrap_or(0);
        let words = Tiles::of(rows, experts).words().max(Tiles::of(few, experts).words());
        let buffer = self.device.buffer("routes to experts", (words * size_of::<u32>()) as u64, STORAGE)?;
        Ok(Routes { capacity: rows, experts, routed: 0, buffer })
    }

    pub(super) fn record_route(&mut self, scores: &Rows, router: Router, routes: &mut Routes) -> Result<()> {
        routes.routed = self.pass.rows;
        let tiles = Tiles::of(self.pass.rows, routes.experts);
        let Router::SparseMixer { jitter } = router;
        let params = [
            self.pass.rows as u32,
            routes.experts as u32,
            scores.stride as u32,
            jitter.to_bits(),
            tiles.at as u32,
            tiles.size as u32,
            tiles.count as u32,
            0,
        ];
        let mut slots = Slots::default();
        slots[binding::INPUT as usize] = Some(&scores.buffer);
        slots[binding::ROUTES as usize] = Some(&routes.buffer);
        self.recorder.dispatch(&mut self.device, Op::Route, &slots, &params, [1, 1, 1])
    }

    pub(super) fn up_experts(
        &mut self,
        x: &Rows,
        weight: &Matrix,
        activation: Activation,
        routes: &Routes,
        out: &Rows,
    ) -> Result<()> {
        let rows = RowMap::Routed { share: TOP_EXPERTS as u32 };
        self.by_expert((&x.buffer, x.stride), weight, activation, routes, rows, (&out.buffer, out.stride))
    }

    pub(super) fn down_experts(&mut self, x: &Rows, weight: &Matrix, routes: &Routes, out: &Rows) -> Result<()> {
        let bytes = (TOP_EXPERTS * self.pass.rows * out.stride * size_of::<f32>()) as u64;
        self.device.grow(&mut self.given, "what experts give", bytes, STORAGE)?;
        let Some(given) = self.given.take() else { return Ok(()) };
        let rows = RowMap::Routed { share: 1 };
        let result = self
            .by_expert((&x.buffer, x.stride), weight, Activation::Identity, routes, rows, (&given, out.stride))
            .and_then(|()| {
                let mut slots = Slots::default();
                slots[binding::INPUT as usize] = Some(&given);
                slots[binding::OUTPUT as usize] = Some(&out.buffer);
                slots[binding::ROUTES as usize] = Some(&routes.buffer);
                let params = [self.pass.rows as u32, (out.stride / 4) as u32, 0, 0];
                self.recorder.dispatch(&mut self.device, Op::Combine, &slots, &params, folded(self.pass.rows))
            });
        self.given = Some(given);
        result
    }

    /// Records a product of each expert's rows with its matrix; buffers come with the floats of a row.
    fn by_expert(
        &mut self,
        (x, stride): (&Buffer, usize),
        weight: &Matrix,
        activation: Activation,
        routes: &Routes,
        rows: RowMap,
        (out, out_stride): (&Buffer, usize),
    ) -> Result<()> {
        let tiles = Tiles::of(self.pass.rows, routes.experts);
        let (sink, epilogue) = epilogue_of(Epilogue::of(activation), out_stride);
        let epilogue_text = phi3_shaders::Epilogue { bias: false, sink };
        let (product, format) = (tiles.product, weight.format);
        let op = Op::Project { product, format, input: Input::Plain, epilogue: epilogue_text, rows };
        for piece in &weight.pieces {
            let outputs = piece.padded() / piece.experts.len().max(1);
            let mut epilogue = epilogue;
            epilogue[EPILOGUE_FIRST] = piece.first as u32;
            let params = Params {
                rows: piece.experts.len() as u32,
                cols: weight.cols as u32,
                k8: weight.groups() as u32,
                stride: (stride / 4) as u32,
                outputs: outputs as u32,
                first: piece.experts.start as u32,
                eps: 0,
                routes_at: tiles.at as u32,
                epilogue,
            };
            let mut slots = Slots::default();
            slots[binding::INPUT as usize] = Some(x);
            slots[binding::WEIGHT as usize] = Some(&piece.weight);
            slots[binding::SCALES as usize] = piece.scales.as_ref();
            slots[binding::OUTPUT as usize] = Some(out);
            slots[binding::ROUTES as usize] = Some(&routes.buffer);
            // a tile of Product::Matvec is one row of its grid
            let grid = grid(product, tiles.count * tiles.size, outputs);
            let work = (TOP_EXPERTS * self.pass.rows * outputs * weight.cols) as u64;
            self.recorder.make_room(&mut self.device, work)?;
            self.recorder.dispatch(&mut self.device, op, &slots, &params, grid)?;
        }
        Ok(())
    }
}
