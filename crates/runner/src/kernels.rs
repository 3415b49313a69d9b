//! Every operation of a decoder by itself, at a variant's shapes: how long it takes, and what part of the machine's best that
//! is.
//!
//! The cases are here and nowhere else: `phi3-run bench kernels` and `cargo bench` both take them from [`Case`].

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

/// What is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The model's sizes.
    pub shape: ModelShape,
    /// Operations, and the types of their weights; an operation without weights stands there once, with none. Operations that the
    /// model does not have are left out.
    pub kernels: Vec<Kernel>,
    /// Numbers of rows: 1 is a decoded token, more are a prompt or several sequences.
    pub rows: Vec<usize>,
    /// How long each case may take.
    pub effort: Effort,
}

/// How long a case may take.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Samples, at most.
    pub samples: usize,
    /// Time of all samples together, about; there is always one.
    pub time: Duration,
}

/// What a machine is, and what it can do.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its name and kernels.
    pub device: String,
    /// What times are taken from.
    pub clock: Clock,
    /// What it can do at best.
    pub limits: Limits,
}

/// A case, and what it gave.
#[derive(Debug)]
pub struct Row {
    /// The operation.
    pub op: Op,
    /// Type of what it reads most of: weights, or keys and values.
    pub kind: &'static str,
    /// Rows.
    pub rows: usize,
    /// What it has to do.
    pub work: Cost,
    /// Copies of what is read, which are taken in turn.
    pub copies: usize,
    /// How long it took, or why it could not be measured.
    pub timing: std::result::Result<Timing, String>,
}

/// What bounds an operation on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Bytes that are read and written.
    Memory,
    /// Multiplications and additions.
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

/// Speed of a case, and what part of the machine's best that is.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Bytes per second.
    pub bandwidth: f64,
    /// Multiplications and additions per second; absent of an operation that has none.
    pub rate: Option<f64>,
    /// Per cent of the machine's bandwidth.
    pub of_bandwidth: f64,
    /// Per cent of the machine's rate.
    pub of_rate: Option<f64>,
    /// Which of the two bounds it.
    pub bound: Bound,
}

impl Row {
    /// How fast it was, where it was measured.
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

/// Opens the machine, measures what it can do, then every case; `each` is shown each row as it is there, and may break off.
/// What cannot be measured is a row too.
///
/// # Errors
///
/// A machine that cannot be opened or measured, and those of `each`.
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
            if rows.is_empty() || (op.is_sampling() && backend.pipeline_depth() == 0) {
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
