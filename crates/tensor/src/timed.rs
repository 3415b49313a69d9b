//! A backend that times every operation of another one.

use crate::{
    Batch, Clock, DType, Device, DeviceInfo, Error, Expected, Footprint, Heads, KvType, Limits, Readback, Result, Role,
    TOP_EXPERTS, Weight,
};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// An operation of a model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Label {
    /// Name of the operation, or of its weight.
    pub op: String,
    /// The layer, for an operation of a layer.
    pub layer: Option<usize>,
    /// Bytes of weights that the operation reads.
    pub bytes: u64,
    /// Number of these weights.
    pub values: u64,
}

/// Times of a pass.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// Rows, that is tokens.
    pub rows: usize,
    /// Labels by number, and seconds, in the order in which they ran.
    pub spans: Vec<(usize, f64)>,
    /// Seconds from the beginning of the pass until its result is on the host, by the host's clock.
    pub seconds: f64,
}

/// Times of all passes.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Operations.
    pub labels: Vec<Label>,
    /// Passes that have ended.
    pub passes: Vec<Pass>,
}

/// A backend that records the time of every operation of another one.
///
/// A pass ends when its logits are read or its tokens are sampled; passes do not overlap.
pub struct Timed<B: Device> {
    pub(crate) inner: B,
    trace: Arc<Mutex<Trace>>,
    numbers: HashMap<Label, usize>,
    pass: Pass,
    began: Option<Instant>,
}

/// A weight matrix with its label's number.
pub struct Labelled<M> {
    pub(crate) inner: M,
    pub(crate) label: usize,
}

impl<B: Device> Timed<B> {
    /// The timed backend, and its trace.
    pub fn new(inner: B) -> (Self, Arc<Mutex<Trace>>) {
        let trace = Arc::new(Mutex::new(Trace::default()));
        let timed = Self { inner, trace: trace.clone(), numbers: HashMap::new(), pass: Pass::default(), began: None };
        (timed, trace)
    }

    /// Ends an operation without weights.
    pub(crate) fn lap_of(&mut self, op: &str, layer: Option<usize>) -> Result<()> {
        let label = self.label(Label { op: op.to_owned(), layer, bytes: 0, values: 0 });
        self.lap(label)
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

    /// Ends an operation with the number of its label.
    pub(crate) fn lap(&mut self, label: usize) -> Result<()> {
        self.pass.spans.push((label, 0.0));
        self.inner.timestamp()
    }

    /// Ends a pass and reads its times.
    pub(crate) fn end(&mut self) -> Result<()> {
        let Some(began) = self.began.take() else { return Ok(()) };
        let intervals = self.inner.elapsed()?;
        let seconds = began.elapsed().as_secs_f64();
        let mut pass = std::mem::take(&mut self.pass);
        if intervals.len() != pass.spans.len() {
            let (expected, found) = (Expected::Exactly(pass.spans.len()), intervals.len());
            return Err(Error::Mismatch { op: "elapsed", what: "intervals", expected, found });
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

impl<B: Device> Device for Timed<B> {
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
        // of the experts, those that one row uses
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

    fn reserve_hint(&mut self, cache: &mut B::Cache, pages: usize) -> Result<()> {
        self.inner.reserve_hint(cache, pages)
    }

    fn copy_pages(&mut self, cache: &mut B::Cache, pairs: &[(u32, u32)]) -> Result<()> {
        self.inner.copy_pages(cache, pairs)
    }

    fn max_pages(&self, cache: &B::Cache) -> usize {
        self.inner.max_pages(cache)
    }

    fn page_bytes(&self, cache: &B::Cache) -> u64 {
        self.inner.page_bytes(cache)
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.end()?;
        self.began = Some(Instant::now());
        self.pass.rows = batch.rows();
        self.inner.begin(batch)?;
        self.inner.timestamp()
    }

    fn routes(&mut self, rows: usize, experts: usize) -> Result<B::Routes> {
        self.inner.routes(rows, experts)
    }

    fn read(&mut self, x: &B::Rows, out: &mut [f32]) -> Result<()> {
        self.inner.read(x, out)?;
        self.end()?;
        // further operations of this pass may follow
        self.began = Some(Instant::now());
        self.inner.timestamp()
    }

    fn read_back(&mut self, x: &B::Rows, rows: Range<usize>) -> Result<Readback<Vec<f32>>> {
        let values = self.inner.read_back(x, rows)?;
        self.end()?;
        Ok(values)
    }

    fn submit(&mut self) -> Result<()> {
        self.inner.submit()
    }

    fn clock(&self) -> Clock {
        self.inner.clock()
    }

    fn limits(&mut self) -> Result<Limits> {
        self.inner.limits()
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
