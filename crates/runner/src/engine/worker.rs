//! The engine's loop: it plans passes, submits them, and gives their results to the requests.

use super::job::Job;
use super::shared::{Cache, Shared, State};
use crate::sampler::SamplerError;
use crate::scheduler::{Pass, PassId, RequestId};
use crate::{Error, Result};
use phi3_model::{Model, Segment};
use phi3_tensor::{Batch, Logprobs, Readback, SampleRow, Sampled, Samples, Sampling};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

/// How often cancel flags are looked at while no pass completes.
const IDLE: Duration = Duration::from_millis(50);

/// Devices that are opened in a row without a completed pass between them.
const MOST_LOSSES: usize = 3;

/// Opens the device again and loads the model.
pub(crate) type Reopen = Box<dyn FnMut() -> Result<Box<dyn Model>> + Send>;

pub(super) struct Worker {
    shared: Arc<Shared>,
    /// Absent after a loss, until the device is open again.
    model: Option<Box<dyn Model>>,
    reopen: Option<Reopen>,
    flights: VecDeque<Flight>,
    /// When the last pass completed.
    completed: Instant,
    /// Devices that were lost since the last completed pass.
    losses: usize,
    samples: Samples,
}

/// A submitted pass.
struct Flight {
    id: PassId,
    outputs: Vec<Output>,
    begun: Instant,
    /// Tokens, or the end of a pass without any; `None` before it is sampled.
    sampled: Option<Results>,
}

/// Results of a pass on their way.
struct Results {
    tokens: Readback<Sampled>,
    /// Outputs that are sampled on the device, in the order of the tokens.
    on_device: Vec<usize>,
    /// Outputs whose logits are sampled on the host.
    on_host: Vec<(usize, Readback<Vec<f32>>)>,
}

/// What is wanted of an output of a pass.
#[derive(Clone, Copy)]
struct Output {
    request: RequestId,
    slot: u32,
    position: usize,
    /// Index of the new token that is sampled from it; `None` for a row of the prompt whose token is given.
    token_index: Option<usize>,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, model: Box<dyn Model>, reopen: Option<Reopen>) -> Self {
        Self {
            shared,
            model: Some(model),
            reopen,
            flights: VecDeque::new(),
            completed: Instant::now(),
            losses: 0,
            samples: Samples::default(),
        }
    }

    /// Works until the engine is dropped.
    pub(super) fn run(&mut self) {
        while self.begin_turn() {
            if let Err(error) = self.turn() {
                self.recover(error);
            }
        }
    }

    /// Waits for something to do, runs tasks, and looks at cancel flags; false at the end.
    fn begin_turn(&mut self) -> bool {
        let shared = self.shared.clone();
        let mut state = shared.locked();
        loop {
            if state.stopping {
                return false;
            }
            if let Some(task) = state.tasks.pop_front() {
                drop(state);
                self.run_task(task);
                state = shared.locked();
                continue;
            }
            let cancelled: Vec<RequestId> =
                state.jobs.iter().filter(|(_, job)| job.is_cancelled()).map(|(id, _)| *id).collect();
            cancelled.into_iter().for_each(|id| state.end(id, crate::FinishReason::Interrupted));
            if !self.flights.is_empty() || !state.scheduler.is_empty() {
                return true;
            }
            state = shared.wait(state);
        }
    }

    fn run_task(&mut self, task: super::shared::Task) {
        if self.reopen_if_lost().is_err() {
            return;
        }
        let Some(model) = &mut self.model else { return };
        if task(&mut **model) == Cache::Lost {
            self.flights.clear();
            self.shared.locked().scheduler.reset();
        }
    }

    /// Submits what can be submitted, else waits for the oldest pass.
    fn turn(&mut self) -> phi3_model::Result<()> {
        self.sample()?;
        let all_sampled = self.flights.back().is_none_or(|flight| flight.sampled.is_some());
        if all_sampled && self.submit()? {
            return Ok(());
        }
        match self.flights.front() {
            Some(_) => self.complete(),
            None => {
                let state = self.shared.locked();
                drop(self.shared.wait_for(state, IDLE));
                Ok(())
            }
        }
    }

    /// Plans a pass and submits its layers; false if there is none.
    fn submit(&mut self) -> phi3_model::Result<bool> {
        let mut state = self.shared.locked();
        let State { scheduler, jobs, .. } = &mut *state;
        jobs.iter().for_each(|(id, job)| scheduler.hold(*id, job.is_unread()));
        let mut events = Vec::new();
        let pass = state.scheduler.plan(self.shared.now(), &mut events);
        state.deliver(events);
        drop(state);
        let Some(pass) = pass else { return Ok(false) };
        self.reopen_if_lost()?;
        let Some(model) = &mut self.model else { return Ok(false) };
        // a device may compute the pass in this call
        let begun = Instant::now();
        let submitted = match pass.copies.is_empty() {
            true => Ok(()),
            false => model.copy_pages(&pass.copies),
        };
        let submitted = submitted.and_then(|()| forward(&mut **model, &pass));
        if let Err(error) = submitted {
            return self.failed(&pass, error).map(|()| true);
        }
        let flight = Flight { id: pass.id, outputs: outputs(&pass), begun, sampled: None };
        self.flights.push_back(flight);
        Ok(true)
    }

    /// Samples the newest pass, if the tokens that its sampling depends on are known.
    fn sample(&mut self) -> phi3_model::Result<()> {
        let Self { shared, flights, model, samples, .. } = self;
        let Some(flight) = flights.back_mut().filter(|flight| flight.sampled.is_none()) else { return Ok(()) };
        let Some(model) = model else { return Ok(()) };
        let vocab = model.spec().vocab_size;
        let mut state = shared.locked();
        if !is_ready(&state, &flight.outputs) {
            return Ok(());
        }
        let (on_device, hosted) = rows(&mut state, &flight.outputs, vocab, samples);
        drop(state);
        let mut on_host = Vec::new();
        for output in hosted {
            on_host.push((output, model.logits(output..output + 1)?));
        }
        let tokens = model.sample(samples)?;
        flight.sampled = Some(Results { tokens, on_device, on_host });
        Ok(())
    }

    /// Waits for the oldest pass, and gives its tokens to the requests.
    fn complete(&mut self) -> phi3_model::Result<()> {
        let Some(flight) = self.flights.pop_front() else { return Ok(()) };
        let Flight { id, outputs, begun, sampled } = flight;
        let Some(Results { tokens, on_device, on_host }) = sampled else { return Ok(()) };
        let mut logits = Vec::new();
        for (output, readback) in on_host {
            logits.push((outputs[output], readback.wait()?));
        }
        let sampled = tokens.wait()?;
        let now = Instant::now();
        let elapsed = now - begun.max(self.completed);
        self.completed = now;
        self.losses = 0;

        let mut state = self.shared.locked();
        let mut results = Vec::new();
        let pairs = sampled.tokens.into_iter().zip(sampled.logprobs);
        for (output, (token, logprobs)) in on_device.into_iter().map(|i| outputs[i]).zip(pairs) {
            accept(&mut state, output, token, logprobs, &mut results);
        }
        sample_on_host(&mut state, &logits, &mut results);
        let mut events = Vec::new();
        state.scheduler.complete(id, &results, elapsed, &mut events);
        state.deliver(events);
        Ok(())
    }

    /// A pass was not submitted: its requests end with the error, unless the device is lost, or has no memory for another page of the
    /// cache. They are computed again then, in the pages that there are.
    fn failed(&mut self, pass: &Pass, error: phi3_model::Error) -> phi3_model::Result<()> {
        if let phi3_model::Error::CacheMemory { found, .. } = error {
            // the tokens of earlier passes are kept
            while !self.flights.is_empty() {
                self.complete()?;
            }
            let mut state = self.shared.locked();
            state.scheduler.fail(pass.id);
            for (request, refusal) in state.scheduler.shrink_pages(found) {
                state.fail(request, refusal.into());
            }
            return Ok(());
        }
        let mut state = self.shared.locked();
        state.scheduler.fail(pass.id);
        if is_loss(&error) {
            return Err(error);
        }
        let requests: Vec<RequestId> = pass.segments.iter().map(|segment| segment.request).collect();
        fail_all(state, &requests, error);
        Ok(())
    }

    /// After an error of the device, nothing that it holds is known: everything is computed again. If the device is lost, it is
    /// opened again first. If it does not work, all requests end.
    fn recover(&mut self, error: phi3_model::Error) {
        self.flights.clear();
        self.losses += 1;
        if is_loss(&error) {
            self.model = None;
        }
        let mut state = self.shared.locked();
        if self.losses > MOST_LOSSES || (is_loss(&error) && self.reopen.is_none()) {
            let requests: Vec<RequestId> = state.jobs.keys().copied().collect();
            fail_all(state, &requests, error);
            self.shared.locked().scheduler.reset();
            return;
        }
        state.scheduler.reset();
        drop(state);
        if let Err(error) = self.reopen_if_lost() {
            let state = self.shared.locked();
            let requests: Vec<RequestId> = state.jobs.keys().copied().collect();
            fail_all(state, &requests, error);
        }
    }

    fn reopen_if_lost(&mut self) -> phi3_model::Result<()> {
        if self.model.is_some() {
            return Ok(());
        }
        let Some(reopen) = &mut self.reopen else {
            return Err(phi3_model::Error::Device(lost("the device")));
        };
        match reopen() {
            Ok(model) => {
                self.model = Some(model);
                Ok(())
            }
            Err(Error::Model(error)) => Err(error),
            Err(error) => Err(phi3_model::Error::Device(lost(&error.to_string()))),
        }
    }
}

/// Requests that are open end with the thread, also if it panics.
impl Drop for Worker {
    fn drop(&mut self) {
        let mut state = self.shared.locked();
        state.ended = true;
        state.tasks.clear();
        let open: Vec<RequestId> = state.jobs.keys().copied().collect();
        open.into_iter().for_each(|id| state.fail(id, Error::Unfinished));
    }
}

/// Submits the layers of a pass.
fn forward(model: &mut dyn Model, pass: &Pass) -> phi3_model::Result<()> {
    let segments: Vec<Segment<'_>> = pass
        .segments
        .iter()
        .map(|segment| Segment {
            inputs: &segment.rows,
            phase: segment.phase,
            position: segment.position,
            pages: &segment.pages,
            rope: segment.rope,
            outputs: segment.outputs,
        })
        .collect();
    model.forward(&segments, None)
}

/// What is wanted of the outputs of a pass, in their order.
fn outputs(pass: &Pass) -> Vec<Output> {
    let mut outputs = Vec::new();
    for segment in &pass.segments {
        let end = segment.position + segment.rows.len();
        let positions = segment.outputs.of(segment.position..end);
        outputs.extend(positions.map(|position| Output {
            request: segment.request,
            slot: segment.slot.index() as u32,
            position,
            token_index: segment.token_index.filter(|_| position + 1 == end),
        }));
    }
    outputs
}

/// Whether all tokens are known that the sampling of these outputs depends on.
fn is_ready(state: &State, outputs: &[Output]) -> bool {
    outputs.iter().all(|output| match (state.jobs.get(&output.request), output.token_index) {
        (Some(job), Some(index)) if job.depends_on_past() => job.new_tokens() >= index,
        _ => true,
    })
}

/// Rows to sample on the device, the numbers of their outputs, and those of the outputs that are sampled on the host. Outputs of
/// requests that have ended are neither.
fn rows(state: &mut State, outputs: &[Output], vocab: usize, samples: &mut Samples) -> (Vec<usize>, Vec<usize>) {
    samples.clear();
    let words = vocab.div_ceil(32);
    let (mut on_device, mut on_host) = (Vec::new(), Vec::new());
    for (i, output) in outputs.iter().enumerate() {
        let Some(job) = state.jobs.get_mut(&output.request) else { continue };
        let next = job.new_tokens();
        let edits_from = samples.edits.len() as u32;
        let mut mask = None;
        let (sampling, logprobs) = match output.token_index {
            Some(_) if !job.sampler.is_on_device() => {
                on_host.push(i);
                continue;
            }
            Some(index) => {
                job.sampler.edits(&job.ids, &mut samples.edits);
                // a token of an earlier index than the next one is dropped
                if let Some(constraint) = job.constraint.as_mut().filter(|_| index == next) {
                    let mut allowed = Vec::new();
                    if let Err(error) = constraint.mask(&mut allowed) {
                        samples.edits.truncate(edits_from as usize);
                        state.fail(output.request, error.into());
                        continue;
                    }
                    allowed.resize(words, 0);
                    mask = Some((samples.masks.len() / words) as u32);
                    samples.masks.extend(allowed);
                }
                (job.sampler.sampling(index), job.options.logprobs)
            }
            None => match job.inputs.get(output.position + 1).and_then(phi3_model::Input::token) {
                Some(token) => (Sampling::Given(token), job.options.prompt_logprobs),
                None => continue,
            },
        };
        on_device.push(i);
        samples.rows.push(SampleRow {
            row: i as u32,
            slot: output.slot,
            sampling,
            mask,
            edits: edits_from..samples.edits.len() as u32,
            logprobs,
        });
    }
    (on_device, on_host)
}

/// Takes a token that the device sampled.
fn accept(
    state: &mut State,
    output: Output,
    token: u32,
    logprobs: Option<Logprobs>,
    results: &mut Vec<(RequestId, Vec<u32>)>,
) {
    let Some(job) = state.jobs.get_mut(&output.request) else { return };
    if token == Batch::NO_TOKEN {
        let error = match (&job.constraint, job.sampler.bans_tokens()) {
            (Some(_), _) => SamplerError::AllMasked.into(),
            (None, true) => SamplerError::AllBanned.into(),
            (None, false) => phi3_model::Error::not_finite(output.position).into(),
        };
        return state.fail(output.request, error);
    }
    match output.token_index {
        Some(index) => {
            if let Some(logprobs) = logprobs {
                job.logprobs.insert(index, logprobs);
            }
            results.push((output.request, vec![token]));
        }
        None => job.put_prompt_logprobs(output.position + 1, logprobs),
    }
}

/// Samples tokens by chains of samplers that the device does not have, requests side by side.
fn sample_on_host(state: &mut State, rows: &[(Output, Vec<f32>)], results: &mut Vec<(RequestId, Vec<u32>)>) {
    if rows.is_empty() {
        return;
    }
    let next = |id: RequestId, job: &Job| {
        rows.iter().find(|(output, _)| output.request == id && output.token_index == Some(job.new_tokens()))
    };
    let jobs: Vec<_> = state.jobs.iter_mut().filter_map(|(id, job)| Some((next(*id, job)?, job))).collect();
    let chosen: Vec<_> =
        jobs.into_par_iter().map(|((output, logits), job)| (output.request, choose(job, *output, logits))).collect();
    for (request, token) in chosen {
        match token {
            Ok(token) => results.push((request, vec![token])),
            Err(error) => state.fail(request, error),
        }
    }
}

/// Chooses the next token of a job.
fn choose(job: &mut Job, output: Output, logits: &[f32]) -> Result<u32> {
    if logits.iter().any(|logit| !logit.is_finite()) {
        return Err(phi3_model::Error::not_finite(output.position).into());
    }
    let index = job.new_tokens();
    let token = match &mut job.constraint {
        None => job.sampler.sample(&job.ids, index, logits)?,
        Some(constraint) => {
            let mut mask = Vec::new();
            constraint.mask(&mut mask)?;
            job.sampler.sample_masked(&job.ids, index, logits, &mask)?
        }
    };
    if let Some(top) = job.options.logprobs {
        job.logprobs.insert(index, Logprobs::of(logits, token, top.into()));
    }
    Ok(token)
}

/// Ends requests with an error: the first one with the error itself, the others with its text.
fn fail_all(mut state: MutexGuard<'_, State>, requests: &[RequestId], error: phi3_model::Error) {
    let text = error.to_string();
    let mut error = Some(error);
    for request in requests {
        match error.take() {
            Some(error) => state.fail(*request, error.into()),
            None => state.fail(*request, Error::Pass(text.clone())),
        }
    }
}

/// Whether the device has to be opened again.
fn is_loss(error: &phi3_model::Error) -> bool {
    use phi3_tensor::Error::{Lost, Timeout};
    matches!(error, phi3_model::Error::Device(Lost { .. } | Timeout { .. }))
}

fn lost(message: &str) -> phi3_tensor::Error {
    phi3_tensor::Error::Lost { device: "the engine's device".into(), message: message.into() }
}
