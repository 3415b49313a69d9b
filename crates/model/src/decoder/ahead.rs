//! Passes ahead of the host: the machine chooses their tokens, and the next pass embeds them where they are.

use super::{Decoder, Feed, Outputs, check_length, check_tokens, not_finite};
use crate::sequence::SequenceId;
use crate::{Error, Input, Result, Sequence};
use phi3_tensor::{Backend, Batch, Epilogue, Sampling};

/// A launched pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Launch {
    pub(super) sequence: SequenceId,
    /// Of its token; the one that it chooses follows.
    position: usize,
}

impl<B: Backend> Decoder<B> {
    pub(super) fn launch_one(&mut self, sequence: &mut Sequence, token: Option<u32>, sampling: Sampling) -> Result<()> {
        if self.under_way.len() >= self.backend.pipeline_depth() {
            return Err(Error::Request {
                what: "passes under way",
                found: format!("{} and one more", self.under_way.len()),
                limit: format!("the device takes {}", self.backend.pipeline_depth()),
                hint: "let one land first",
            });
        }
        let launch = Launch { sequence: sequence.id(), position: sequence.len() };
        self.check_launch(sequence, token)?;
        check_length(&self.spec, launch.position + 1)?;
        check_tokens(&self.spec, token.as_slice())?;
        let inputs = [Input::Token(token.unwrap_or(Batch::SAMPLED))];
        self.lay_out(&mut [Feed { sequence, inputs: &inputs, outputs: Outputs::Last }])?;
        if let Err(error) = self.choosing_pass(sampling) {
            self.abandon();
            return Err(error);
        }
        self.under_way.push_back(launch);
        self.last_launch = Some(launch);
        sequence.append(&inputs, self.spec.window());
        Ok(())
    }

    fn choosing_pass(&mut self, sampling: Sampling) -> Result<()> {
        self.layers(None)?;
        let Self { backend, spec, activations: a, .. } = self;
        let head = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
        let epilogue = Epilogue { scale: spec.logit_scale, ..Epilogue::OVERWRITE };
        backend.project(&a.x, Some(self.norm.norm()), head, epilogue, &mut a.logits)?;
        Ok(backend.sample(&mut a.logits, &[sampling])?)
    }

    /// The pass follows the sequence's own launches, and a token that the device knows is the sequence's.
    fn check_launch(&self, sequence: &Sequence, token: Option<u32>) -> Result<()> {
        let call = "launch";
        self.check_owner(call, sequence)?;
        let ends = |launch: &Launch| launch.position + 1 == sequence.len();
        let mut launches = self.under_way.iter().rev();
        if launches.find(|launch| launch.sequence == sequence.id()).is_some_and(|last| !ends(last)) {
            let found = "the sequence was cut while its passes were under way";
            return Err(Error::Sequence { call, found, hint: "let them land first" });
        }
        let chose = |launch: &Launch| launch.sequence == sequence.id() && ends(launch);
        if token.is_none() && !self.last_launch.as_ref().is_some_and(chose) {
            let found = "no token is given, and the pass before chose one for another sequence or none";
            return Err(Error::Sequence { call, found, hint: "give the token" });
        }
        Ok(())
    }

    pub(super) fn land_one(&mut self, sequence: &mut Sequence) -> Result<u32> {
        let call = "land";
        self.check_owner(call, sequence)?;
        let Some(launch) = self.under_way.front().copied() else {
            return Err(Error::Sequence { call, found: "no pass is under way", hint: "launch one first" });
        };
        if launch.sequence != sequence.id() {
            let found = "the oldest pass under way is another sequence's";
            return Err(Error::Sequence { call, found, hint: "passes land in the order of their launches" });
        }
        self.under_way.pop_front();
        let mut token = [Batch::NO_TOKEN];
        self.backend.sampled(&mut token)?;
        if token[0] == Batch::NO_TOKEN {
            return Err(not_finite(launch.position));
        }
        sequence.learn(launch.position + 1, token[0]);
        Ok(token[0])
    }

    pub(super) fn discard_all(&mut self) -> Result<()> {
        let mut result = Ok(());
        for _ in self.under_way.drain(..) {
            let landed = self.backend.sampled(&mut [Batch::NO_TOKEN]);
            result = result.and(landed.map_err(Error::from));
        }
        result
    }
}
