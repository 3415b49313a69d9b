//! The CPU backend against the reference, at every instruction set of this processor.
#![cfg(feature = "reference")]

use phi3_tensor::cpu::{Activations, Cpu, Isa, Options, Repack};
use phi3_tensor::ops::*;
use phi3_tensor::parity::{self, Random};
use phi3_tensor::reference::Reference;
use phi3_tensor::{
    Activation, Backend, Batch, BlockSparse, Bytes, DType, Epilogue, Heads, KvType, Mask, Norm, PAGE, Role, Weight,
};
use std::collections::HashSet;

/// Every available instruction set, or those of them named in `PHI3_LEVELS`.
fn levels() -> impl Iterator<Item = Isa> {
    let chosen = std::env::var("PHI3_LEVELS").ok();
    let chosen: Option<Vec<Isa>> = chosen.map(|names| {
        let levels = names.split(',').map(|name| Isa::from_name(name).unwrap_or_else(|| panic!("no isa {name}")));
        levels.inspect(|isa| assert!(isa.available(), "this processor has no {isa}")).collect()
    });
    Isa::ALL.into_iter().filter(move |isa| {
        let taken = isa.available() && chosen.as_ref().is_none_or(|chosen| chosen.contains(isa));
        if !taken {
            println!("skipped: {isa} is not available or not asked for");
        }
        taken
    })
}

#[test]
fn every_level_agrees_with_the_reference() {
    for isa in levels() {
        for threads in [1, 2] {
            let (threads, isa) = (Some(threads), Some(isa));
            let options = Options { threads, isa, activations: Activations::F32, ..Options::default() };
            let outcomes = parity::run(&mut Cpu::new(options).expect("threads start"), &[]).expect("every case runs");
            let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.ok()).collect();
            assert!(outcomes.len() > 100 && failed.is_empty(), "{} of {}: {failed:#?}", failed.len(), outcomes.len());
            let names: HashSet<&str> = outcomes.iter().map(|outcome| outcome.case.as_str()).collect();
            assert_eq!(names.len(), outcomes.len(), "several cases have the same name");
        }
    }
}

/// Rows of one sequence.
fn rows(tokens: Vec<u32>) -> Batch {
    let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE) as u32).collect();
    Batch::of(&tokens, 0, &pages).unwrap()
}

/// Rounding of the factors of a product with inexact activations.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rounding {
    /// Activations become multiples, up to 127, of a scale for each 32.
    Eight,
    EightPowers,
    /// Activations and weights become multiples, up to 5792, of a scale for each 64.
    Fourteen,
    /// Activations and weights become bf16.
    Bf16,
    None,
}

impl Rounding {
    /// Rounding by an ISA for a case; see `Activations::Int8`.
    fn of(isa: Isa, case: &Case) -> Self {
        let half = matches!(case.dtype, DType::F16 | DType::Bf16);
        match isa {
            Isa::Amx if case.rows > 1 && case.dtype != DType::F32 => Rounding::Bf16,
            _ if case.dtype.block().0 == 256 => Rounding::EightPowers,
            _ if case.dtype.is_quantized() => Rounding::Eight,
            Isa::Avx512Vnni | Isa::Amx if half && case.rows > 1 => Rounding::Fourteen,
            _ => Rounding::None,
        }
    }

    fn apply(self, row: &[f32], weight: bool) -> Vec<f64> {
        // multiples of a scale; `of` gives the scale and its inverse from the largest magnitude of `unit` numbers
        let multiples = |unit, of: fn(f32) -> (f32, f32)| {
            let round = move |part: &[f32]| {
                let (scale, inverse) = of(part.iter().fold(0.0f32, |most, v| most.max(v.abs())));
                let of = |v: &f32| f64::from(scale) * f64::from((v * inverse).round_ties_even());
                part.iter().map(of).collect::<Vec<_>>()
            };
            row.chunks(unit).flat_map(round).collect()
        };
        match self {
            Rounding::Eight if !weight => multiples(32, |most| (most / 127.0, 1.0 / (most / 127.0))),
            Rounding::EightPowers if !weight => multiples(32, |most| {
                let power = (most / 127.0).log2().ceil();
                (power.exp2(), (-power).exp2())
            }),
            Rounding::Fourteen => multiples(64, |most| (most / 5792.0, 5792.0 / most)),
            Rounding::Bf16 => row.iter().map(|&v| half::bf16::from_f32(v).to_f64()).collect(),
            _ => row.iter().map(|&v| f64::from(v)).collect(),
        }
    }

    /// Difference by a factor whose last bit depends on the order of operations, relative to the largest product.
    fn flip(self) -> f64 {
        match self {
            Rounding::Eight | Rounding::EightPowers | Rounding::None => 0.0,
            Rounding::Fourteen => 2.0 / 5792.0,
            Rounding::Bf16 => 1.0 / 128.0,
        }
    }
}

/// An output, the difference allowed for the rounding of sums, and the difference of a factor that is rounded otherwise.
type Expected = (f64, f64, f64);

/// A projection of `rows` rows of an f32 table.
#[derive(Clone, Copy, Debug)]
struct Case {
    dtype: DType,
    rows: usize,
    inputs: usize,
    outputs: usize,
    epilogue: Epilogue,
    bias: bool,
}

impl Case {
    const SHAPES: [(usize, usize); 4] = [(1, 37), (3, 16), (7, 2), (37, 50)];

    fn all() -> Vec<Case> {
        let mut all = Vec::new();
        for dtype in DType::ALL {
            let gated = Epilogue::of(Activation::SwiGlu);
            for (epilogue, bias) in
                [(Epilogue::OVERWRITE, false), (Epilogue::ACCUMULATE, true), (gated, false), (gated, true)]
            {
                let inputs = 96usize.next_multiple_of(dtype.block().0) + dtype.block().0;
                let of = |(rows, outputs)| Case { dtype, rows, inputs, outputs, epilogue, bias };
                all.extend(Self::SHAPES.map(of));
            }
        }
        // more elements than are converted to tiles at a time, and more outputs than a task has
        for (dtype, inputs) in [(DType::Q4K, 2304), (DType::Bf16, 2081)] {
            all.push(Case { dtype, rows: 24, inputs, outputs: 330, epilogue: Epilogue::OVERWRITE, bias: false });
        }
        all
    }

    fn weights(&self) -> (phi3_tensor::Weight, phi3_tensor::Weight) {
        let mut random = Random(self.inputs as u64 + self.outputs as u64);
        let table = random.weight("table", DType::F32, self.rows, self.inputs, 2.0);
        let rows = if self.epilogue.activation.is_gated() { 2 * self.outputs } else { self.outputs };
        let weight = Random(5).weight("w", self.dtype, rows, self.inputs, 0.2);
        match self.bias {
            true => (table, weight.with_bias(random.vector(rows, 1.0)).unwrap()),
            false => (table, weight),
        }
    }

    fn run(&self, cpu: &mut Cpu) -> Vec<f32> {
        let (table, weight) = self.weights();
        let role = if self.epilogue.activation.is_gated() { Role::GateUp } else { Role::Plain };
        let (table, weight) = (cpu.matrix(&table, Role::Plain).unwrap(), cpu.matrix(&weight, role).unwrap());
        let mut x = cpu.rows("x", self.rows, self.inputs).unwrap();
        let mut y = cpu.rows("y", self.rows, self.outputs).unwrap();
        cpu.begin(&rows((0..self.rows as u32).collect())).unwrap();
        cpu.embed(&table, 1.0, &mut x).unwrap();
        cpu.project(&x, None, &weight, self.epilogue, &mut y).unwrap();
        let mut out = vec![0.0; self.rows * self.outputs];
        cpu.read(&y, &mut out).unwrap();
        out
    }

    /// The projection in f64 of rounded factors.
    fn expected(&self, rounding: Rounding) -> Vec<Expected> {
        let (table, weight) = self.weights();
        let held = |all: Vec<f32>, weight| {
            let rows = all.chunks_exact(self.inputs).map(|row| rounding.apply(row, weight));
            rows.collect::<Vec<_>>()
        };
        let (x, w) = (held(table.to_f32(), false), held(weight.to_f32(), true));
        let mut out = Vec::new();
        for x in x {
            let product = |row: usize| {
                let terms = x.iter().zip(&w[row]).map(|(x, w)| x * w);
                let (sum, size, most) = terms.fold((0.0, 0.0, 0.0f64), |(sum, size, most), term| {
                    (sum + term, size + term.abs(), most.max(term.abs()))
                });
                let bias = weight.bias().map_or(0.0, |bias| f64::from(bias[row]));
                (sum + bias, size + bias.abs(), rounding.flip() * most)
            };
            for i in 0..self.outputs {
                let (sum, size, flip) = product(i);
                out.push(match self.epilogue.activation {
                    Activation::Identity => (sum, 2e-6 * size, flip),
                    _ => {
                        let (up, up_size, up_flip) = product(self.outputs + i);
                        let silu = sum / (1.0 + (-sum).exp());
                        let of = |gate: f64, up_part: f64| 2.0 * (gate * up.abs() + silu.abs() * up_part);
                        (silu * up, 4e-6 * (size * up.abs() + silu.abs() * up_size + 1.0), of(flip, up_flip))
                    }
                });
            }
        }
        out
    }
}

#[test]
fn products_agree_with_the_same_rounding_in_f64() {
    let mut expected: Vec<((usize, Rounding), Vec<Expected>)> = Vec::new();
    let mut seen = Vec::new();
    for isa in levels() {
        for repack in Repack::ALL {
            let options = Options { threads: Some(2), isa: Some(isa), repack, ..Options::default() };
            let mut cpu = Cpu::new(options).expect("threads start");
            for (i, case) in Case::all().iter().enumerate() {
                let key = (i, Rounding::of(isa, case));
                let place = expected.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
                    expected.push((key, case.expected(key.1)));
                    expected.len() - 1
                });
                seen.push(key.1);
                let (found, mut flips) = (case.run(&mut cpu), 0);
                for (i, (found, (expected, allowed, flip))) in found.iter().zip(&expected[place].1).enumerate() {
                    let difference = (f64::from(*found) - expected).abs();
                    let bound = allowed + flip;
                    assert!(difference <= bound, "{isa}, {case:?}, {i}: {found} for {expected}, beyond {bound}");
                    flips += usize::from(difference > *allowed);
                }
                assert!(20 * flips <= found.len(), "{isa}, {case:?}: {flips} of {} are off", found.len());
            }
        }
    }
    if std::env::var("PHI3_EMULATE").as_deref() == Ok("amx") && Isa::Avx512Vnni.available() {
        assert!(seen.contains(&Rounding::Bf16), "AMX was to be emulated");
    }
}

#[test]
fn integers_do_not_depend_on_the_other_rows_or_the_threads() {
    for isa in levels() {
        let run = |threads, repack, rows| {
            let options = Options { threads: Some(threads), isa: Some(isa), repack, ..Options::default() };
            let mut cpu = Cpu::new(options).expect("threads start");
            DType::ALL
                .into_iter()
                .filter(|dtype| dtype.is_quantized())
                .map(move |dtype| {
                    let case =
                        Case { dtype, rows: 0, inputs: 512, outputs: 600, epilogue: Epilogue::OVERWRITE, bias: false };
                    // the first rows of the table do not depend on its size
                    Case { rows, ..case }.run(&mut cpu)
                })
                .collect::<Vec<_>>()
        };
        let whole = run(2, Repack::AtLoad, 23);
        // one row is a new token, for which AMX rounds otherwise than for a prompt
        let fewest = if isa == Isa::Amx { 2 } else { 1 };
        for (threads, repack, rows) in
            [(1, Repack::AtLoad, 23), (3, Repack::Never, 23), (2, Repack::AtLoad, fewest), (2, Repack::Never, 5)]
        {
            for (whole, part) in whole.iter().zip(run(threads, repack, rows)) {
                let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!(
                    bits(&whole[..part.len()]),
                    bits(&part),
                    "{isa}, {threads} threads, {repack:?}, {rows} rows"
                );
            }
        }
    }
}

/// A page may hold keys and values of another sequence.
#[test]
fn what_a_row_does_not_see_may_be_no_numbers() {
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 20, rotary_dim: 20 };
    let mut random = Random(3);
    let mut values = random.vector(32 * 48, 1.0);
    values[..48].fill(f32::NAN);
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let table = Weight::new("table", DType::F32, 32, 48, Bytes::from(bytes)).unwrap();
    let weight = random.weight("w", DType::F32, heads.qkv_dim(), 48, 0.2);
    let gain = random.vector(48, 1.0);
    for (isa, kv) in levels().flat_map(|isa| KvType::ALL.map(|kv| (isa, kv))) {
        let mut cpu = Cpu::new(Options { isa: Some(isa), ..Options::default() }).expect("threads start");
        let table = cpu.matrix(&table, Role::Plain).unwrap();
        let (qkv, gain) = (cpu.matrix(&weight, Role::Qkv(heads)).unwrap(), cpu.vector("gain", &gain).unwrap());
        for rows in [1, 5, 21] {
            let mut cache = cpu.cache(1, heads, kv).unwrap();
            cpu.reserve(&mut cache, 2).unwrap();
            let [fresh, again] = [&[][..], &[0; 2 * PAGE]].map(|before: &[u32]| {
                let tokens: Vec<u32> = (1..=rows as u32).collect();
                let mut out = Vec::new();
                for tokens in [before, &tokens].into_iter().filter(|tokens| !tokens.is_empty()) {
                    let count = tokens.len();
                    let [mut x, mut q, mut y] =
                        [48, heads.q_dim(), heads.q_dim()].map(|dim| cpu.rows("rows", count, dim).unwrap());
                    let mut batch = Batch::of(tokens, 0, &[1, 0]).unwrap();
                    batch.rope_mut().extend((0..count * heads.rotary_dim / 2).flat_map(|_| [1.0, 0.0]));
                    cpu.begin(&batch).unwrap();
                    cpu.embed(&table, 1.0, &mut x).unwrap();
                    cpu.project_qkv(&x, Some(Norm::Rms { weight: &gain, eps: 1e-5 }), &[&qkv], &mut q, &mut cache, 0)
                        .unwrap();
                    cpu.attention(&q, &cache, 0, Mask::Causal, 0.2, &mut y).unwrap();
                    out = vec![0.0; count * heads.q_dim()];
                    cpu.read(&y, &mut out).unwrap();
                }
                out
            });
            assert!(fresh.iter().all(|v| v.is_finite()), "{isa}, {kv}, {rows} rows");
            assert_eq!(again, fresh, "{isa}, {kv}, {rows} rows");
        }
    }
}

/// The last new tokens and prompt rows of a sequence of 1,150 positions.
fn deep<B: Backend>(b: &mut B, heads: Heads, mask: Mask, kv: KvType) -> Vec<f32> {
    let mut random = Random(17);
    let table = b.matrix(&random.weight("table", DType::F32, 40, 24, 2.0), Role::Plain).unwrap();
    let qkv = b.matrix(&random.weight("qkv", DType::F32, heads.qkv_dim(), 24, 0.3), Role::Qkv(heads)).unwrap();
    let gain = b.vector("gain", &random.vector(24, 1.5)).unwrap();
    let [mut x, mut q, mut out] = [24, heads.q_dim(), heads.q_dim()].map(|dim| b.rows("rows", 550, dim).unwrap());
    let mut cache = b.cache(1, heads, kv).unwrap();
    let pages: Vec<u32> = (0..72).map(|page| page * 7 % 72).collect();
    b.reserve(&mut cache, pages.len()).unwrap();
    let mut all = Vec::new();
    for part in [0..550usize, 550..1100, 1100..1101, 1101..1106, 1106..1117, 1117..1150] {
        let tokens: Vec<u32> = part.clone().map(|i| (i * 13 % 40) as u32).collect();
        let mut batch = Batch::of(&tokens, part.start, &pages[..part.end.div_ceil(PAGE)]).unwrap();
        let angles = part.clone().flat_map(|i| (0..heads.rotary_dim / 2).map(move |j| i as f32 / (j + 1) as f32));
        batch.rope_mut().extend(angles.flat_map(|angle| [angle.cos(), angle.sin()]));
        b.begin(&batch).unwrap();
        b.embed(&table, 1.0, &mut x).unwrap();
        b.project_qkv(&x, Some(Norm::Rms { weight: &gain, eps: 1e-5 }), &[&qkv], &mut q, &mut cache, 0).unwrap();
        if part.len() < 500 {
            b.attention(&q, &cache, 0, mask, 1.0 / (heads.head_dim as f32).sqrt(), &mut out).unwrap();
            let at = all.len();
            all.resize(at + part.len() * heads.q_dim(), 0.0);
            b.read(&out, &mut all[at..]).unwrap();
        }
    }
    all
}

/// Positions are split between tasks where the threads have few tasks.
#[test]
fn attention_over_chunks_of_positions_has_the_bits_of_the_whole() {
    let blocks = Mask::Blocks(BlockSparse { block: 64, local: 2, stride: 5, head_step: 1 });
    for (isa, mask) in levels().flat_map(|isa| [Mask::Causal, Mask::Window(600), blocks].map(|mask| (isa, mask))) {
        for kv in KvType::ALL {
            let heads = Heads { heads: 6, kv_heads: 2, head_dim: 20, rotary_dim: 20 };
            let want = deep(&mut Reference::default(), heads, mask, kv);
            let [whole, parts] = [1, 9].map(|threads| {
                let (threads, isa) = (Some(threads), Some(isa));
                deep(&mut Cpu::new(Options { threads, isa, ..Options::default() }).unwrap(), heads, mask, kv)
            });
            assert!(whole == parts, "{isa} {mask:?} {kv}");
            let difference = want.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let size = want.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            let allowed = (1e-5 + parity::kv_step(kv) as f32) * (1.0 + size);
            assert!(want.len() == whole.len() && difference < allowed, "{isa} {mask:?} {kv}: {difference} of {size}");
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
        cpu.begin(&rows((0..21).rev().collect())).unwrap();
        cpu.embed(&table, 1.0, &mut x).unwrap();
        let mut out = vec![0.0; 21 * 256];
        cpu.read(&x, &mut out).unwrap();
        for (found, expected) in out.chunks_exact(256).rev().zip(weight.to_f32().chunks_exact(256)) {
            assert_eq!(found, expected, "{dtype}");
        }
    }
}
