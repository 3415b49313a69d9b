//! Prefill of a sequence, in chunks. Rebuilds the KV cache where the sequence crosses LongRoPE's border.

use crate::decoder::{Outputs, Probe, check_inputs, check_length};
use crate::rope::{RopePolicy, RopeSet};
use crate::session::{SequenceRows, Session};
use crate::{Input, Result, Sequence};
use std::ops::ControlFlow;

/// Options of [`Session::prefill`].
#[derive(Clone, Copy, Debug)]
pub struct PrefillOptions {
    /// Tokens per pass; at most the model's [`max_rows`](crate::Model::max_rows) are taken, and as many outputs as it has.
    pub chunk: usize,
    /// Choice of the rope factors.
    pub policy: RopePolicy,
    /// Tokens that the sequence may grow to, for [`RopePolicy::Ahead`].
    pub budget: usize,
    /// Tokens whose logits are returned.
    pub outputs: Outputs,
}

/// Progress of [`Session::prefill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefillProgress {
    /// The sequence changes to other rope factors: its cache is dropped, and `tokens` tokens are computed again.
    RopeSwitch {
        /// The new factors.
        set: RopeSet,
        /// Cached tokens that are computed again.
        tokens: usize,
    },
    /// `done` of `total` tokens were computed.
    Pass {
        /// Tokens computed so far.
        done: usize,
        /// Tokens of this call, those computed again included.
        total: usize,
    },
}

impl Session<'_> {
    /// Computes `inputs`, tokens or rows of picture features, after the cached inputs of `sequence`. `logits` receives those of
    /// `options.outputs`.
    ///
    /// The rope factors are chosen by the sequence's length after all inputs. If they differ from those of the cached keys, the cache
    /// is dropped and all tokens are computed again, as in the reference. `watch` is called for that switch and after every pass.
    /// It cancels by returning `Break`: with inputs left, the result is `false`, and `sequence` holds the tokens computed so far.
    ///
    /// # Errors
    ///
    /// A sequence of another session, more tokens than the model's context, unknown ids, and errors of the backend. The sequence
    /// is unchanged by the first three.
    pub fn prefill<'a, T>(
        &mut self,
        sequence: &mut Sequence,
        inputs: &'a [T],
        options: PrefillOptions,
        logits: &mut Vec<f32>,
        probe: Option<&mut Probe<'_>>,
        watch: &mut dyn FnMut(PrefillProgress) -> ControlFlow<()>,
    ) -> Result<bool>
    where
        Input: From<&'a T>,
    {
        let inputs: Vec<Input> = inputs.iter().map(Input::from).collect();
        self.prefill_inputs(sequence, &inputs, options, logits, probe, watch)
    }

    fn prefill_inputs(
        &mut self,
        sequence: &mut Sequence,
        inputs: &[Input],
        options: PrefillOptions,
        logits: &mut Vec<f32>,
        mut probe: Option<&mut Probe<'_>>,
        watch: &mut dyn FnMut(PrefillProgress) -> ControlFlow<()>,
    ) -> Result<bool> {
        logits.clear();
        self.check_owner("prefill", sequence)?;
        let length = sequence.len() + inputs.len();
        check_length(self.model().spec(), length)?;
        check_inputs(self.model().spec(), inputs)?;

        let set = self.model().spec().rope.choose(options.policy, length, options.budget);
        let mut again = Vec::new();
        if !sequence.is_empty() && set != sequence.rope_set() {
            again = sequence.inputs().to_vec();
            sequence.clear();
            if watch(PrefillProgress::RopeSwitch { set, tokens: again.len() }).is_break() {
                return Ok(false);
            }
        }
        if sequence.is_empty() {
            sequence.set_rope(set);
        }

        let total = again.len() + inputs.len();
        let most = match options.outputs {
            Outputs::All => self.model().max_outputs().min(self.model().max_rows()),
            Outputs::None | Outputs::Last => self.model().max_rows(),
        };
        let chunk = options.chunk.clamp(1, most);
        let parts = again.chunks(chunk).map(|part| (part, true)).chain(inputs.chunks(chunk).map(|part| (part, false)));
        let mut done = 0;
        let mut of_pass = Vec::new();
        for (part, repeated) in parts {
            let last = done + part.len() == total;
            let outputs = match options.outputs {
                Outputs::Last if last => Outputs::Last,
                Outputs::All if !repeated => Outputs::All,
                _ => Outputs::None,
            };
            let probe = probe.as_deref_mut().map(|probe| probe as &mut Probe<'_>);
            self.forward(&mut [SequenceRows { sequence, inputs: part, outputs }], &mut of_pass, probe)?;
            if last && logits.is_empty() {
                std::mem::swap(logits, &mut of_pass);
            } else {
                logits.extend_from_slice(&of_pass);
            }
            done += part.len();
            if watch(PrefillProgress::Pass { done, total }).is_break() {
                return Ok(last);
            }
        }
        Ok(true)
    }
}
