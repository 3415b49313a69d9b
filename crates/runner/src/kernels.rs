//! Benchmarks of single decoder operations at a variant's shapes: times, and shares of the device's peak rates.
//!
//! `phi3-run bench kernels` and `cargo bench` both take their cases from [`Case`].

mod case;
mod cost;

pub use case::{Case, Timing};
pub use cost::{Cost, ModelShape, Op};

use crate::device::Visit;
use crate::{DeviceOptions, Result};
use phi3_tensor::{Backend, Clock, DType, Limits};
use std::ops::ControlFlow;
use std::time::Duration;

/// An operation, and the type of its weights if it has any.
pub type Kernel = (Op, Option<DType>);

/// Cases to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The model's sizes.
    pub shape: ModelShape,
    /// Operations, and the types of their weights. An operation without weights is listed once, with `None`. Operations that the
    /// model does not have are left out.
    pub kernels: Vec<Kernel>,
    /// Numbers of rows: 1 is a decoded token, more are a prompt or several sequences.
    pub rows: Vec<usize>,
    /// Limits of each case.
    pub effort: Effort,
}

/// Limits of a case.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Most samples.
    pub samples: usize,
    /// Approximate time of all samples together; there is at least one sample.
    pub time: Duration,
}

/// A device and its peak rates.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its name and kernels.
    pub device: String,
    /// Clock of the times.
    pub clock: Clock,
    /// Its peak rates.
    pub limits: Limits,
}

/// Result of a case.
#[derive(Debug)]
pub struct Row {
    /// The operation.
    pub op: Op,
    /// Type of its main input: weights, keys and values, or activations.
    pub kind: &'static str,
    /// Rows.
    pub rows: usize,
    /// Bytes and arithmetic that it needs.
    pub work: Cost,
    /// Copies of its weights or cache, which are used in turn.
    pub copies: usize,
    /// Its time, or why it could not be measured.
    pub timing: std::result::Result<Timing, String>,
}

/// The peak rate that bounds an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Bytes read and written per second.
    Memory,
    /// Multiplications and additions per second.
    Rate,
}

impl Bound {
    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Bound::Memory => "memory",
            Bound::Rate => "rate",
        }
    }
}

/// Speed of a case, absolute and as a share of the device's peak rates.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Bytes per second.
    pub bandwidth: f64,
    /// Multiplications and additions per second; absent for an operation that has none.
    pub rate: Option<f64>,
    /// Per cent of the device's bandwidth.
    pub of_bandwidth: f64,
    /// Per cent of the device's rate.
    pub of_rate: Option<f64>,
    /// The bound: the larger of the two shares.
    pub bound: Bound,
}

impl Row {
    /// Its speed; `None` if it could not be measured.
    pub fn speed(&self, limits: Limits) -> Option<Speed> {
        let seconds = self.timing.as_ref().ok()?.seconds.max(1e-12);
        let bandwidth = self.work.bytes / seconds;
        let rate = (self.work.flops > 0.0).then(|| self.work.flops / seconds);
        let of_bandwidth = 100.0 * bandwidth / limits.bandwidth;
        let of_rate = rate.map(|rate| 100.0 * rate / limits.rate);
        let bound = if of_rate.is_some_and(|of| of > of_bandwidth) { Bound::Rate } else { Bound::Memory };
        Some(Speed { bandwidth, rate, of_bandwidth, of_rate, bound })
    }
}

/// Opens the device, measures its peak rates, then every case. `each` is called with each row when it is ready, and may cancel. A
/// case that cannot be measured has a row too.
///
/// # Errors
///
/// A device that cannot be opened or measured, and those of `each`.
pub fn measure(
    device_options: &DeviceOptions,
    plan: &Plan,
    each: &mut dyn FnMut(&Machine, Row) -> Result<ControlFlow<()>>,
) -> Result<()> {
    device_options.visit(Measuring { plan, each })
}

struct Measuring<'a> {
    plan: &'a Plan,
    each: &'a mut dyn FnMut(&Machine, Row) -> Result<ControlFlow<()>>,
}

impl Visit for Measuring<'_> {
    type Output = ();

    fn visit<B: Backend>(self, mut backend: B) -> Result<()> {
        let Self { plan, each } = self;
        let limits = backend.limits()?;
        let machine = Machine { device: backend.info().to_string(), clock: backend.clock(), limits };
        for &(op, dtype) in plan.kernels.iter().filter(|(op, _)| op.is_of(&plan.shape.spec)) {
            let rows: Vec<usize> = plan.rows.iter().copied().filter(|&rows| op.takes(rows)).collect();
            if rows.is_empty() {
                continue;
            }
            let kind = dtype.map_or_else(|| plan.shape.kind(op), DType::name);
            let longest = rows.iter().copied().max().unwrap_or(1);
            let mut case = Case::new(&mut backend, &plan.shape, op, dtype, longest);
            for rows in rows {
                let work = plan.shape.work(op, dtype, rows);
                let (copies, timing) = match &mut case {
                    Ok(case) => (case.copies(), case.time(&mut backend, rows, plan.effort).map_err(|e| e.to_string())),
                    Err(error) => (0, Err(error.to_string())),
                };
                if each(&machine, Row { op, kind, rows, work, copies, timing })?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
