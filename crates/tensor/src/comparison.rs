//! Comparison of results: a case on a backend and on the [reference](crate::reference), repeatable numbers, tolerances.

use crate::reference::Reference;
use crate::{Backend, Batch, Bytes, DType, KvType, PAGE, Phase, Result, Weight, quant};
use std::cell::RefCell;
use std::collections::HashMap;

/// Result of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Operation, type and shape.
    pub case: String,
    /// Largest difference from the reference.
    pub difference: f64,
    /// Difference that rounding in f32 may account for.
    pub allowed: f64,
}

impl Outcome {
    /// Whether the difference is allowed; a NaN never is.
    pub fn ok(&self) -> bool {
        self.difference <= self.allowed
    }
}

/// A case: operations whose result is compared.
pub(crate) trait Case {
    /// The result on one backend.
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>>;
}

/// A backend, the weight types of its comparison, and the outcomes so far.
pub(crate) struct Comparison<'a, B> {
    machine: &'a mut B,
    pub(crate) dtypes: Vec<DType>,
    outcomes: Vec<Outcome>,
}

impl<'a, B: Backend> Comparison<'a, B> {
    /// A comparison without outcomes.
    pub(crate) fn new(machine: &'a mut B, dtypes: Vec<DType>) -> Self {
        Self { machine, dtypes, outcomes: Vec::new() }
    }

    pub(crate) fn outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }

    /// Runs a case on the backend and on the reference; `allowed` gives the allowed difference for a magnitude of the results.
    pub(crate) fn case(&mut self, name: String, case: &impl Case, allowed: impl Fn(f64) -> f64) -> Result<()> {
        let (want, got) = self.both(&name, case)?;
        self.outcome(name, largest(&want, &got), allowed(magnitude(&want)));
        Ok(())
    }

    /// Results of the reference and of the backend; no two cases have the same name.
    pub(crate) fn both(&mut self, name: &str, case: &impl Case) -> Result<(Vec<f32>, Vec<f32>)> {
        let known = EXPECTED.with_borrow(|expected| expected.get(name).cloned());
        let want = match known {
            Some(want) => want,
            None => {
                let want = case.run(&mut Reference::default())?;
                EXPECTED.with_borrow_mut(|expected| expected.insert(name.to_owned(), want.clone()));
                want
            }
        };
        Ok((want, case.run(self.machine)?))
    }

    pub(crate) fn outcome(&mut self, case: String, difference: f64, allowed: f64) {
        self.outcomes.push(Outcome { case, difference, allowed });
    }

    /// The backend, for an operation that the reference does not have.
    pub(crate) fn machine(&mut self) -> &mut B {
        self.machine
    }
}

/// A small generator of repeatable numbers (splitmix64).
#[derive(Clone)]
pub struct Random(pub u64);

/// Elements of the largest matrix in [`MADE`].
const MANY: usize = 1 << 20;

/// A generator's state, a type, elements and their scale.
type Key = (u64, DType, usize, u32);

thread_local! {
    /// Quantized weights by key: quantizing takes longer than the cases, which reuse the weights.
    static MADE: RefCell<HashMap<Key, Vec<u8>>> = RefCell::new(HashMap::new());
    /// The reference's results by case: the next backend on this thread is compared with the same.
    static EXPECTED: RefCell<HashMap<String, Vec<f32>>> = RefCell::new(HashMap::new());
}

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number of `-1.0 .. 1.0`.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// `len` numbers of `-scale .. scale`.
    pub fn vector(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| self.unit() * scale).collect()
    }

    /// A matrix of the given type; `cols` is a whole number of its blocks.
    pub fn weight(&mut self, name: &str, dtype: DType, rows: usize, cols: usize, scale: f32) -> Weight {
        let key = (self.0, dtype, rows * cols, scale.to_bits());
        let values = self.vector(rows * cols, scale);
        let make = || quant::quantize(dtype, &values).unwrap_or_default();
        let bytes = MADE.with_borrow_mut(|made| match values.len() {
            ..=MANY => made.entry(key).or_insert_with(make).clone(),
            _ => make(),
        });
        Weight::new(name, dtype, rows, cols, Bytes::from(bytes)).unwrap_or_else(|e| unreachable!("{e}"))
    }
}

/// Largest difference of two results; a NaN counts as larger than any.
pub(crate) fn largest(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs())
        .fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m })
}

/// Largest magnitude of a result.
pub(crate) fn magnitude(a: &[f32]) -> f64 {
    a.iter().map(|&a| f64::from(a).abs()).fold(0.0, f64::max)
}

/// Rounding of a sum of `terms` products whose result is about `size`.
pub(crate) fn allowed(terms: usize, size: f64) -> f64 {
    4.0 * f64::from(f32::EPSILON) * (terms as f64).sqrt() * (size + 1.0)
}

/// The largest step between neighbouring numbers of a type of cache, relative to the largest number of a block.
pub fn kv_step(kv: KvType) -> f64 {
    match kv {
        KvType::F32 => 0.0,
        KvType::F16 => 1.0 / 1024.0,
        KvType::Q8_0 => 1.0 / 127.0,
    }
}

/// Mean difference of two results.
pub(crate) fn mean(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs()).sum();
    sum / a.len().max(1) as f64
}

/// A batch of one sequence from position 0 on, with pages of its own and some outputs.
pub(crate) fn flat(tokens: &[u32], outputs: &[u32]) -> Result<Batch> {
    flat_as(Phase::of(tokens.len()), tokens, outputs)
}

/// As [`flat`], whose rows are of a phase.
pub(crate) fn flat_as(phase: Phase, tokens: &[u32], outputs: &[u32]) -> Result<Batch> {
    let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE) as u32).collect();
    let mut batch = Batch::default();
    batch.push_as(phase, tokens, 0, &pages)?;
    outputs.iter().try_for_each(|row| batch.push_output(*row as usize))?;
    Ok(batch)
}
