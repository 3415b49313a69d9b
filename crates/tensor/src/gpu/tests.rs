//! Submissions and bind groups of passes.

use super::{Gpu, Options, Select};
use crate::ops::*;
use crate::parity::Random;
use crate::{Batch, DType, Device, Epilogue, Heads, KvType, Mask, Norm, Role, Samples};

const ROWS: usize = 40;
const HEADS: Heads = Heads { heads: 2, kv_heads: 1, head_dim: 16, rotary_dim: 16 };

/// A pass of four projections and attention, with a limit of multiply-adds per submission: its result, and the number of
/// submissions.
fn pass(budget: u64) -> Option<(Vec<f32>, u64)> {
    let mut gpu = match Gpu::open(&Select::Any, &Options { software: true, ..Options::default() }) {
        Ok(gpu) => gpu,
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    gpu.recorder.budget = budget;
    let mut random = Random(7);
    let table = gpu.matrix(&random.weight("table", DType::F32, ROWS, 32, 1.0), Role::Embedding).unwrap();
    let qkv = gpu.matrix(&random.weight("qkv", DType::F16, HEADS.qkv_dim(), 32, 0.3), Role::Qkv(HEADS)).unwrap();
    let square = gpu.matrix(&random.weight("square", DType::Q8_0, 32, 32, 0.3), Role::Plain).unwrap();
    let gain = gpu.vector("gain", &random.vector(32, 1.0)).unwrap();
    let mut x = gpu.rows("x", ROWS, 32).unwrap();
    let mut q = gpu.rows("q", ROWS, HEADS.q_dim()).unwrap();
    let mut mixed = gpu.rows("mixed", ROWS, HEADS.q_dim()).unwrap();
    let mut cache = gpu.cache(1, HEADS, KvType::F32).unwrap();
    gpu.reserve(&mut cache, 3).unwrap();
    let mut batch = Batch::of(&(0..ROWS as u32).collect::<Vec<_>>(), 0, &[0, 1, 2]).unwrap();
    batch.rope_mut().extend(random.vector(ROWS * HEADS.rotary_dim, 1.0));
    let before = gpu.counters().submits;
    gpu.begin(&batch).unwrap();
    gpu.embed(&table, 1.0, &mut x).unwrap();
    gpu.project_qkv(&x, Some(Norm::Rms { weight: &gain, eps: 1e-5 }), &[&qkv], &mut q, &mut cache, 0).unwrap();
    gpu.attention(&q, &cache, 0, Mask::Causal, 0.25, &mut mixed).unwrap();
    for _ in 0..3 {
        gpu.project(&mixed, None, &square, Epilogue::ACCUMULATE, &mut x).unwrap();
    }
    let mut out = vec![0.0; ROWS * 32];
    gpu.read(&x, &mut out).unwrap();
    Some((out, gpu.counters().submits - before))
}

#[test]
fn a_pass_of_much_work_is_several_submissions() {
    let Some((want, submits)) = pass(super::recorder::BUDGET) else { return };
    assert_eq!(submits, 1);
    let square = (ROWS * 32 * 32) as u64;
    // rows * positions * heads * head_dim, for keys and for values
    let attention = (ROWS * ROWS * 2 * 16 * 2) as u64;
    for (budget, submits) in [
        (5 * square + attention, 1),
        (5 * square + attention - 1, 2),
        // attention alone is more than that
        (2 * square, 4),
        (1, 5),
    ] {
        assert_eq!(pass(budget), Some((want.clone(), submits)), "{budget}");
    }
}

/// A pass is not waited for when it is submitted, and its end can be.
#[test]
fn submitting_a_pass_does_not_wait() {
    let options = Options { software: true, ..Options::default() };
    let Ok(mut gpu) = Gpu::open(&Select::Any, &options) else {
        println!("skipped: no adapter");
        return;
    };
    let table = gpu.matrix(&Random(3).weight("table", DType::F16, 16, 24, 1.0), Role::Plain).unwrap();
    let mut x = gpu.rows("x", 16, 24).unwrap();
    for (rows, waits) in [(1, 1), (16, 2), (4, 3)] {
        let batch = Batch::of(&(0..rows).collect::<Vec<_>>(), 0, &[0]).unwrap();
        for _ in 0..6 {
            gpu.begin(&batch).unwrap();
            gpu.embed(&table, 1.0, &mut x).unwrap();
            gpu.submit().unwrap();
        }
        gpu.sample(&mut x, &Samples::default()).unwrap().wait().unwrap();
        assert_eq!(gpu.device.driver.waits(), waits, "{rows} rows");
    }
}

#[test]
fn bind_groups_of_dropped_buffers_are_let_go() {
    let options = Options { software: true, ..Options::default() };
    let Ok(mut gpu) = Gpu::open(&Select::Any, &options) else {
        println!("skipped: no adapter");
        return;
    };
    let mut x = gpu.rows("x", 1, 24).unwrap();
    let batch = Batch::of(&[5], 0, &[0]).unwrap();
    for _ in 0..3 {
        let table = gpu.matrix(&Random(3).weight("table", DType::F16, 8, 24, 1.0), Role::Plain).unwrap();
        gpu.begin(&batch).unwrap();
        gpu.embed(&table, 1.0, &mut x).unwrap();
        gpu.submit().unwrap();
        assert_eq!(gpu.recorder.pipelines.kept(), 1);
    }
    assert_eq!(gpu.counters().bind_groups, 3);
}
