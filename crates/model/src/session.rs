//! Passes over sequences, waited for one by one: for tests, measurements and callers with a loop of their own.

use crate::decoder::{Model, Outputs, Probe, RowInput, Segment};
use crate::sequence::{PagePool, Sequence};
use crate::{Error, Input, Result};
use phi3_tensor::{Phase, Readback, Sampled, Samples};

/// Rows that a pass adds to a sequence.
pub struct SequenceRows<'a> {
    /// The sequence.
    pub sequence: &'a mut Sequence,
    /// The rows; at least one.
    pub inputs: &'a [Input],
    /// Rows whose logits are returned.
    pub outputs: Outputs,
}

/// Sequences of a model, and passes over them.
///
/// A session has the whole KV cache of its model: what an earlier session cached is lost.
pub struct Session<'m> {
    model: &'m mut dyn Model,
    pool: PagePool,
    /// End of the last pass without outputs: the next pass is submitted before it is waited for.
    before: Option<Readback<Sampled>>,
}

impl<'m> Session<'m> {
    /// A session without sequences.
    pub fn new(model: &'m mut dyn Model) -> Self {
        Self { model, pool: PagePool::default(), before: None }
    }

    /// The model.
    pub fn model(&mut self) -> &mut dyn Model {
        self.model
    }

    /// An empty sequence, for this session only: others refuse it.
    pub fn sequence(&self) -> Sequence {
        Sequence::new(self.pool.clone())
    }

    /// Bytes of keys and values in use.
    pub fn cache_bytes(&self) -> u64 {
        self.pool.used() as u64 * self.model.page_bytes()
    }

    /// One pass over any number of sequences. `logits` becomes `[outputs, vocab_size]` in the order of the parts.
    ///
    /// # Errors
    ///
    /// [`Error::Sequence`] where one is another session's, [`Error::NotFinite`], and those of [`Model::forward`]. The sequences are
    /// unchanged then.
    pub fn forward(
        &mut self,
        parts: &mut [SequenceRows<'_>],
        logits: &mut Vec<f32>,
        probe: Option<&mut Probe<'_>>,
    ) -> Result<()> {
        logits.clear();
        for part in parts.iter_mut() {
            self.check_owner("forward", part.sequence)?;
            part.sequence.grow(part.inputs.len());
        }
        let rows: Vec<Vec<RowInput>> =
            parts.iter().map(|part| part.inputs.iter().cloned().map(RowInput::Input).collect()).collect();
        let segments: Vec<Segment<'_>> = parts
            .iter()
            .zip(&rows)
            .map(|(part, inputs)| Segment {
                inputs,
                phase: Phase::of(inputs.len()),
                position: part.sequence.len(),
                pages: part.sequence.pages(),
                rope: part.sequence.rope_set(),
                outputs: part.outputs,
            })
            .collect();
        self.model.forward(&segments, probe)?;
        let positions = |part: &SequenceRows<'_>| {
            let first = part.sequence.len();
            part.outputs.of(first..first + part.inputs.len())
        };
        let outputs: Vec<usize> = parts.iter().flat_map(positions).collect();
        self.finish(&outputs, logits)?;
        let window = self.model.spec().window();
        for part in parts.iter_mut() {
            part.sequence.append(part.inputs, window);
        }
        Ok(())
    }

    /// Waits for the logits of a pass whose outputs have these positions; without outputs, for the pass before.
    fn finish(&mut self, positions: &[usize], logits: &mut Vec<f32>) -> Result<()> {
        if positions.is_empty() {
            let end = self.model.sample(&Samples::default())?;
            return Ok(self.before.replace(end).map_or(Ok(()), |before| before.wait().map(drop))?);
        }
        if let Some(before) = self.before.take() {
            before.wait()?;
        }
        *logits = self.model.logits(0..positions.len())?.wait()?;
        match logits.iter().position(|logit| !logit.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let position = positions.get(at / self.model.spec().vocab_size).copied().unwrap_or(0);
                Err(Error::not_finite(position))
            }
        }
    }

    pub(crate) fn check_owner(&self, call: &'static str, sequence: &Sequence) -> Result<()> {
        if sequence.is_of(&self.pool) {
            return Ok(());
        }
        let hint = "a sequence is used with the session that made it";
        Err(Error::Sequence { call, found: "the sequence belongs to another session", hint })
    }
}
