//! A decoded token on the CPU allocates nothing.

use phi3_model::{Input, Outputs, SequenceRows};
use phi3_runner::{Device, DeviceOptions, Engine};
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

#[test]
fn a_decoded_token_allocates_nothing() {
    for quant in [None, Some("q8_0"), Some("q4_k_m")] {
        for pack in phi3_tensor::cpu::Repack::ALL {
            let quant = quant.map(|quant| quant.parse().expect("a scheme"));
            let device_options =
                DeviceOptions { device: Device::Cpu, threads: Some(2), quant, pack, ..DeviceOptions::default() };
            let mut engine = Engine::builder().device_options(device_options).build().expect("the demo model");
            let model = engine.model();
            let mut logits = Vec::new();
            let mut sequences: Vec<_> = (0..8).map(|_| model.sequence()).collect();
            let mut step = |inputs: &[Input], sequence: &mut _| {
                let feed = SequenceRows { sequence, inputs, outputs: Outputs::Last };
                model.forward(&mut [feed], &mut logits, None).expect("a pass");
            };
            let mut allocated = [0; 8];
            for allocated in &mut allocated {
                // the second page has room for fifteen more tokens
                let mut sequence = sequences.remove(0);
                step(&[const { Input::Token(5) }; 16], &mut sequence);
                step(&[Input::Token(0)], &mut sequence);
                let before = BYTES.load(Relaxed);
                (0..8).for_each(|i| step(&[Input::Token(i)], &mut sequence));
                *allocated = BYTES.load(Relaxed) - before;
            }
            // a thread allocates its scratch memory at its first task, which may come late on a busy machine
            assert!(allocated.contains(&0), "bytes for 8 tokens: {allocated:?}, {quant:?}, {pack:?}");
        }
    }
}
