//! Interleaving in the background: passes begin at once and fill the panels that they need, beside a thread that fills the others.

use super::repack::Panels;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

#[derive(Default)]
struct State {
    queue: VecDeque<Arc<Panels>>,
    paused: bool,
    stopped: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The matrix to be filled, as soon as there is one and nothing is paused; `None` at the end.
    fn next(&self) -> Option<Arc<Panels>> {
        let mut state = self.lock();
        while !state.stopped && (state.paused || state.queue.is_empty()) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.queue.front().filter(|_| !state.stopped).cloned()
    }

    fn serve(&self) {
        while let Some(panels) = self.next() {
            for i in 0..panels.len() {
                if self.next().is_none() {
                    return;
                }
                panels.fill(i);
            }
            self.lock().queue.pop_front();
        }
    }
}

/// A thread that fills the panels of matrices, one matrix after another.
#[derive(Default)]
pub(super) struct Interleaver {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Interleaver {
    /// Has the panels filled; fills them where there is no thread.
    pub(super) fn add(&mut self, panels: Arc<Panels>) {
        if self.thread.is_none() {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new().name("phi3-interleave".into());
            self.thread = thread.spawn(move || shared.serve()).ok();
        }
        if self.thread.is_none() {
            return (0..panels.len()).for_each(|i| panels.fill(i));
        }
        self.shared.lock().queue.push_back(panels);
        self.shared.changed.notify_one();
    }

    /// Pauses or goes on: a prompt needs every processor, new tokens wait for memory.
    pub(super) fn pause(&self, paused: bool) {
        self.shared.lock().paused = paused;
        self.shared.changed.notify_one();
    }
}

impl Drop for Interleaver {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // a panic there has been reported, and its panel is interleaved on use
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Interleaver, Panels};
    use crate::cpu::repack::Order;
    use crate::cpu::{Cpu, Options, Repack};
    use crate::ops::{Embed, Project};
    use crate::{Batch, Bytes, DType, Device, Epilogue, Memory, Phase, Role, Weight};
    use std::ops::Range;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;
    use std::time::{Duration, Instant};

    const INPUTS: usize = 512;
    const OUTPUTS: usize = 4096;

    /// A file's mapping, which counts the bytes that are released.
    struct Mapping(Vec<u8>, AtomicUsize);

    impl Memory for Mapping {
        fn bytes(&self) -> &[u8] {
            &self.0
        }

        fn is_mapped(&self) -> bool {
            true
        }

        fn release(&self, range: Range<usize>) {
            self.1.fetch_add(range.len(), SeqCst);
        }
    }

    /// Bits of products of a matrix over `mapping`, one pass after another, until `done`.
    fn products(repack: Repack, mapping: &Arc<Mapping>, phase: Phase, done: impl Fn(usize) -> bool) -> Vec<Vec<u32>> {
        let mut cpu = Cpu::new(Options { threads: Some(2), repack, ..Options::default() }).unwrap();
        let values: Vec<f32> = (0..INPUTS).map(|i| (i * 37 % 101) as f32 * 0.02 - 1.0).collect();
        let table = bytemuck::cast_slice(&values).to_vec();
        let table = Weight::new("table", DType::F32, 1, INPUTS, Bytes::from(table)).unwrap();
        let table = cpu.matrix(&table, Role::Embedding).unwrap();
        let bytes = Bytes::new(mapping.clone(), 0..mapping.0.len()).unwrap();
        let weight = Weight::new("w", DType::Q4K, OUTPUTS, INPUTS, bytes).unwrap();
        let weight = cpu.matrix(&weight, Role::Plain).unwrap();
        let mut x = cpu.rows("x", 1, INPUTS).unwrap();
        let mut y = cpu.rows("y", 1, OUTPUTS).unwrap();
        let mut batch = Batch::default();
        batch.push_as(phase, &[0], 0, &[0]).unwrap();
        let mut all = Vec::new();
        while !done(all.len()) {
            cpu.begin(&batch).unwrap();
            cpu.embed(&table, 1.0, &mut x).unwrap();
            cpu.project(&x, None, &weight, Epilogue::OVERWRITE, &mut y).unwrap();
            let mut out = vec![0.0f32; OUTPUTS];
            cpu.read(&y, &mut out).unwrap();
            all.push(out.iter().map(|v| v.to_bits()).collect());
        }
        all
    }

    fn mapping() -> Arc<Mapping> {
        let values: Vec<f32> = (0..OUTPUTS * INPUTS).map(|i| (i * 31 % 127) as f32 * 0.01 - 0.6).collect();
        Arc::new(Mapping(crate::quant::quantize(DType::Q4K, &values).unwrap(), AtomicUsize::new(0)))
    }

    #[test]
    fn products_are_the_same_before_and_while_panels_are_filled_and_then_the_file_is_released() {
        let file = mapping();
        let expected = products(Repack::AtLoad, &mapping(), Phase::Decode, |passes| passes == 1);
        let (since, released) = (Instant::now(), || file.1.load(SeqCst) == file.0.len());
        // some passes more, from the panels
        let ended = AtomicUsize::new(usize::MAX);
        let found = products(Repack::InBackground, &file, Phase::Decode, |passes| {
            assert!(since.elapsed() < Duration::from_secs(60), "{passes} passes, and the file was not released");
            if released() {
                ended.fetch_min(passes, SeqCst);
            }
            passes > ended.load(SeqCst).saturating_add(3)
        });
        assert!(found.iter().all(|found| *found == expected[0]));
        assert!(released(), "the file was released more than once");
    }

    #[test]
    fn a_prompt_fills_what_it_uses_and_releases_the_file() {
        let file = mapping();
        let expected = products(Repack::AtLoad, &mapping(), Phase::Prompt, |passes| passes == 1);
        assert_eq!(products(Repack::InBackground, &file, Phase::Prompt, |passes| passes == 1), expected);
        assert_eq!(file.1.load(SeqCst), file.0.len());
    }

    #[test]
    fn a_paused_thread_fills_nothing_and_ends_with_its_backend() {
        let file = mapping();
        let bytes = Bytes::new(file.clone(), 0..file.0.len()).unwrap();
        let weight = Weight::new("w", DType::Q4K, OUTPUTS, INPUTS, bytes).unwrap();
        let panels = || Arc::new(Panels::new(weight.clone(), Order { rows: OUTPUTS, gated: false }).unwrap());
        let mut interleaver = Interleaver::default();
        interleaver.pause(true);
        interleaver.add(panels());
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(file.1.load(SeqCst), 0);
        interleaver.pause(false);
        let since = Instant::now();
        while file.1.load(SeqCst) != file.0.len() {
            assert!(since.elapsed() < Duration::from_secs(60), "the thread does not go on");
            std::thread::sleep(Duration::from_millis(1));
        }
        interleaver.pause(true);
        interleaver.add(panels());
        drop(interleaver);
        assert_eq!(file.1.load(SeqCst), file.0.len());
    }
}
