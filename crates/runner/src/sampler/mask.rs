//! Restriction to the tokens of a mask.

use super::candidates::Candidate;
use super::error::SamplerError;

/// Keeps the candidates of a mask: token t is bit t % 32 of word t / 32.
pub(super) fn keep_masked(candidates: &mut Vec<Candidate>, mask: &[u32]) -> Result<(), SamplerError> {
    candidates.retain(|candidate| {
        let word = mask.get(candidate.id as usize / 32).copied().unwrap_or(0);
        word >> (candidate.id % 32) & 1 == 1
    });
    if candidates.is_empty() { Err(SamplerError::AllMasked) } else { Ok(()) }
}
