//! Experts on the GPU: routes are listed by expert in tiles, and a product takes the tiles, so that the host waits for nothing.

use super::{Experts, Router, TOP_EXPERTS};
use crate::gpu::device::{Buffer, STORAGE};
use crate::gpu::grid::grid;
use crate::gpu::pipelines::Bindings;
use crate::gpu::project::{Params, epilogue_of};
use crate::gpu::recorder::folded;
use crate::gpu::routes::Tiles;
use crate::gpu::{Gpu, Matrix, Routes, Rows};
use crate::{Activation, Epilogue, Result};
use phi3_shaders::{Input, Op, RowMap, binding};

/// Index of the first output of a piece in the parameters of an epilogue.
const EPILOGUE_FIRST: usize = 3;

impl Experts for Gpu {
    fn route(&mut self, scores: &Rows, router: Router, routes: &mut Routes) -> Result<()> {
        self.pass.route(scores.shape(), routes.shape())?;
        self.record_route(scores, router, routes)
    }

    fn project_experts(
        &mut self,
        x: &Rows,
        weight: &Matrix,
        activation: Activation,
        routes: &Routes,
        out: &mut Rows,
    ) -> Result<()> {
        let (of, routed) = ((weight.shape(), weight.role), routes.shape());
        self.pass.project_experts(x.shape(), of, activation, routed, out.shape())?;
        self.up_experts(x, weight, activation, routes, out)
    }

    fn combine_experts(&mut self, x: &Rows, weight: &Matrix, routes: &Routes, out: &mut Rows) -> Result<()> {
        let (of, routed) = ((weight.shape(), weight.role), routes.shape());
        self.pass.combine_experts(x.shape(), of, routed, out.shape())?;
        self.down_experts(x, weight, routes, out)
    }
}

impl Gpu {
    fn record_route(&mut self, scores: &Rows, router: Router, routes: &mut Routes) -> Result<()> {
        routes.routed = self.pass.rows;
        routes.tiles = Tiles::of(&self.pass.runs, routes.experts);
        let Router::SparseMixer { jitter } = router;
        let mut bindings = Bindings::default();
        bindings[binding::INPUT as usize] = Some(&scores.buffer);
        bindings[binding::ROUTES as usize] = Some(&routes.buffer);
        for tiles in &routes.tiles {
            let params = [
                self.pass.rows as u32,
                routes.experts as u32,
                scores.stride as u32,
                jitter.to_bits(),
                tiles.at as u32,
                tiles.size as u32,
                tiles.count as u32,
                tiles.rows.start as u32,
                tiles.rows.end as u32,
                0,
                0,
                0,
            ];
            self.recorder.dispatch(&mut self.device, Op::Route, &bindings, &params, [1, 1, 1])?;
        }
        Ok(())
    }

    fn up_experts(
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

    fn down_experts(&mut self, x: &Rows, weight: &Matrix, routes: &Routes, out: &Rows) -> Result<()> {
        let bytes = (TOP_EXPERTS * self.pass.rows * out.stride * size_of::<f32>()) as u64;
        self.device.grow(&mut self.expert_outputs, "outputs of experts", bytes, STORAGE)?;
        let Some(given) = self.expert_outputs.take() else { return Ok(()) };
        let rows = RowMap::Routed { share: 1 };
        let result = self
            .by_expert((&x.buffer, x.stride), weight, Activation::Identity, routes, rows, (&given, out.stride))
            .and_then(|()| {
                let mut bindings = Bindings::default();
                bindings[binding::INPUT as usize] = Some(&given);
                bindings[binding::OUTPUT as usize] = Some(&out.buffer);
                bindings[binding::ROUTES as usize] = Some(&routes.buffer);
                let params = [self.pass.rows as u32, (out.stride / 4) as u32, 0, 0];
                self.recorder.dispatch(&mut self.device, Op::Combine, &bindings, &params, folded(self.pass.rows))
            });
        self.expert_outputs = Some(given);
        result
    }

    /// Records a product of each expert's rows with its matrix. `stride` and `out_stride` are the floats of a row.
    fn by_expert(
        &mut self,
        (x, stride): (&Buffer, usize),
        weight: &Matrix,
        activation: Activation,
        routes: &Routes,
        rows: RowMap,
        (out, out_stride): (&Buffer, usize),
    ) -> Result<()> {
        let (sink, epilogue) = epilogue_of(Epilogue::of(activation), out_stride);
        let epilogue_text = phi3_shaders::Epilogue { bias: false, sink };
        for (tiles, piece) in
            routes.tiles.iter().flat_map(|tiles| weight.pieces.iter().map(move |piece| (tiles, piece)))
        {
            let (product, format) = (tiles.product, weight.format);
            let op = Op::Project { product, format, input: Input::Plain, epilogue: epilogue_text, rows };
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
                rows_at: tiles.at as u32,
                epilogue,
            };
            let mut bindings = Bindings::default();
            bindings[binding::INPUT as usize] = Some(x);
            bindings[binding::WEIGHT as usize] = Some(&piece.weight);
            bindings[binding::SCALES as usize] = piece.scales.as_ref();
            bindings[binding::OUTPUT as usize] = Some(out);
            bindings[binding::ROUTES as usize] = Some(&routes.buffer);
            let grid = grid(product, tiles.count * tiles.size, outputs);
            let work = (TOP_EXPERTS * tiles.rows.len() * outputs * weight.cols) as u64;
            self.recorder.reserve_work(&mut self.device, work)?;
            self.recorder.dispatch(&mut self.device, op, &bindings, &params, grid)?;
        }
        Ok(())
    }
}
