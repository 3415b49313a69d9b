//! Sampling on the CPU: rows in parallel.

use super::{Logprobs, Sample, SampleRow, Sampled, Samples, check, host};
use crate::cpu::{Cpu, Rows};
use crate::{Batch, Readback, Result};
use std::sync::{Mutex, PoisonError};

/// Multiply-adds that a logit costs about as much as.
const WORK: usize = 16;

impl Sample for Cpu {
    fn reserve_slots(&mut self, slots: usize) -> Result<()> {
        self.sampled.resize(self.sampled.len().max(slots), Batch::NO_TOKEN);
        Ok(())
    }

    fn sample(&mut self, logits: &mut Rows, samples: &Samples) -> Result<Readback<Sampled>> {
        check(samples, logits.shape(), self.sampled.len())?;
        let rows = &samples.rows;
        let results: Vec<_> = rows.iter().map(|_| Mutex::new((Batch::NO_TOKEN, None))).collect();
        let logits = &*logits;
        let sample = |row: &SampleRow| {
            let of = &logits.values[row.row as usize * logits.dim..][..logits.dim];
            let (mask, edits) = (samples.mask(row, logits.dim), samples.edits(row));
            let token = host::token(of, row.sampling, mask, edits);
            let wanted = row.logprobs.filter(|_| token != Batch::NO_TOKEN);
            (token, wanted.map(|top| Logprobs::of(of, token, top.into())))
        };
        self.parallel(WORK * rows.len() * logits.dim, rows.len(), |i| {
            *results[i].lock().unwrap_or_else(PoisonError::into_inner) = sample(&rows[i]);
        });
        let mut sampled = Sampled::default();
        for (row, result) in rows.iter().zip(results) {
            let (token, logprobs) = result.into_inner().unwrap_or_else(PoisonError::into_inner);
            self.sampled[row.slot as usize] = token;
            sampled.tokens.push(token);
            sampled.logprobs.push(logprobs);
        }
        Ok(Readback::complete(sampled))
    }
}
