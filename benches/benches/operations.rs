//! Every operation of Phi-3-mini at its real shapes, on the CPU and on a GPU if there is one: for one decoded token and for
//! rows of a prompt. The cases are those of `phi3-run bench kernels`; throughput is in bytes that must be read and written.
//!
//! `cargo bench -- CPU/bf16` selects cases. PHI3_ADAPTER names a GPU. A software GPU is measured too, with fewer rows; the output
//! names the device.

#![allow(missing_docs, reason = "the macro of criterion makes public functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use phi3_model::variant;
use phi3_runner::kernels::{Case, ModelShape, Op};
use phi3_runner::{Error, Result};
use phi3_tensor::cpu::Cpu;
use phi3_tensor::gpu::{Gpu, Options, Select};
use phi3_tensor::{Backend, DType, DeviceKind, KvType};
use std::time::Duration;

const TYPES: [DType; 3] = [DType::Bf16, DType::Q8_0, DType::Q4K];

fn machine<B: Backend>(criterion: &mut Criterion, name: &str, shape: &ModelShape, mut b: B) -> Result<()> {
    let limits = b.limits().map_err(phi3_model::Error::from)?;
    println!("{name}: {}; {}; {limits:?}", b.info(), b.clock());
    let rows = if b.info().kind == DeviceKind::SoftwareGpu { [1, 4] } else { [1, 128] };
    for op in Op::ALL {
        let types = if op.has_weights() { TYPES.map(Some).to_vec() } else { vec![None] };
        for dtype in types {
            let kind = dtype.map_or_else(|| "f32", DType::name);
            let mut group = criterion.benchmark_group(format!("{name}/{kind}"));
            group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
            let mut case = Case::new(&mut b, shape, op, dtype, rows[1]);
            for rows in rows.into_iter().filter(|&rows| op.takes(rows)) {
                group.throughput(Throughput::Bytes(shape.work(op, dtype, rows).bytes as u64));
                let timed = case.as_mut().map_err(|error| error.to_string()).and_then(|case| {
                    let clocked = case.clocked(&mut b, rows, |clock| {
                        group.bench_function(format!("{}/{rows}", op.name()), |bench| {
                            bench.iter_custom(|runs| clock(runs).expect("it ran before"));
                        });
                    });
                    clocked.map_err(|error| error.to_string())
                });
                if let Err(error) = timed {
                    println!("{name}/{kind}/{}/{rows} left out: {error}", op.name());
                }
            }
            group.finish();
        }
    }
    Ok(())
}

fn operations(criterion: &mut Criterion) {
    let spec = variant("phi-3-mini-4k").expect("a variant");
    let shape = ModelShape { spec, context: 1024, kv: KvType::F32 };
    let select = std::env::var("PHI3_ADAPTER").map_or(Select::Any, Select::Name);
    let cpu = Cpu::new(phi3_tensor::cpu::Options::default());
    let gpu = Gpu::open(&select, &Options { software: true, ..Options::default() });
    let error = |error| Error::from(phi3_model::Error::from(error));
    let cpu = cpu.map_err(error).and_then(|cpu| machine(criterion, "CPU", &shape, cpu));
    let gpu = gpu.map_err(error).and_then(|gpu| machine(criterion, "GPU", &shape, gpu));
    for (name, outcome) in [("CPU", cpu), ("GPU", gpu)] {
        if let Err(error) = outcome {
            println!("{name} left out: {error}");
        }
    }
}

criterion_group!(benches, operations);
criterion_main!(benches);
