//! A decoded token on the CPU allocates nothing.

use phi3_model::{Input, Model, Outputs, RopeSet, RowInput, Segment};
use phi3_runner::{Device, DeviceOptions, Engine};
use phi3_tensor::Phase;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

struct Counting;

static BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: all calls are forwarded to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller upholds the contract of `GlobalAlloc`, which is that of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of `GlobalAlloc`, which is that of the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that the layers of eight decoded tokens allocate.
fn allocated(model: &mut dyn Model) -> u64 {
    let mut step = |inputs: &[RowInput], position| {
        let segment = Segment {
            inputs,
            phase: Phase::of(inputs.len()),
            position,
            pages: &[0, 1],
            rope: RopeSet::Short,
            outputs: Outputs::Last,
        };
        model.forward(&[segment], None).expect("a pass");
    };
    let token = |id| RowInput::Input(Input::Token(id));
    step(&[const { RowInput::Input(Input::Token(5)) }; 16], 0);
    step(&[token(0)], 16);
    // the second page has room for fifteen more tokens
    let inputs = [0, 1, 2, 3, 4, 5, 6, 7].map(token);
    let before = BYTES.load(Relaxed);
    inputs.iter().enumerate().for_each(|(i, input)| step(std::slice::from_ref(input), 17 + i));
    BYTES.load(Relaxed) - before
}

#[test]
fn a_decoded_token_allocates_nothing() {
    for quant in [None, Some("q8_0"), Some("q4_k_m")] {
        for pack in phi3_tensor::cpu::Repack::ALL {
            let quant = quant.map(|quant| quant.parse().expect("a scheme"));
            let device_options =
                DeviceOptions { device: Device::Cpu, threads: Some(2), quant, pack, ..DeviceOptions::default() };
            let engine = Engine::builder().device_options(device_options).build().expect("the demo model");
            let allocated = engine.with_model(|model| (0..8).map(|_| allocated(model)).collect::<Vec<_>>());
            let allocated = allocated.expect("the model");
            // a thread allocates its scratch memory at its first task, which may come late on a busy machine
            assert!(allocated.contains(&0), "bytes for 8 tokens: {allocated:?}, {quant:?}, {pack:?}");
        }
    }
}
