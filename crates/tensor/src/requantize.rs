//! Conversion of a weight to another type.

use crate::quant::{quantize, quantize_int4_rtn};
use crate::{Bytes, DType, Error, Expected, Result, Weight};
use rayon::prelude::*;

/// Rounding of values to blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// The type's own rule: ggml's for the simple types, a least-squares fit for the K and IQ4 types.
    #[default]
    Fitted,
    /// Round to nearest with one scale for 32 weights, as the published `cpu-int4-rtn-block-32` models; Q4_0 only.
    Int4Rtn,
}

impl Weight {
    /// The matrix in `dtype`, converted row by row on `threads` threads; `None` is all threads of the process.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] where a row is not a whole number of blocks, [`Error::OutOfMemory`].
    pub fn requantized(&self, dtype: DType, rounding: Rounding, threads: Option<usize>) -> Result<Weight> {
        let (block, _) = dtype.block();
        let expected = Expected::MultipleOf(block);
        let wrong = Error::Mismatch { op: "quantize", what: "elements of a row", expected, found: self.cols };
        let row = dtype.bytes(self.cols).filter(|&row| row > 0).ok_or(wrong)?;
        let mut bytes = Vec::new();
        let total = row.saturating_mul(self.rows);
        bytes.try_reserve_exact(total).map_err(|e| Error::OutOfMemory {
            device: "CPU".into(),
            what: format!("{} in {dtype}", self.name),
            bytes: total as u64,
            detail: format!(" ({e})"),
        })?;
        bytes.resize(total, 0);
        let mut work = || {
            bytes.par_chunks_exact_mut(row).enumerate().for_each_init(
                || vec![0.0; self.cols],
                |values, (i, out)| {
                    self.dtype.widen(self.row(i), values);
                    let blocks = match rounding {
                        Rounding::Fitted => quantize(dtype, values),
                        Rounding::Int4Rtn => quantize_int4_rtn(values),
                    };
                    // the length of a row is checked above, so the blocks fit
                    if let Some(blocks) = blocks.filter(|blocks| blocks.len() == out.len()) {
                        out.copy_from_slice(&blocks);
                    }
                },
            )
        };
        // without a pool of its own, the conversion uses that of the process
        match threads.and_then(|n| rayon::ThreadPoolBuilder::new().num_threads(n.max(1)).build().ok()) {
            Some(pool) => pool.install(work),
            None => work(),
        }
        let weight = Weight::new(self.name.clone(), dtype, self.rows, self.cols, Bytes::from(bytes))?;
        self.bias().map_or(Ok(weight.clone()), |bias| weight.with_bias(bias.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parity::Random;

    #[test]
    fn blocks_do_not_depend_on_the_threads() {
        let weight = Random(4).weight("w", DType::F16, 37, 256, 1.0);
        for dtype in [DType::Q4K, DType::Q8_0, DType::Bf16] {
            let one = weight.requantized(dtype, Rounding::Fitted, Some(1)).unwrap();
            for threads in [Some(0), Some(3), None] {
                assert_eq!(weight.requantized(dtype, Rounding::Fitted, threads).unwrap().to_bytes(), one.to_bytes());
            }
        }
    }
}
