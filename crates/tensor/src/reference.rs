//! The specification of every operation: plain loops, sums in f64, one thread. For tests and diagnosis only.

use crate::checks::{self, ActivePass, CacheShape, Shape};
use crate::experts::Routes;
use crate::{
    Activation, Backend, Batch, Choice, DeviceInfo, DeviceKind, Epilogue, Heads, KvType, Mask, Norm, PAGE, Result,
    Role, Route, Router, Store, Weight,
};

/// The reference machine.
pub struct Reference {
    info: DeviceInfo,
    pass: ActivePass,
}

/// A matrix, widened.
pub struct Matrix {
    rows: usize,
    cols: usize,
    values: Vec<f32>,
    bias: Option<Vec<f32>>,
    role: Role,
}

/// Activations `[rows, dim]`.
pub struct Rows {
    dim: usize,
    values: Vec<f32>,
}

/// Keys and values, `[layer][page][slot][kv_dim]`.
pub struct Cache {
    heads: Heads,
    kv: KvType,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    /// Pages that every layer has.
    made: usize,
}

impl Matrix {
    fn shape(&self) -> Shape {
        Shape { rows: self.rows, cols: self.cols }
    }
}

impl Rows {
    fn shape(&self) -> Shape {
        Shape { rows: self.values.len() / self.dim, cols: self.dim }
    }
}

impl Cache {
    fn shape(&self) -> CacheShape {
        CacheShape { heads: self.heads, layers: self.keys.len(), pages: self.made }
    }
}

impl Default for Reference {
    fn default() -> Self {
        let info = DeviceInfo { kind: DeviceKind::Cpu, name: "reference".into(), detail: "f64 loops".into() };
        Self { info, pass: ActivePass::default() }
    }
}

fn normed(x: &[f32], norm: Norm<'_, Reference>) -> Vec<f64> {
    let mean_of = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / x.len() as f64;
    let x = || x.iter().map(|&v| f64::from(v));
    match norm {
        Norm::Rms { weight, eps } => {
            let inverse = 1.0 / (mean_of(&mut x().map(|v| v * v)) + f64::from(eps)).sqrt();
            x().zip(weight).map(|(v, &w)| v * inverse * f64::from(w)).collect()
        }
        Norm::Layer { weight, bias, eps } => {
            let mean = mean_of(&mut x());
            let inverse = 1.0 / (mean_of(&mut x().map(|v| (v - mean).powi(2))) + f64::from(eps)).sqrt();
            let scaled = x().zip(weight).map(|(v, &w)| (v - mean) * inverse * f64::from(w));
            scaled.zip(bias).map(|(v, &b)| v + f64::from(b)).collect()
        }
    }
}

/// What a cache gives back for the keys or values of a head; `block` tells which of them share a scale.
fn held(kv: KvType, head: &mut [f32], block: impl Fn(usize) -> usize) {
    match kv {
        KvType::F32 => {}
        KvType::F16 => head.iter_mut().for_each(|v| *v = half::f16::from_f32(v.clamp(-65504.0, 65504.0)).to_f32()),
        KvType::Q8_0 => {
            let mut most = vec![0.0f32; head.len().div_ceil(KvType::BLOCK)];
            for (i, v) in head.iter().enumerate() {
                most[block(i)] = most[block(i)].max(v.abs());
            }
            for (i, v) in head.iter_mut().enumerate() {
                let most = most[block(i)];
                let inverse = if most > 1e-30 { 127.0 / most } else { 0.0 };
                *v = (*v * inverse).round_ties_even() * (most / 127.0);
            }
        }
    }
}

impl Reference {
    fn product(&self, x: &Rows, norm: Option<Norm<'_, Self>>, weight: &Matrix) -> Vec<f64> {
        let mut y = Vec::with_capacity(self.pass.rows * weight.rows);
        for row in x.values.chunks_exact(x.dim).take(self.pass.rows) {
            let row: Vec<f64> = match norm {
                Some(norm) => normed(row, norm),
                None => row.iter().map(|&v| f64::from(v)).collect(),
            };
            for (i, w) in weight.values.chunks_exact(weight.cols).enumerate() {
                let bias = weight.bias.as_ref().map_or(0.0, |bias| f64::from(bias[i]));
                y.push(bias + w.iter().zip(&row).map(|(&w, x)| f64::from(w) * x).sum::<f64>());
            }
        }
        y
    }
}

/// What an expert's matrix gives for a row.
fn expert(weight: &Matrix, routes: &Routes, route: Route, x: &[f32]) -> Vec<f64> {
    let rows = weight.rows / routes.experts;
    let of = weight.values[route.expert * rows * weight.cols..][..rows * weight.cols].chunks_exact(weight.cols);
    of.map(|w| w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum()).collect()
}

impl Backend for Reference {
    type Matrix = Matrix;
    type Vector = Vec<f32>;
    type Rows = Rows;
    type Routes = Routes;
    type Cache = Cache;

    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn matrix(&mut self, weight: &Weight, role: Role) -> Result<Matrix> {
        checks::matrix(weight, role)?;
        Ok(Matrix {
            rows: weight.rows,
            cols: weight.cols,
            values: weight.to_f32(),
            bias: weight.bias().map(<[f32]>::to_vec),
            role,
        })
    }

    fn vector(&mut self, _name: &str, values: &[f32]) -> Result<Vec<f32>> {
        Ok(values.to_vec())
    }

    fn rows(&mut self, name: &'static str, rows: usize, dim: usize) -> Result<Rows> {
        checks::rows(dim)?;
        Ok(Rows { dim, values: crate::cpu::zeros(&self.info.name, name, rows.saturating_mul(dim))? })
    }

    fn routes(&mut self, rows: usize, experts: usize) -> Result<Routes> {
        Ok(Routes::new(rows, experts))
    }

    fn cache(&mut self, layers: usize, heads: Heads, kv: KvType) -> Result<Cache> {
        checks::heads("cache", heads)?;
        Ok(Cache { heads, kv, keys: vec![Vec::new(); layers], values: vec![Vec::new(); layers], made: 0 })
    }

    fn reserve(&mut self, cache: &mut Cache, pages: usize) -> Result<()> {
        let len = pages * PAGE * cache.heads.kv_dim();
        for side in cache.keys.iter_mut().chain(&mut cache.values) {
            // NaN: a position that is read before it was written shows
            side.resize(len.max(side.len()), f32::NAN);
        }
        cache.made = cache.made.max(pages);
        Ok(())
    }

    fn page_bytes(&self, cache: &Cache) -> u64 {
        (cache.keys.len() * 2 * PAGE * cache.heads.kv_dim() * 4) as u64
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.pass.begin(batch);
        Ok(())
    }

    fn embed(&mut self, table: &Matrix, scale: f32, out: &mut Rows) -> Result<()> {
        self.pass.embed(table.shape(), table.role, 0, out.shape())?;
        for (out, &token) in out.values.chunks_exact_mut(table.cols).zip(self.pass.batch.tokens()) {
            let row = &table.values[token as usize * table.cols..][..table.cols];
            out.iter_mut().zip(row).for_each(|(out, v)| *out = scale * v);
        }
        Ok(())
    }

    fn write(&mut self, x: &mut Rows, first: usize, values: &[f32]) -> Result<()> {
        self.pass.write(x.shape(), first, values.len())?;
        x.values[first * x.dim..][..values.len()].copy_from_slice(values);
        Ok(())
    }

    fn norm(&mut self, x: &Rows, norm: Norm<'_, Self>, out: &mut Rows) -> Result<()> {
        self.pass.norm(x.shape(), norm.vectors().map(Vec::len), out.shape())?;
        for (x, out) in x.values.chunks_exact(x.dim).zip(out.values.chunks_exact_mut(x.dim)).take(self.pass.rows) {
            let y = normed(x, norm);
            out.iter_mut().zip(y).for_each(|(o, v)| *o = v as f32);
        }
        Ok(())
    }

    fn project(
        &mut self,
        x: &Rows,
        norm: Option<Norm<'_, Self>>,
        weight: &Matrix,
        epilogue: Epilogue,
        out: &mut Rows,
    ) -> Result<()> {
        let norms = norm.into_iter().flat_map(Norm::vectors).map(Vec::len);
        let width = self.pass.project(x.shape(), norms, weight.shape(), weight.role, epilogue, out.shape())?;
        let y = self.product(x, norm, weight);
        for (y, out) in y.chunks_exact(weight.rows).zip(out.values.chunks_exact_mut(width)) {
            for (i, out) in out.iter_mut().enumerate() {
                let up = if epilogue.activation.is_gated() { y[width + i] } else { 0.0 };
                let result = f64::from(epilogue.scale) * epilogue.activation.reference(y[i], up);
                *out = match epilogue.store {
                    Store::Overwrite => result as f32,
                    Store::Accumulate => (f64::from(*out) + result) as f32,
                };
            }
        }
        Ok(())
    }

    fn route(&mut self, scores: &Rows, router: Router, routes: &mut Routes) -> Result<()> {
        self.pass.route(scores.shape(), routes.shape())?;
        routes.route(&scores.values[..self.pass.rows * scores.dim], router);
        Ok(())
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
        let width = self.pass.project_experts(x.shape(), of, activation, routed, out.shape())?;
        for (&(row, route), out) in routes.pairs.iter().zip(out.values.chunks_exact_mut(width)) {
            let y = expert(weight, routes, route, &x.values[row * x.dim..][..x.dim]);
            for (i, out) in out.iter_mut().enumerate() {
                *out = activation.reference(y[i], if activation.is_gated() { y[width + i] } else { 0.0 }) as f32;
            }
        }
        Ok(())
    }

    fn combine_experts(&mut self, x: &Rows, weight: &Matrix, routes: &Routes, out: &mut Rows) -> Result<()> {
        let (of, routed) = ((weight.shape(), weight.role), routes.shape());
        let width = self.pass.combine_experts(x.shape(), of, routed, out.shape())?;
        for (&(row, route), x) in routes.pairs.iter().zip(x.values.chunks_exact(x.dim)) {
            let y = expert(weight, routes, route, x);
            for (out, y) in out.values[row * width..][..width].iter_mut().zip(y) {
                *out = (f64::from(*out) + f64::from(route.weight) * y) as f32;
            }
        }
        Ok(())
    }

    fn project_qkv(
        &mut self,
        x: &Rows,
        norm: Option<Norm<'_, Self>>,
        weights: &[&Matrix],
        q: &mut Rows,
        cache: &mut Cache,
        layer: usize,
    ) -> Result<()> {
        let target = (cache.shape(), layer);
        let norms = norm.into_iter().flat_map(Norm::vectors).map(Vec::len);
        self.pass.project_qkv(x.shape(), norms, weights.iter().map(|w| (w.shape(), w.role)), q.shape(), target)?;
        let heads = cache.heads;
        let parts: Vec<Vec<f64>> = weights.iter().map(|weight| self.product(x, norm, weight)).collect();
        let half = heads.rotary_dim / 2;
        let width = heads.qkv_dim();
        let mut y = Vec::with_capacity(self.pass.rows * width);
        for r in 0..self.pass.rows {
            for (part, weight) in parts.iter().zip(weights) {
                y.extend_from_slice(&part[r * weight.rows..][..weight.rows]);
            }
        }
        for (r, y) in y.chunks_exact_mut(width).enumerate() {
            let turn = &self.pass.batch.rope()[r * half * 2..][..half * 2];
            for head in y[..heads.q_dim() + heads.kv_dim()].chunks_exact_mut(heads.head_dim) {
                for i in 0..half {
                    let (cos, sin) = (f64::from(turn[2 * i]), f64::from(turn[2 * i + 1]));
                    let (a, b) = (head[i], head[half + i]);
                    head[i] = a * cos - b * sin;
                    head[half + i] = b * cos + a * sin;
                }
            }
        }
        let (q_dim, kv_dim) = (heads.q_dim(), heads.kv_dim());
        for segment in self.pass.batch.segments() {
            let pages = &self.pass.batch.pages()[segment.pages.clone()];
            for (i, r) in segment.rows.clone().enumerate() {
                let mut y: Vec<f32> = y[r * width..][..width].iter().map(|&v| v as f32).collect();
                let (keys, values) = y[q_dim..].split_at_mut(kv_dim);
                keys.chunks_exact_mut(heads.head_dim).for_each(|head| held(cache.kv, head, |i| heads.key_block(i)));
                values.chunks_exact_mut(heads.head_dim).for_each(|head| held(cache.kv, head, |i| i / KvType::BLOCK));
                q.values[r * q_dim..][..q_dim].copy_from_slice(&y[..q_dim]);
                let position = segment.position + i;
                let at = (pages[position / PAGE] as usize * PAGE + position % PAGE) * kv_dim;
                cache.keys[layer][at..][..kv_dim].copy_from_slice(&y[q_dim..][..kv_dim]);
                cache.values[layer][at..][..kv_dim].copy_from_slice(&y[q_dim + kv_dim..]);
            }
        }
        Ok(())
    }

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
        let heads = cache.heads;
        let (d, kv_dim) = (heads.head_dim, heads.kv_dim());
        for segment in self.pass.batch.segments() {
            let pages = &self.pass.batch.pages()[segment.pages.clone()];
            let at = |position: usize| (pages[position / PAGE] as usize * PAGE + position % PAGE) * kv_dim;
            for (i, r) in segment.rows.clone().enumerate() {
                let last = segment.position + i;
                for h in 0..heads.heads {
                    let kv = h * heads.kv_heads / heads.heads * d;
                    let q = &q.values[r * heads.q_dim() + h * d..][..d];
                    let dot = |k: &[f32]| q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>();
                    let seen: Vec<usize> = (0..Batch::end(segment)).filter(|&p| mask.sees(h, last, p)).collect();
                    let scores: Vec<f64> =
                        seen.iter().map(|&p| f64::from(scale) * dot(&cache.keys[layer][at(p) + kv..][..d])).collect();
                    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    for j in 0..d {
                        let v = |p: usize| f64::from(cache.values[layer][at(p) + kv + j]);
                        let y: f64 = weights.iter().zip(&seen).map(|(w, &p)| w * v(p)).sum();
                        out.values[r * heads.q_dim() + h * d + j] = (y / sum) as f32;
                    }
                }
            }
        }
        Ok(())
    }

    fn select(&mut self, x: &Rows, first: usize, count: usize, out: &mut Rows) -> Result<()> {
        self.pass.select(x.shape(), first, count, out.shape())?;
        for (i, &row) in self.pass.batch.outputs()[first..first + count].iter().enumerate() {
            out.values[i * x.dim..][..x.dim].copy_from_slice(&x.values[row as usize * x.dim..][..x.dim]);
        }
        Ok(())
    }

    fn read(&mut self, x: &Rows, out: &mut [f32]) -> Result<()> {
        checks::read(x.shape(), out.len())?;
        out.copy_from_slice(&x.values[..out.len()]);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The token that a choice gives in exact arithmetic, or nearly; [`Batch::NO_TOKEN`] where a logit is not finite.
pub fn choose(logits: &[f32], choice: Choice) -> u32 {
    if logits.iter().any(|logit| !logit.is_finite()) {
        return Batch::NO_TOKEN;
    }
    // by falling logit, of equals the first one first
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap_or(std::cmp::Ordering::Equal).then(a.cmp(&b)));
    let Choice::Drawn { temperature, top_k, top_p, min_p, draw } = choice else { return order[0] as u32 };
    let largest = f64::from(logits[order[0]]);
    let weight = |token: usize| ((f64::from(logits[token]) - largest) / f64::from(temperature)).exp();

    if let Some(least) = (top_k as usize).checked_sub(1).and_then(|k| order.get(k)) {
        let least = logits[*least];
        order.retain(|&token| logits[token] >= least);
    }
    // what is equal in single precision counts as equal
    order.sort_by(|&a, &b| (weight(b) as f32).total_cmp(&(weight(a) as f32)).then(a.cmp(&b)));
    let mut budget = (1.0 - f64::from(top_p)) * order.iter().map(|&token| weight(token)).sum::<f64>();
    while let Some(&last) = order.last()
        && top_p < 1.0
        && weight(last) <= budget
        && order.len() > 1
    {
        budget -= weight(last);
        order.pop();
    }
    order.retain(|&token| weight(token) >= f64::from(min_p));
    order.sort_unstable();
    let mut left = f64::from(draw) / 4_294_967_296.0 * order.iter().map(|&token| weight(token)).sum::<f64>();
    let chosen = order.iter().find(|&&token| {
        left -= weight(token);
        left < 0.0
    });
    *chosen.or(order.last()).unwrap_or(&0) as u32
}
