//! A decoded token on the CPU allocates nothing.

use phi3_model::{Feed, Input, Outputs};
use phi3_runner::{Device, Engine, Setup};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

struct Counting;

static BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: hands everything to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_decoded_token_allocates_nothing() {
    for quant in [None, Some("q8_0"), Some("q4_k_m")] {
        for pack in phi3_tensor::cpu::Repack::ALL {
            let quant = quant.map(|quant| quant.parse().expect("a recipe"));
            let setup = Setup { device: Device::Cpu, threads: Some(2), quant, pack, ..Setup::default() };
            let mut engine = Engine::builder().setup(setup).build().expect("the demo model");
            let model = engine.model();
            let mut logits = Vec::new();
            let mut sequences: Vec<_> = (0..8).map(|_| model.sequence()).collect();
            let mut step = |inputs: &[Input], sequence: &mut _| {
                let feed = Feed { sequence, inputs, outputs: Outputs::Last };
                model.forward(&mut [feed], &mut logits, None).expect("a pass");
            };
            let mut allocated = [0; 8];
            for allocated in &mut allocated {
                // fifteen tokens of room are left on the second page
                let mut sequence = sequences.remove(0);
                step(&[const { Input::Token(5) }; 16], &mut sequence);
                step(&[Input::Token(0)], &mut sequence);
                let before = BYTES.load(Relaxed);
                (0..8).for_each(|i| step(&[Input::Token(i)], &mut sequence));
                *allocated = BYTES.load(Relaxed) - before;
            }
            // a thread gets its scratch with its first task, which on a busy machine may come late
            assert!(allocated.contains(&0), "bytes for 8 tokens: {allocated:?}, {quant:?}, {pack:?}");
        }
    }
}
