//! The CPU backend against the reference, at every instruction set of this machine.
#![cfg(feature = "reference")]

use phi3_tensor::cpu::{Activations, Cpu, Level, Options, Pack};
use phi3_tensor::parity::{self, Random};
use phi3_tensor::{Backend, Batch, DType, Finish, Role};

fn levels() -> impl Iterator<Item = Level> {
    Level::ALL.into_iter().filter(|level| {
        if !level.available() {
            println!("skipped: this processor has no {level}");
        }
        level.available()
    })
}

#[test]
fn every_level_agrees_with_the_reference() {
    for level in levels() {
        for threads in [1, 2] {
            let (threads, level) = (Some(threads), Some(level));
            let options = Options { threads, level, activations: Activations::F32, ..Options::default() };
            let outcomes = parity::run(&mut Cpu::new(options).expect("threads start"), &[]).expect("every case runs");
            let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.ok()).collect();
            assert!(outcomes.len() > 100 && failed.is_empty(), "{} of {}: {failed:#?}", failed.len(), outcomes.len());
        }
    }
}

/// A projection of `rows` rows of an f32 table.
#[derive(Clone, Copy, Debug)]
struct Case {
    dtype: DType,
    rows: usize,
    inputs: usize,
    outputs: usize,
    finish: Finish,
}

impl Case {
    const SHAPES: [(usize, usize); 4] = [(1, 37), (3, 16), (7, 2), (37, 50)];

    fn all() -> impl Iterator<Item = Case> {
        DType::ALL.into_iter().filter(|dtype| dtype.is_quantised()).flat_map(|dtype| {
            Self::SHAPES.into_iter().flat_map(move |(rows, outputs)| {
                let inputs = 96usize.next_multiple_of(dtype.block().0) + dtype.block().0;
                [Finish::Replace, Finish::Add, Finish::SiluGate].map(|finish| Case {
                    dtype,
                    rows,
                    inputs,
                    outputs,
                    finish,
                })
            })
        })
    }

    fn weights(&self) -> (phi3_tensor::Weight, phi3_tensor::Weight) {
        let mut random = Random(self.inputs as u64 + self.outputs as u64);
        let table = random.weight("table", DType::F32, self.rows, self.inputs, 2.0);
        let rows = if self.finish == Finish::SiluGate { 2 * self.outputs } else { self.outputs };
        (table, Random(5).weight("w", self.dtype, rows, self.inputs, 0.2))
    }

    fn run(&self, cpu: &mut Cpu) -> Vec<f32> {
        let (table, weight) = self.weights();
        let role = if self.finish == Finish::SiluGate { Role::GateUp } else { Role::Plain };
        let (table, weight) = (cpu.matrix(&table, Role::Plain).unwrap(), cpu.matrix(&weight, role).unwrap());
        let mut x = cpu.rows("x", self.rows, self.inputs).unwrap();
        let mut y = cpu.rows("y", self.rows, self.outputs).unwrap();
        cpu.begin(&Batch { tokens: (0..self.rows as u32).collect(), ..Batch::default() }).unwrap();
        cpu.embed(&table, &mut x).unwrap();
        cpu.project(&x, None, &weight, self.finish, &mut y).unwrap();
        let mut out = vec![0.0; self.rows * self.outputs];
        cpu.read(&y, &mut out).unwrap();
        out
    }

    /// The same in f64 from activations in eight bits, and what rounding may account for.
    fn expected(&self) -> Vec<(f64, f64)> {
        let (table, weight) = self.weights();
        let (x, w) = (table.to_f32(), weight.to_f32());
        let held = x.chunks_exact(32).flat_map(|x| {
            let most = x.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            x.iter().map(move |v| f64::from(most / 127.0) * f64::from((v * (127.0 / most)).round_ties_even()))
        });
        let held: Vec<f64> = held.collect();
        let mut out = Vec::new();
        for x in held.chunks_exact(self.inputs) {
            let product = |row: usize| {
                let terms = x.iter().zip(&w[row * self.inputs..][..self.inputs]).map(|(x, &w)| x * f64::from(w));
                terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
            };
            for i in 0..self.outputs {
                let (sum, size) = product(i);
                out.push(match self.finish {
                    Finish::Replace | Finish::Add => (sum, 2e-6 * size),
                    Finish::SiluGate => {
                        let (up, up_size) = product(self.outputs + i);
                        let silu = sum / (1.0 + (-sum).exp());
                        (silu * up, 4e-6 * (size * up.abs() + silu.abs() * up_size + 1.0))
                    }
                });
            }
        }
        out
    }
}

#[test]
fn integers_agree_with_the_same_rounding_in_f64() {
    let cases: Vec<_> = Case::all().map(|case| (case, case.expected())).collect();
    for level in levels() {
        for pack in Pack::ALL {
            let options = Options { threads: Some(2), level: Some(level), pack, ..Options::default() };
            let mut cpu = Cpu::new(options).expect("threads start");
            for (case, expected) in &cases {
                for (i, (found, (expected, allowed))) in case.run(&mut cpu).iter().zip(expected).enumerate() {
                    let difference = (f64::from(*found) - expected).abs();
                    assert!(difference <= *allowed, "{level}, {case:?}, {i}: {found} for {expected}, beyond {allowed}");
                }
            }
        }
    }
}

#[test]
fn integers_do_not_depend_on_the_other_rows_or_the_threads() {
    for level in levels() {
        let run = |threads, pack, rows| {
            let options = Options { threads: Some(threads), level: Some(level), pack, ..Options::default() };
            let mut cpu = Cpu::new(options).expect("threads start");
            DType::ALL
                .into_iter()
                .filter(|dtype| dtype.is_quantised())
                .map(move |dtype| {
                    let case = Case { dtype, rows: 0, inputs: 512, outputs: 600, finish: Finish::Replace };
                    // the table's rows are the same numbers however many there are
                    Case { rows, ..case }.run(&mut cpu)
                })
                .collect::<Vec<_>>()
        };
        let whole = run(2, Pack::Load, 23);
        for (threads, pack, rows) in
            [(1, Pack::Load, 23), (3, Pack::Never, 23), (2, Pack::Load, 1), (2, Pack::Never, 5)]
        {
            for (whole, part) in whole.iter().zip(run(threads, pack, rows)) {
                let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!(
                    bits(&whole[..part.len()]),
                    bits(&part),
                    "{level}, {threads} threads, {pack:?}, {rows} rows"
                );
            }
        }
    }
}

#[test]
fn an_embedding_in_panels_gives_its_rows() {
    let mut cpu = Cpu::new(Options::default()).expect("threads start");
    for dtype in DType::ALL {
        let weight = Random(9).weight("table", dtype, 21, 256, 1.0);
        let table = cpu.matrix(&weight, Role::Plain).unwrap();
        let mut x = cpu.rows("x", 21, 256).unwrap();
        cpu.begin(&Batch { tokens: (0..21).rev().collect(), ..Batch::default() }).unwrap();
        cpu.embed(&table, &mut x).unwrap();
        let mut out = vec![0.0; 21 * 256];
        cpu.read(&x, &mut out).unwrap();
        for (found, expected) in out.chunks_exact(256).rev().zip(weight.to_f32().chunks_exact(256)) {
            assert_eq!(found, expected, "{dtype}");
        }
    }
}
