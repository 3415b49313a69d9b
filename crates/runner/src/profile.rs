//! Where the time of a prompt and of a generated token goes, operation by operation.

mod flame;

pub use flame::flame;

use crate::device::Visit;
use crate::{Result, Setup, memory};
use phi3_model::{Advance, Checkpoint, Decoder, Model, Outputs, RopePolicy, Sequence, Step, advance};
use phi3_tensor::{Backend, Clock, Label, Limits, Timed, Trace};
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

/// What is timed.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens after it, one by one.
    pub generated: usize,
}

/// An operation of a phase.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it is.
    pub label: Label,
    /// Times that it ran.
    pub calls: usize,
    /// Seconds of all of them.
    pub seconds: f64,
}

/// All passes over the prompt, or over the tokens after it.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    /// Tokens of all passes.
    pub tokens: usize,
    /// Passes.
    pub passes: usize,
    /// Seconds of all passes on the host's clock; what the parts lack is the host's own work and waiting.
    pub seconds: f64,
    /// Operations of each layer, in the order in which they ran first.
    pub parts: Vec<Part>,
}

impl Phase {
    /// Seconds of all parts.
    pub fn inside(&self) -> f64 {
        self.parts.iter().map(|part| part.seconds).sum()
    }

    /// The parts of all layers together, in the order in which they ran first.
    pub fn by_op(&self) -> Vec<Part> {
        let mut all: Vec<Part> = Vec::new();
        for part in &self.parts {
            match all.iter_mut().find(|known| known.label.op == part.label.op) {
                Some(known) => {
                    known.calls += part.calls;
                    known.seconds += part.seconds;
                    known.label.bytes += part.label.bytes;
                }
                None => all.push(Part { label: Label { layer: None, ..part.label.clone() }, ..part.clone() }),
            }
        }
        all
    }

    fn of(trace: &Trace, passes: std::ops::Range<usize>) -> Self {
        let mut phase = Phase { passes: passes.len(), ..Phase::default() };
        let mut places = vec![None; trace.labels.len()];
        for pass in trace.passes.get(passes).unwrap_or_default() {
            phase.tokens += pass.rows;
            phase.seconds += pass.seconds;
            for &(label, seconds) in &pass.spans {
                let place = *places[label].get_or_insert_with(|| {
                    phase.parts.push(Part { label: trace.labels[label].clone(), calls: 0, seconds: 0.0 });
                    phase.parts.len() - 1
                });
                phase.parts[place].calls += 1;
                phase.parts[place].seconds += seconds;
            }
        }
        phase
    }
}

/// Where the time went.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The machine.
    pub device: String,
    /// What the times are taken from.
    pub clock: Clock,
    /// What the machine can do at best.
    pub limits: Limits,
    /// The prompt's passes.
    pub prompt: Phase,
    /// The passes of one token each.
    pub decode: Phase,
}

/// Loads a model and times its operations; tokens are arbitrary. `watch` is asked between passes, and may break off: then
/// there is no result.
///
/// # Errors
///
/// More tokens than the model's context, and what the device reports.
pub fn profile(
    setup: &Setup,
    checkpoint: &Checkpoint,
    plan: Plan,
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Option<Profile>> {
    setup.visit(Profiling { setup, checkpoint, plan, watch })
}

struct Profiling<'a> {
    setup: &'a Setup,
    checkpoint: &'a Checkpoint,
    plan: Plan,
    watch: &'a mut dyn FnMut() -> ControlFlow<()>,
}

impl Visit for Profiling<'_> {
    type Output = Option<Profile>;

    fn visit<B: Backend>(self, mut backend: B) -> Result<Option<Profile>> {
        let Self { setup, checkpoint, plan, watch } = self;
        phi3_model::check_length(checkpoint.config(), plan.prompt + plan.generated)?;
        let needed = phi3_model::plan(&mut backend, checkpoint, setup.decoder())?;
        memory::check(setup, checkpoint, &needed, backend.info())?;
        let limits = backend.limits()?;
        let (device, clock) = (backend.info().to_string(), backend.clock());
        let (timed, trace) = Timed::new(backend);
        let mut model = Decoder::load(timed, checkpoint, setup.decoder(), &mut |_| {})?;
        let mut run = Run { sequence: model.sequence(), model: &mut model, watch, logits: Vec::new() };
        // kernels are compiled and memory is touched
        if !run.all(plan)? {
            return Ok(None);
        }
        run.sequence.clear();
        let before = passes(&trace);
        let done = run.feed(plan.prompt)?;
        let between = passes(&trace);
        for _ in 0..if done { plan.generated } else { 0 } {
            if !run.feed(1)? {
                return Ok(None);
            }
        }
        let trace = trace.lock().unwrap_or_else(PoisonError::into_inner);
        let (prompt, decode) = (Phase::of(&trace, before..between), Phase::of(&trace, between..trace.passes.len()));
        Ok(done.then_some(Profile { device, clock, limits, prompt, decode }))
    }
}

fn passes(trace: &Mutex<Trace>) -> usize {
    trace.lock().unwrap_or_else(PoisonError::into_inner).passes.len()
}

struct Run<'a> {
    model: &'a mut dyn Model,
    sequence: Sequence,
    watch: &'a mut dyn FnMut() -> ControlFlow<()>,
    logits: Vec<f32>,
}

impl Run<'_> {
    /// Whether everything was computed.
    fn all(&mut self, plan: Plan) -> Result<bool> {
        Ok(self.feed(plan.prompt)? && self.feed(plan.generated.min(1))?)
    }

    fn feed(&mut self, count: usize) -> Result<bool> {
        if count == 0 {
            return Ok((self.watch)().is_continue());
        }
        let vocab = self.model.config().vocab_size;
        let tokens: Vec<u32> = (0..count).map(|i| ((i * 53 + 7) % vocab.max(1)) as u32).collect();
        let settings = Advance { chunk: usize::MAX, policy: RopePolicy::Ahead, budget: count, outputs: Outputs::Last };
        let Self { model, sequence, watch, logits } = self;
        let mut stopped = false;
        let step = &mut |_: Step| {
            let flow = watch();
            stopped |= flow.is_break();
            flow
        };
        advance(*model, sequence, &tokens, settings, logits, None, step)?;
        Ok(!stopped)
    }
}
