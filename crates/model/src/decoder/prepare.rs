//! Kernels compiled ahead, so that no pass waits for a compiler.

use super::{Decoder, Model, Outputs, RowInput, Segment};
use crate::{Result, RopeSet};
use phi3_tensor::{Backend, Phase, Samples, Sampling};

impl<B: Backend> Decoder<B> {
    /// Compiles the kernels of passes and of sampling, on a device that would compile them at their first use; those of a vision tower
    /// are left to the first image.
    ///
    /// # Errors
    ///
    /// Those of the device.
    pub fn prepare(&mut self) -> Result<()> {
        // a new token, a prompt whose logits are wanted, and one whose logits are not
        let segments = [(Phase::Decode, Outputs::Last), (Phase::Prompt, Outputs::All), (Phase::Prompt, Outputs::None)];
        if self.options.max_rows < segments.len() || self.max_outputs < 2 || !self.backend.compile_only(true) {
            return Ok(());
        }
        let compiled = self.compile(segments);
        self.backend.compile_only(false);
        self.abandon();
        compiled
    }

    fn compile(&mut self, segments: [(Phase, Outputs); 3]) -> Result<()> {
        let input = [RowInput::Input(0u32.into())];
        let (pages, rope) = ([[0], [1], [2]], RopeSet::Short);
        let segments: Vec<Segment<'_>> = pages
            .iter()
            .zip(segments)
            .map(|(pages, (phase, outputs))| Segment { inputs: &input, phase, position: 0, pages, rope, outputs })
            .collect();
        self.lay_out(&segments)?;
        self.run(None)?;
        let random = Sampling::Random { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, draw: 0 };
        let mut samples = Samples::of(&[Sampling::Greedy, random]);
        samples.rows[0].logprobs = Some(0);
        self.backend.reserve_slots(samples.rows.len())?;
        self.sample(&samples)?.wait()?;
        Ok(())
    }
}
