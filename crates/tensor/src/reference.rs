//! A backend of plain loops with sums in f64, on one thread: the specification of the operations. For tests and diagnosis only.
//!
//! Its operations are in the `reference.rs` of each module of [`ops`](crate::ops).

use crate::checks::{self, ActivePass, CacheShape, Shape};
use crate::ops::experts::Routes;
use crate::{Batch, Device, DeviceInfo, DeviceKind, Heads, KvType, Norm, PAGE, Readback, Result, Role, Weight};
use std::ops::Range;

/// The reference backend.
pub struct Reference {
    info: DeviceInfo,
    pub(crate) pass: ActivePass,
    /// Sampled tokens, by slot.
    pub(crate) sampled: Vec<u32>,
}

/// A matrix, widened.
pub struct Matrix {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) values: Vec<f32>,
    pub(crate) bias: Option<Vec<f32>>,
    pub(crate) role: Role,
}

/// Activations `[rows, dim]`.
pub struct Rows {
    pub(crate) dim: usize,
    pub(crate) values: Vec<f32>,
}

/// Keys and values, `[layer][page][slot][kv_dim]`.
pub struct Cache {
    pub(crate) heads: Heads,
    pub(crate) kv: KvType,
    pub(crate) keys: Vec<Vec<f32>>,
    pub(crate) values: Vec<Vec<f32>>,
    /// Pages that every layer has.
    pub(crate) made: usize,
}

impl Matrix {
    pub(crate) fn shape(&self) -> Shape {
        Shape { rows: self.rows, cols: self.cols }
    }
}

impl Rows {
    pub(crate) fn shape(&self) -> Shape {
        Shape { rows: self.values.len() / self.dim, cols: self.dim }
    }
}

impl Cache {
    pub(crate) fn shape(&self) -> CacheShape {
        CacheShape { heads: self.heads, layers: self.keys.len(), pages: self.made }
    }
}

impl Default for Reference {
    fn default() -> Self {
        let info = DeviceInfo { kind: DeviceKind::Cpu, name: "reference".into(), detail: "f64 loops".into() };
        Self { info, pass: ActivePass::default(), sampled: Vec::new() }
    }
}

/// A normed row, for the norm by itself and in front of projections.
pub(crate) fn normed(x: &[f32], norm: Norm<'_, Reference>) -> Vec<f64> {
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

impl Reference {
    /// `norm(x) wᵀ + bias` of the rows of the pass.
    pub(crate) fn product(&self, x: &Rows, norm: Option<Norm<'_, Self>>, weight: &Matrix) -> Vec<f64> {
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

impl Device for Reference {
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
            // NaN shows a read of a position that was not written
            side.resize(len.max(side.len()), f32::NAN);
        }
        cache.made = cache.made.max(pages);
        Ok(())
    }

    fn copy_pages(&mut self, cache: &mut Cache, pairs: &[(u32, u32)]) -> Result<()> {
        checks::copy_pages(cache.shape(), pairs)?;
        let len = PAGE * cache.heads.kv_dim();
        for side in cache.keys.iter_mut().chain(&mut cache.values) {
            for &(from, to) in pairs {
                side.copy_within(from as usize * len..(from as usize + 1) * len, to as usize * len);
            }
        }
        Ok(())
    }

    fn page_bytes(&self, cache: &Cache) -> u64 {
        (cache.keys.len() * 2 * PAGE * cache.heads.kv_dim() * 4) as u64
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.pass.begin(batch);
        Ok(())
    }

    fn read(&mut self, x: &Rows, out: &mut [f32]) -> Result<()> {
        checks::read(x.shape(), out.len())?;
        out.copy_from_slice(&x.values[..out.len()]);
        Ok(())
    }

    fn read_back(&mut self, x: &Rows, rows: Range<usize>) -> Result<Readback<Vec<f32>>> {
        checks::read_back(x.shape(), &rows)?;
        Ok(Readback::complete(x.values[rows.start * x.dim..rows.end * x.dim].to_vec()))
    }

    fn submit(&mut self) -> Result<()> {
        Ok(())
    }
}
