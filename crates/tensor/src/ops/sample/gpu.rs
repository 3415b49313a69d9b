//! Sampling on the GPU: a dispatch for each kind of sampling, of one workgroup a row, and a copy of the results to the host.

use super::{Logprobs, Sample, Sampled, Samples, Sampling, check};
use crate::gpu::device::STORAGE;
use crate::gpu::pipelines::Bindings;
use crate::gpu::{Gpu, Rows};
use crate::{Batch, Readback, Result};
use phi3_shaders::{NO_TOKEN, Op, SAMPLED, binding};

const _: () = assert!(Batch::SAMPLED == SAMPLED && Batch::NO_TOKEN == NO_TOKEN);

/// Passes in flight: enough to keep the device busy while tokens travel to the host.
const PIPELINE_DEPTH: usize = 4;

/// Words of a record, as `float_key.wgsl` has them.
const RECORD: usize = 12;

/// Words of an edit, as `edit_logits.wgsl` has them.
const EDIT: usize = 4;

const NO_MASK: u32 = u32::MAX;

/// Words of a result without the largest logits: token, logsumexp, logit, 0.
const RESULT: usize = 4;

impl Sample for Gpu {
    fn pipeline_depth(&self) -> usize {
        PIPELINE_DEPTH
    }

    fn reserve_slots(&mut self, slots: usize) -> Result<()> {
        if slots <= self.sampling.slots {
            return Ok(());
        }
        let sampled = self.device.buffer("sampled tokens", (size_of::<u32>() * slots) as u64, STORAGE)?;
        let (old, size) = (&self.sampling.sampled, self.sampling.sampled.size.min(sampled.size));
        self.recorder.flush_with(&mut self.device, |encoder| {
            encoder.copy_buffer_to_buffer(&old.raw, 0, &sampled.raw, 0, size);
        })?;
        self.sampling.sampled = sampled;
        self.sampling.slots = slots;
        Ok(())
    }

    fn sample(&mut self, logits: &mut Rows, samples: &Samples) -> Result<Readback<Sampled>> {
        check(samples, logits.shape(), self.sampling.slots)?;
        if samples.rows.is_empty() {
            return self.end_of_pass();
        }
        let order = order(samples);
        let top = samples.most_logprobs();
        let result = top.map_or(1, |top| RESULT + 2 * top.min(logits.dim));
        self.upload(samples, &order, logits.dim)?;
        let size = (size_of::<u32>() * result * order.len()) as u64;
        self.device.grow(&mut self.sampling.results, "sampled tokens and log-probabilities", size, STORAGE)?;

        // sampling changes the logits that it reads, and log-probabilities are those of unchanged logits
        let copied = top.is_some() || samples.rows.iter().any(|row| row.mask.is_some() || !row.edits.is_empty());
        if copied {
            let size = (size_of::<f32>() * logits.stride * order.len()) as u64;
            self.device.grow(&mut self.sampling.edited, "edited logits", size, STORAGE)?;
        }
        let mut bindings = Bindings::default();
        bindings[binding::INPUT as usize] = Some(&logits.buffer);
        bindings[binding::BATCH as usize] = self.sampling.samples.as_ref();
        bindings[binding::SAMPLED as usize] = Some(&self.sampling.sampled);
        let (vocab, stride, rows) = (logits.dim as u32, logits.stride as u32, order.len() as u32);
        if copied {
            bindings[binding::OUTPUT as usize] = self.sampling.edited.as_ref();
            let params = [vocab, stride, 0, 0];
            self.recorder.dispatch(&mut self.device, Op::EditLogits, &bindings, &params, [rows, 1, 1])?;
            bindings[binding::INPUT as usize] = self.sampling.edited.as_ref();
        }
        bindings[binding::OUTPUT as usize] = self.sampling.results.as_ref();
        let mut first = 0;
        for op in [Op::Argmax, Op::Sample] {
            let count = order.iter().filter(|i| kernel(samples.rows[**i].sampling) == Some(op)).count() as u32;
            let params = [vocab, stride, first, u32::from(copied), result as u32, 0, 0, 0];
            self.recorder.dispatch(&mut self.device, op, &bindings, &params, [count, 1, 1])?;
            first += count;
        }
        if let Some(top) = top {
            bindings[binding::INPUT as usize] = Some(&logits.buffer);
            let params = [vocab, stride, top as u32, result as u32];
            self.recorder.dispatch(&mut self.device, Op::Logprobs, &bindings, &params, [rows, 1, 1])?;
        }

        let staged = self.staging.take(&mut self.device, size)?;
        let results = self.sampling.results.as_ref();
        let submission = self.recorder.flush_with(&mut self.device, |encoder| {
            results.inspect(|results| encoder.copy_buffer_to_buffer(&results.raw, 0, &staged.buffer.raw, 0, size));
        })?;
        let wanted: Vec<Want> = order.iter().map(|&index| Want::of(index, samples)).collect();
        Ok(self.staging.read(&self.device, staged, submission, move |bytes| {
            let words: Vec<u32> = bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
            parse(&words, result, &wanted)
        }))
    }
}

impl Gpu {
    /// An empty result at the end of the recorded operations.
    fn end_of_pass(&mut self) -> Result<Readback<Sampled>> {
        const BYTES: u64 = 16;
        let staged = self.staging.take(&mut self.device, BYTES)?;
        let sampled = &self.sampling.sampled;
        let submission = self.recorder.flush_with(&mut self.device, |encoder| {
            encoder.copy_buffer_to_buffer(&sampled.raw, 0, &staged.buffer.raw, 0, BYTES);
        })?;
        Ok(self.staging.read(&self.device, staged, submission, |_| Sampled::default()))
    }

    /// Uploads the records of rows in this order, then masks and edits.
    fn upload(&mut self, samples: &Samples, order: &[usize], vocab: usize) -> Result<()> {
        let masks_at = RECORD * order.len();
        let edits_at = masks_at + samples.masks.len();
        let words = &mut self.sampling.words;
        words.clear();
        for row in order.iter().map(|i| &samples.rows[*i]) {
            let (mut random, mut given) = ([0, 1f32.to_bits(), 0, 0, 0], NO_TOKEN);
            match row.sampling {
                Sampling::Greedy => {}
                Sampling::Given(token) => given = token,
                Sampling::Random { temperature, top_k, top_p, min_p, draw } => {
                    let temperature = temperature.max(f32::MIN_POSITIVE);
                    // a cast of a number out of range gives the nearest number in range
                    let drop = ((1.0 - f64::from(top_p)) * 4_294_967_296.0) as u32;
                    let floor = (f64::from(min_p).min(1.0) * 2_147_483_648.0).ceil() as u32;
                    random = [top_k, temperature.to_bits(), drop, floor, draw];
                }
            }
            let excludes = u32::from(row.mask.is_some() || !row.edits.is_empty());
            let mask = row.mask.map_or(NO_MASK, |mask| (masks_at + mask as usize * vocab.div_ceil(32)) as u32);
            let edits = (edits_at + EDIT * row.edits.start as usize) as u32;
            words.extend([row.row, row.slot, excludes]);
            words.extend(random);
            words.extend([mask, edits, row.edits.len() as u32, given]);
        }
        words.extend_from_slice(&samples.masks);
        for edit in &samples.edits {
            words.extend([edit.token, edit.bias.to_bits(), edit.penalty.to_bits(), edit.offset.to_bits()]);
        }
        let bytes: &[u8] = bytemuck::cast_slice(words);
        self.device.grow(&mut self.sampling.samples, "rows to sample", bytes.len() as u64, STORAGE)?;
        if let Some(buffer) = &self.sampling.samples {
            self.device.queue.write_buffer(&buffer.raw, 0, bytes);
        }
        Ok(())
    }
}

/// Kernel of a sampling; a token that is given needs none.
fn kernel(sampling: Sampling) -> Option<Op> {
    match sampling {
        Sampling::Greedy => Some(Op::Argmax),
        Sampling::Random { .. } => Some(Op::Sample),
        Sampling::Given(_) => None,
    }
}

/// Rows by kernel: greedy, random, given.
fn order(samples: &Samples) -> Vec<usize> {
    let mut order: Vec<usize> = (0..samples.rows.len()).collect();
    order.sort_by_key(|&i| match samples.rows[i].sampling {
        Sampling::Greedy => 0,
        Sampling::Random { .. } => 1,
        Sampling::Given(_) => 2,
    });
    order
}

/// What is wanted of a record.
struct Want {
    /// Index of its row.
    index: usize,
    given: Option<u32>,
    logprobs: Option<usize>,
}

impl Want {
    fn of(index: usize, samples: &Samples) -> Self {
        let row = &samples.rows[index];
        let given = match row.sampling {
            Sampling::Given(token) => Some(token),
            Sampling::Greedy | Sampling::Random { .. } => None,
        };
        Self { index, given, logprobs: row.logprobs.map(usize::from) }
    }
}

/// Results of `words` words a record, in the order of the rows.
fn parse(words: &[u32], result: usize, wanted: &[Want]) -> Sampled {
    let mut sampled = Sampled { tokens: vec![NO_TOKEN; wanted.len()], logprobs: vec![None; wanted.len()] };
    for (want, words) in wanted.iter().zip(words.chunks_exact(result)) {
        let token = want.given.unwrap_or(words[0]);
        if let Some(count) = want.logprobs.filter(|_| token != NO_TOKEN) {
            let [logsumexp, logit] = [1, 2].map(|i| f32::from_bits(words[i]));
            if !logsumexp.is_finite() {
                continue;
            }
            let largest = words[RESULT..].chunks_exact(2).take(count);
            let top = largest.map(|pair| (pair[0], f32::from_bits(pair[1]) - logsumexp)).collect();
            sampled.logprobs[want.index] = Some(Logprobs { token: logit - logsumexp, top });
        }
        sampled.tokens[want.index] = token;
    }
    sampled
}
