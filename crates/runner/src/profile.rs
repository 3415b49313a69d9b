//! Profile of a prompt and of generated tokens: times by operation.

mod flame;

pub use flame::flame;

use crate::device::Visit;
use crate::kernels::Bound;
use crate::{DeviceOptions, Result, system_memory};
use phi3_model::{Checkpoint, Decoder, Outputs, PrefillOptions, PrefillProgress, RopePolicy, Sequence, Session};
use phi3_tensor::{Backend, Clock, Label, Limits, Timed, Trace};
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

/// Tokens to time.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens decoded after it, one by one.
    pub generated: usize,
}

/// An operation of a phase.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its name, layer and sizes.
    pub label: Label,
    /// Number of calls.
    pub calls: usize,
    /// Time of all calls, in seconds.
    pub seconds: f64,
    /// Bytes of weights read by all calls.
    pub read: u64,
    /// Multiplications and additions with weights in all calls.
    pub flops: f64,
}

impl Part {
    /// Per cent of the device's peak bandwidth or peak rate, the larger share of the two, and which it is. `None` for a part
    /// without weights.
    pub fn of_limit(&self, limits: Limits) -> Option<(f64, Bound)> {
        let of = |amount: f64, limit: f64| 100.0 * amount / self.seconds.max(1e-12) / limit;
        let (memory, rate) = (of(self.read as f64, limits.bandwidth), of(self.flops, limits.rate));
        let larger = if rate > memory { (rate, Bound::Rate) } else { (memory, Bound::Memory) };
        (self.read > 0).then_some(larger)
    }
}

/// Name of the head, also where its matrix is the embedding.
const HEAD: &str = "lm_head";

/// Published name of an operation, for weights of any file format.
fn named(op: &str) -> &str {
    match (op, phi3_model::Part::from_name(op)) {
        ("embed_tokens" | "token_embd" | "output", _) => HEAD,
        (_, Some(part)) => part.name(),
        _ => op,
    }
}

/// All passes over the prompt, or over the tokens after it.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    /// Tokens of all passes.
    pub tokens: usize,
    /// Passes.
    pub passes: usize,
    /// Time of all passes on the host's clock, in seconds. The excess over the parts is work of the host and waiting.
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
                    known.read += part.read;
                    known.flops += part.flops;
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
                    let label = trace.labels[label].clone();
                    let label = Label { op: named(&label.op).to_owned(), ..label };
                    phase.parts.push(Part { label, calls: 0, seconds: 0.0, read: 0, flops: 0.0 });
                    phase.parts.len() - 1
                });
                let part = &mut phase.parts[place];
                part.calls += 1;
                part.seconds += seconds;
                part.read += part.label.bytes;
                // logits are computed for the last row only
                let rows = if part.label.op == HEAD { 1 } else { pass.rows };
                part.flops += 2.0 * part.label.values as f64 * rows as f64;
            }
        }
        phase
    }
}

/// Times of a prompt and of generated tokens.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The device.
    pub device: String,
    /// Clock of the times.
    pub clock: Clock,
    /// Peak rates of the device.
    pub limits: Limits,
    /// The prompt's passes.
    pub prompt: Phase,
    /// The passes of one token each.
    pub decode: Phase,
}

/// Loads a model and times its operations; tokens are arbitrary. `watch` is called between passes. It cancels by returning
/// `Break`: the result is `None`.
///
/// # Errors
///
/// More tokens than the model's context, too little memory, and errors of the backend.
pub fn profile(
    device_options: &DeviceOptions,
    checkpoint: &Checkpoint,
    plan: Plan,
    watch: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Option<Profile>> {
    device_options.visit(Profiling { device_options, checkpoint, plan, watch })
}

struct Profiling<'a> {
    device_options: &'a DeviceOptions,
    checkpoint: &'a Checkpoint,
    plan: Plan,
    watch: &'a mut dyn FnMut() -> ControlFlow<()>,
}

impl Visit for Profiling<'_> {
    type Output = Option<Profile>;

    fn visit<B: Backend>(self, mut backend: B) -> Result<Option<Profile>> {
        let Self { device_options, checkpoint, plan, watch } = self;
        phi3_model::check_length(checkpoint.spec(), plan.prompt + plan.generated)?;
        let needed = phi3_model::plan(&mut backend, checkpoint, device_options.decoder())?;
        system_memory::check(device_options, checkpoint, &needed, backend.info())?;
        let limits = backend.limits()?;
        let (device, clock) = (backend.info().to_string(), backend.clock());
        let (timed, trace) = Timed::new(backend);
        let mut model = Decoder::load(timed, checkpoint, device_options.decoder(), &mut |_| {})?;
        let session = Session::new(&mut model);
        let mut run = Run { sequence: session.sequence(), session, watch, logits: Vec::new() };
        // warm-up: kernels are compiled and memory is touched
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
    session: Session<'a>,
    sequence: Sequence,
    watch: &'a mut dyn FnMut() -> ControlFlow<()>,
    logits: Vec<f32>,
}

impl Run<'_> {
    /// Runs the prompt and at most one token; returns `false` if cancelled.
    fn all(&mut self, plan: Plan) -> Result<bool> {
        Ok(self.feed(plan.prompt)? && self.feed(plan.generated.min(1))?)
    }

    fn feed(&mut self, count: usize) -> Result<bool> {
        if count == 0 {
            return Ok((self.watch)().is_continue());
        }
        let vocab = self.session.model().spec().vocab_size;
        let tokens: Vec<u32> = (0..count).map(|i| ((i * 53 + 7) % vocab.max(1)) as u32).collect();
        let settings =
            PrefillOptions { chunk: usize::MAX, policy: RopePolicy::Ahead, budget: count, outputs: Outputs::Last };
        let Self { session, sequence, watch, logits } = self;
        let mut stopped = false;
        let step = &mut |_: PrefillProgress| {
            let flow = watch();
            stopped |= flow.is_break();
            flow
        };
        session.prefill(sequence, &tokens, settings, logits, None, step)?;
        Ok(!stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phi3_tensor::Pass;

    #[test]
    fn a_prompt_is_bound_by_the_rate_and_a_token_by_memory() {
        let label = |op: &str, layer| Label { op: op.into(), layer, bytes: 200, values: 100 };
        let labels = vec![label("ffn_down", Some(0)), label("ffn_down", Some(1)), label("token_embd", None)];
        let pass = |rows, spans| Pass { rows, spans, seconds: 4.0 };
        let spans = vec![(0, 1.0), (1, 1.0)];
        let passes = vec![pass(50, spans.clone()), pass(50, [spans.clone(), vec![(2, 1.0)]].concat()), pass(1, spans)];
        let trace = Trace { labels, passes };
        let limits = Limits { bandwidth: 1000.0, access: "read", rate: 20_000.0, numbers: "f32" };
        let [prompt, decode] = [0..2, 2..3].map(|range| Phase::of(&trace, range).by_op());
        assert_eq!((prompt[0].label.op.as_str(), prompt[0].calls), ("mlp.down_proj", 4));
        // 4 calls of 50 rows in 4 seconds
        assert_eq!(prompt[0].of_limit(limits), Some((50.0, Bound::Rate)));
        // one call, and one row of it
        assert_eq!((prompt[1].label.op.as_str(), prompt[1].of_limit(limits)), (HEAD, Some((20.0, Bound::Memory))));
        assert_eq!(decode[0].of_limit(limits), Some((20.0, Bound::Memory)));
    }
}
