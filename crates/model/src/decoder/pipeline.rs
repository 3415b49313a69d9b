//! Pipelined decode: the device samples the token of a pass, and the next pass embeds it there, before the host has read it.

use super::{Decoder, Outputs, SequenceRows, check_length, check_tokens, not_finite};
use crate::sequence::SequenceId;
use crate::{Error, Input, Result, Sequence};
use phi3_tensor::{Backend, Batch, Epilogue, Sampling};

/// A submitted pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct InFlight {
    pub(super) sequence: SequenceId,
    /// Position of its input token; the sampled token has the next position.
    position: usize,
}

impl<B: Backend> Decoder<B> {
    pub(super) fn submit_one(&mut self, sequence: &mut Sequence, token: Option<u32>, sampling: Sampling) -> Result<()> {
        if self.in_flight.len() >= self.backend.pipeline_depth() {
            return Err(Error::Request {
                what: "passes under way",
                found: format!("{} and one more", self.in_flight.len()),
                limit: format!("the device takes {}", self.backend.pipeline_depth()),
                hint: "wait for one first",
            });
        }
        let pass = InFlight { sequence: sequence.id(), position: sequence.len() };
        self.check_submit(sequence, token)?;
        check_length(&self.spec, pass.position + 1)?;
        check_tokens(&self.spec, token.as_slice())?;
        let inputs = [Input::Token(token.unwrap_or(Batch::SAMPLED))];
        self.lay_out(&mut [SequenceRows { sequence, inputs: &inputs, outputs: Outputs::Last }])?;
        if let Err(error) = self.sampling_pass(sampling) {
            self.abandon();
            return Err(error);
        }
        self.in_flight.push_back(pass);
        self.last_submitted = Some(pass);
        sequence.append(&inputs, self.spec.window());
        Ok(())
    }

    fn sampling_pass(&mut self, sampling: Sampling) -> Result<()> {
        self.layers(None)?;
        let Self { backend, spec, activations: a, .. } = self;
        let head = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
        let epilogue = Epilogue { scale: spec.logit_scale, ..Epilogue::OVERWRITE };
        backend.project(&a.x, Some(self.norm.norm()), head, epilogue, &mut a.logits)?;
        Ok(backend.sample(&mut a.logits, &[sampling])?)
    }

    /// Checks that the pass continues the sequence's last submitted pass, and that a token left on the device was sampled for
    /// this sequence.
    fn check_submit(&self, sequence: &Sequence, token: Option<u32>) -> Result<()> {
        let call = "submit";
        self.check_owner(call, sequence)?;
        let ends = |pass: &InFlight| pass.position + 1 == sequence.len();
        let mut submitted = self.in_flight.iter().rev();
        if submitted.find(|pass| pass.sequence == sequence.id()).is_some_and(|last| !ends(last)) {
            let found = "the sequence was cut while its passes were under way";
            return Err(Error::Sequence { call, found, hint: "wait for them first" });
        }
        let chose = |pass: &InFlight| pass.sequence == sequence.id() && ends(pass);
        if token.is_none() && !self.last_submitted.as_ref().is_some_and(chose) {
            let found = "no token is given, and the last pass sampled none for this sequence";
            return Err(Error::Sequence { call, found, hint: "give the token" });
        }
        Ok(())
    }

    pub(super) fn wait_one(&mut self, sequence: &mut Sequence) -> Result<u32> {
        let call = "wait";
        self.check_owner(call, sequence)?;
        let Some(pass) = self.in_flight.front().copied() else {
            return Err(Error::Sequence { call, found: "no pass is under way", hint: "submit one first" });
        };
        if pass.sequence != sequence.id() {
            let found = "the oldest pass under way is another sequence's";
            return Err(Error::Sequence {
                call,
                found,
                hint: "passes are waited for in the order of their submission",
            });
        }
        self.in_flight.pop_front();
        let mut token = [Batch::NO_TOKEN];
        self.backend.sampled(&mut token)?;
        if token[0] == Batch::NO_TOKEN {
            return Err(not_finite(pass.position));
        }
        sequence.resolve_token(pass.position + 1, token[0]);
        Ok(token[0])
    }

    pub(super) fn discard_all(&mut self) -> Result<()> {
        let mut result = Ok(());
        for _ in self.in_flight.drain(..) {
            let landed = self.backend.sampled(&mut [Batch::NO_TOKEN]);
            result = result.and(landed.map_err(Error::from));
        }
        result
    }
}
