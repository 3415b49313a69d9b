//! Bits of a row on the CPU: the same alone and among others of its phase, whatever the other rows of the pass are.

use phi3_tensor::cpu::{Cpu, Options};
use phi3_tensor::ops::*;
use phi3_tensor::parity::Random;
use phi3_tensor::{Batch, DType, Epilogue, Phase, Role};
use std::ops::Range;

const ROWS: usize = 100;
const N: usize = 80;
const K: usize = 512;

#[test]
fn a_row_has_the_same_bits_among_others() {
    for dtype in DType::ALL {
        let mut cpu = Cpu::new(Options::default()).unwrap();
        let weight = cpu.matrix(&Random(3).weight("w", dtype, N, K, 0.1), Role::Plain).unwrap();
        let values = Random(5).vector(ROWS * K, 1.0);
        let (mut x, mut y) = (cpu.rows("x", ROWS, K).unwrap(), cpu.rows("y", ROWS, N).unwrap());
        // projected rows, the first of them new tokens and the others of a prompt
        let mut run = |rows: Range<usize>, decode: usize| {
            let mut batch = Batch::default();
            for row in 0..rows.len() {
                let phase = if row < decode { Phase::Decode } else { Phase::Prompt };
                batch.push_as(phase, &[0], 0, &[row as u32]).unwrap();
            }
            cpu.begin(&batch).unwrap();
            cpu.write(&mut x, 0, &values[rows.start * K..rows.end * K]).unwrap();
            cpu.project(&x, None, &weight, Epilogue::OVERWRITE, &mut y).unwrap();
            let mut out = vec![0.0; rows.len() * N];
            cpu.read(&y, &mut out).unwrap();
            out
        };
        let decode: Vec<f32> = (0..ROWS).flat_map(|row| run(row..row + 1, 1)).collect();
        let prompt: Vec<f32> = (0..ROWS).flat_map(|row| run(row..row + 1, 0)).collect();
        for rows in [2, 3, 7, 8, 15, 16, 17, 23, 24, 33, 64, ROWS] {
            for of_decode in [0, 1, 5, rows / 2, rows] {
                let of_decode = of_decode.min(rows);
                let got = run(0..rows, of_decode);
                let (first, rest) = got.split_at(of_decode * N);
                let same = first == &decode[..of_decode * N] && rest == &prompt[of_decode * N..rows * N];
                assert!(same, "{dtype}: {rows} rows, {of_decode} of them new tokens");
            }
        }
    }
}
