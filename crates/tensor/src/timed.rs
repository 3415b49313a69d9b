//! Any machine, with a stopwatch at every operation.

use crate::{
    Activation, Backend, Batch, Clock, DType, DeviceInfo, Epilogue, Error, Expected, Footprint, Heads, KvType, Limits,
    Mask, Norm, Result, Role, Router, TOP_EXPERTS, Weight,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// An operation of a model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Label {
    /// What it does: an operation's name, or that of the weight that it multiplies with.
    pub op: String,
    /// The layer, where it belongs to one.
    pub layer: Option<usize>,
    /// Bytes of weights that it reads.
    pub bytes: u64,
    /// Values of these weights.
    pub values: u64,
}

/// What a pass took.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// Rows, that is tokens.
    pub rows: usize,
    /// Labels by number, and seconds, in the order in which they ran.
    pub spans: Vec<(usize, f64)>,
    /// Seconds from its beginning to the result's being there, on the host's clock.
    pub seconds: f64,
}

/// What all passes took.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Operations.
    pub labels: Vec<Label>,
    /// Passes that have ended.
    pub passes: Vec<Pass>,
}

/// A backend that writes down how long every operation takes.
///
/// It chooses no tokens, so that every pass ends with logits on the host.
pub struct Timed<B: Backend> {
    inner: B,
    trace: Arc<Mutex<Trace>>,
    numbers: HashMap<Label, usize>,
    pass: Pass,
    began: Option<Instant>,
}

/// A weight matrix with its label's number.
pub struct Labelled<M> {
    inner: M,
    label: usize,
}

impl<B: Backend> Timed<B> {
    /// A backend with a stopwatch, and where the times will stand.
    pub fn new(inner: B) -> (Self, Arc<Mutex<Trace>>) {
        let trace = Arc::new(Mutex::new(Trace::default()));
        let timed = Self { inner, trace: trace.clone(), numbers: HashMap::new(), pass: Pass::default(), began: None };
        (timed, trace)
    }

    /// The number of an operation without weights.
    fn plain(&mut self, op: &str, layer: Option<usize>) -> usize {
        self.label(Label { op: op.to_owned(), layer, bytes: 0, values: 0 })
    }

    fn label(&mut self, label: Label) -> usize {
        if let Some(number) = self.numbers.get(&label) {
            return *number;
        }
        let mut trace = locked(&self.trace);
        trace.labels.push(label.clone());
        self.numbers.insert(label, trace.labels.len() - 1);
        trace.labels.len() - 1
    }

    /// Ends an operation.
    fn lap(&mut self, label: usize) -> Result<()> {
        self.pass.spans.push((label, 0.0));
        self.inner.mark()
    }

    /// Ends a pass: its times come back.
    fn end(&mut self) -> Result<()> {
        let Some(began) = self.began.take() else { return Ok(()) };
        let intervals = self.inner.marked()?;
        let seconds = began.elapsed().as_secs_f64();
        let mut pass = std::mem::take(&mut self.pass);
        if intervals.len() != pass.spans.len() {
            let (expected, found) = (Expected::Exactly(pass.spans.len()), intervals.len());
            return Err(Error::Mismatch { op: "marked", what: "intervals", expected, found });
        }
        pass.spans.iter_mut().zip(intervals).for_each(|(span, interval)| span.1 = interval);
        pass.seconds = seconds;
        if !pass.spans.is_empty() {
            locked(&self.trace).passes.push(pass);
        }
        Ok(())
    }
}

/// A weight's own name and its layer: of `model.layers.3.mlp.down_proj.weight`, `mlp.down_proj` and 3.
fn named(name: &str) -> (String, Option<usize>) {
    let name = name.strip_suffix(".weight").unwrap_or(name);
    let parts: Vec<&str> = name.split('.').collect();
    match parts.iter().position(|part| part.parse::<usize>().is_ok()) {
        Some(at) => (parts[at + 1..].join("."), parts[at].parse().ok()),
        None => (parts.last().copied().unwrap_or_default().to_owned(), None),
    }
}

impl<B: Backend> Backend for Timed<B> {
    type Matrix = Labelled<B::Matrix>;
    type Vector = B::Vector;
    type Rows = B::Rows;
    type Routes = B::Routes;
    type Cache = B::Cache;

    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }

    fn matrix(&mut self, weight: &Weight, role: Role) -> Result<Self::Matrix> {
        let (op, layer) = named(&weight.name);
        // of experts, those that one row goes to
        let (part, whole) = match role {
            Role::Experts { count, .. } => (TOP_EXPERTS.min(count) as u64, count.max(1) as u64),
            _ => (1, 1),
        };
        let (bytes, values) = (weight.size() as u64 * part / whole, (weight.rows * weight.cols) as u64 * part / whole);
        let label = self.label(Label { op, layer, bytes, values });
        Ok(Labelled { inner: self.inner.matrix(weight, role)?, label })
    }

    fn footprint(&self, name: &str, dtype: DType, rows: usize, cols: usize, role: Role) -> Result<Footprint> {
        self.inner.footprint(name, dtype, rows, cols, role)
    }

    fn vector(&mut self, name: &str, values: &[f32]) -> Result<B::Vector> {
        self.inner.vector(name, values)
    }

    fn rows(&mut self, name: &'static str, rows: usize, dim: usize) -> Result<B::Rows> {
        self.inner.rows(name, rows, dim)
    }

    fn cache(&mut self, layers: usize, heads: Heads, kv: KvType) -> Result<B::Cache> {
        self.inner.cache(layers, heads, kv)
    }

    fn reserve(&mut self, cache: &mut B::Cache, pages: usize) -> Result<()> {
        self.inner.reserve(cache, pages)
    }

    fn prepare(&mut self, cache: &mut B::Cache, pages: usize) -> Result<()> {
        self.inner.prepare(cache, pages)
    }

    fn page_bytes(&self, cache: &B::Cache) -> u64 {
        self.inner.page_bytes(cache)
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.end()?;
        self.began = Some(Instant::now());
        self.pass.rows = batch.rows();
        self.inner.begin(batch)?;
        self.inner.mark()
    }

    fn embed(&mut self, table: &Self::Matrix, scale: f32, out: &mut B::Rows) -> Result<()> {
        self.inner.embed(&table.inner, scale, out)?;
        let label = self.plain("embed", None);
        self.lap(label)
    }

    fn write(&mut self, x: &mut B::Rows, first: usize, values: &[f32]) -> Result<()> {
        self.inner.write(x, first, values)?;
        let label = self.plain("write", None);
        self.lap(label)
    }

    fn norm(&mut self, x: &B::Rows, norm: Norm<'_, Self>, out: &mut B::Rows) -> Result<()> {
        self.inner.norm(x, plain(norm), out)?;
        let label = self.plain("norm", None);
        self.lap(label)
    }

    fn project(
        &mut self,
        x: &B::Rows,
        norm: Option<Norm<'_, Self>>,
        weight: &Self::Matrix,
        epilogue: Epilogue,
        out: &mut B::Rows,
    ) -> Result<()> {
        self.inner.project(x, norm.map(plain), &weight.inner, epilogue, out)?;
        self.lap(weight.label)
    }

    fn routes(&mut self, rows: usize, experts: usize) -> Result<B::Routes> {
        self.inner.routes(rows, experts)
    }

    fn route(&mut self, scores: &B::Rows, router: Router, routes: &mut B::Routes) -> Result<()> {
        self.inner.route(scores, router, routes)?;
        let label = self.plain("route", None);
        self.lap(label)
    }

    fn project_experts(
        &mut self,
        x: &B::Rows,
        weight: &Self::Matrix,
        activation: Activation,
        routes: &B::Routes,
        out: &mut B::Rows,
    ) -> Result<()> {
        self.inner.project_experts(x, &weight.inner, activation, routes, out)?;
        self.lap(weight.label)
    }

    fn combine_experts(
        &mut self,
        x: &B::Rows,
        weight: &Self::Matrix,
        routes: &B::Routes,
        out: &mut B::Rows,
    ) -> Result<()> {
        self.inner.combine_experts(x, &weight.inner, routes, out)?;
        self.lap(weight.label)
    }

    fn project_qkv(
        &mut self,
        x: &B::Rows,
        norm: Option<Norm<'_, Self>>,
        weights: &[&Self::Matrix],
        q: &mut B::Rows,
        cache: &mut B::Cache,
        layer: usize,
    ) -> Result<()> {
        let inner: Vec<&B::Matrix> = weights.iter().map(|weight| &weight.inner).collect();
        self.inner.project_qkv(x, norm.map(plain), &inner, q, cache, layer)?;
        // parts have one label
        weights.first().map_or(Ok(()), |weight| self.lap(weight.label))
    }

    fn attention(
        &mut self,
        q: &B::Rows,
        cache: &B::Cache,
        layer: usize,
        mask: Mask,
        scale: f32,
        out: &mut B::Rows,
    ) -> Result<()> {
        self.inner.attention(q, cache, layer, mask, scale, out)?;
        let label = self.plain("attention", Some(layer));
        self.lap(label)
    }

    fn select(&mut self, x: &B::Rows, first: usize, count: usize, out: &mut B::Rows) -> Result<()> {
        self.inner.select(x, first, count, out)?;
        let label = self.plain("select", None);
        self.lap(label)
    }

    fn read(&mut self, x: &B::Rows, out: &mut [f32]) -> Result<()> {
        self.inner.read(x, out)?;
        self.end()?;
        // more may follow in this pass
        self.began = Some(Instant::now());
        self.inner.mark()
    }

    fn finish(&mut self) -> Result<()> {
        self.inner.finish()
    }

    fn clock(&self) -> Clock {
        self.inner.clock()
    }

    fn limits(&mut self) -> Result<Limits> {
        self.inner.limits()
    }
}

fn plain<B: Backend>(norm: Norm<'_, Timed<B>>) -> Norm<'_, B> {
    match norm {
        Norm::Rms { weight, eps } => Norm::Rms { weight, eps },
        Norm::Layer { weight, bias, eps } => Norm::Layer { weight, bias, eps },
    }
}

fn locked(trace: &Mutex<Trace>) -> MutexGuard<'_, Trace> {
    trace.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_the_operation() {
        assert_eq!(named("model.layers.3.mlp.down_proj.weight"), ("mlp.down_proj".into(), Some(3)));
        assert_eq!(named("lm_head.weight"), ("lm_head".into(), None));
        assert_eq!(named("model.embed_tokens.weight"), ("embed_tokens".into(), None));
    }
}
