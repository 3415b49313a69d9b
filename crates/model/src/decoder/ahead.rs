//! Passes ahead of the host: the machine chooses their tokens, and the next pass embeds them where they are.

use super::{Decoder, Feed, Outputs, check_length, check_tokens, not_finite};
use crate::{Error, NormSpec, Result, Sequence};
use phi3_tensor::{Backend, Batch, Choice, Finish, Norm};

impl<B: Backend> Decoder<B> {
    pub(super) fn launch_one(&mut self, sequence: &mut Sequence, token: Option<u32>, choice: Choice) -> Result<()> {
        if self.under_way.len() >= self.backend.ahead() {
            return Err(Error::Request {
                what: "passes under way",
                found: format!("{} and one more", self.under_way.len()),
                limit: format!("the device takes {}", self.backend.ahead()),
                hint: "let one land first",
            });
        }
        let position = sequence.len();
        check_length(&self.spec, position + 1)?;
        check_tokens(&self.spec, token.as_slice())?;
        let tokens = [token.unwrap_or(Batch::CHOSEN)];
        self.lay_out(&mut [Feed { sequence, tokens: &tokens, outputs: Outputs::Last }])?;
        self.layers(None)?;
        let Self { backend, spec, activations: a, .. } = self;
        let head = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
        let NormSpec::Rms { eps } = spec.norm;
        let norm = Norm { weight: &self.norm, eps };
        backend.project(&a.x, Some(norm), head, Finish::Replace, &mut a.logits)?;
        backend.choose(&mut a.logits, &[choice])?;
        self.under_way.push_back(position);
        sequence.append(&tokens, self.spec.window());
        Ok(())
    }

    pub(super) fn land_one(&mut self, sequence: &mut Sequence) -> Result<u32> {
        let position = self.under_way.pop_front().unwrap_or_default();
        let mut token = [Batch::NO_TOKEN];
        self.backend.chosen(&mut token)?;
        if token[0] == Batch::NO_TOKEN {
            return Err(not_finite(position));
        }
        sequence.learn(token[0]);
        Ok(token[0])
    }
}
