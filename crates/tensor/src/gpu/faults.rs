//! Failures while a device works: the call that reports them, and the calls after it.

use super::{Gpu, Matrix, Options, Rows, Select};
use crate::ops::*;
use crate::parity::Random;
use crate::{Batch, Clock, DType, Device, Epilogue, Error, Heads, KvType, Readback, Result, Role, Sampled, Samples};
use std::time::{Duration, Instant};

const WIDTH: usize = 24;

/// Passes in flight.
const DEPTH: usize = 4;

/// A device with a table that is embedding and head.
struct Fixture {
    gpu: Gpu,
    table: Matrix,
    x: Rows,
    logits: Rows,
    /// Logits of a pass over token 5.
    want: Vec<f32>,
}

impl Fixture {
    fn new() -> Option<Self> {
        let mut gpu = match Gpu::open(&Select::Any, &Options { software: true, ..Options::default() }) {
            Ok(gpu) => gpu,
            Err(error) => {
                println!("skipped: {error}");
                return None;
            }
        };
        let table = gpu.matrix(&Random(3).weight("table", DType::F32, WIDTH, WIDTH, 1.0), Role::Plain).unwrap();
        let (x, logits) = (gpu.rows("x", 1, WIDTH).unwrap(), gpu.rows("logits", 1, WIDTH).unwrap());
        gpu.reserve_slots(1).unwrap();
        let mut fixture = Self { gpu, table, x, logits, want: Vec::new() };
        fixture.want = fixture.read().unwrap();
        assert!(fixture.want.iter().all(|value| value.is_finite() && *value != 0.0));
        Some(fixture)
    }

    fn record(&mut self, token: u32) -> Result<()> {
        self.gpu.begin(&Batch::of(&[token], 0, &[0])?)?;
        self.gpu.embed(&self.table, 1.0, &mut self.x)?;
        self.gpu.project(&self.x, None, &self.table, Epilogue::OVERWRITE, &mut self.logits)
    }

    fn read(&mut self) -> Result<Vec<f32>> {
        self.record(5)?;
        let mut out = vec![0.0; WIDTH];
        self.gpu.read(&self.logits, &mut out)?;
        Ok(out)
    }

    fn launch(&mut self, token: u32) -> Result<Readback<Sampled>> {
        self.record(token)?;
        self.gpu.sample(&mut self.logits, &Samples::greedy(1))
    }

    /// The token of the largest logit of a pass over token 5.
    fn argmax(&self) -> u32 {
        (0..WIDTH).max_by(|a, b| self.want[*a].total_cmp(&self.want[*b])).unwrap() as u32
    }

    /// Creates an invalid buffer.
    fn invalid(&mut self) {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE;
        let descriptor = wgpu::BufferDescriptor { label: Some("invalid"), size: 16, usage, mapped_at_creation: false };
        drop(self.gpu.device.raw.create_buffer(&descriptor));
    }
}

#[track_caller]
fn failed<T>(result: Result<T>, words: &str) {
    let Err(error) = result else { panic!("no error") };
    assert!(matches!(error, Error::Device { .. }) && error.to_string().contains(words), "{error}");
}

#[test]
fn an_error_belongs_to_the_pass_during_which_it_happened() {
    let Some(mut fixture) = Fixture::new() else { return };
    let want = fixture.want.clone();
    for _ in 0..2 {
        // while a pass is recorded
        fixture.record(5).unwrap();
        fixture.invalid();
        let mut out = vec![0.0; WIDTH];
        failed(fixture.gpu.read(&fixture.logits, &mut out), "invalid");
        assert_eq!(fixture.read().unwrap(), want);
        // during a wait, when memory is mapped
        fixture.gpu.device.driver.set_wrong_wait(Some("a fault of a driver"));
        failed(fixture.read(), "a fault of a driver");
        assert_eq!(fixture.read().unwrap(), want);
        // of several failures the first is reported
        fixture.record(5).unwrap();
        fixture.invalid();
        fixture.gpu.device.driver.set_wrong_wait(Some("a fault of a driver"));
        failed(fixture.gpu.submit(), "invalid");
        assert_eq!(fixture.gpu.device.driver.set_wrong_wait(None), Some("a fault of a driver"));
        assert_eq!(fixture.read().unwrap(), want);
    }
    fixture.invalid();
    failed(fixture.gpu.vector("gain", &[1.0]), "invalid");
    fixture.gpu.vector("gain", &[1.0]).unwrap();
    fixture.invalid();
    failed(fixture.gpu.rows("x", 1, 8), "invalid");
    fixture.gpu.rows("x", 1, 8).unwrap();
    let heads = Heads { heads: 1, kv_heads: 1, head_dim: 8, rotary_dim: 8 };
    let mut cache = fixture.gpu.cache(1, heads, KvType::F32).unwrap();
    fixture.gpu.reserve(&mut cache, 16).unwrap();
    fixture.gpu.device.driver.set_wrong_wait(Some("a fault of a driver"));
    failed(fixture.gpu.reserve(&mut cache, 33), "a fault of a driver");
    fixture.gpu.reserve(&mut cache, 33).unwrap();
    assert_eq!(fixture.read().unwrap(), want);
}

#[test]
fn tokens_are_sampled_after_an_error_as_before() {
    let Some(mut fixture) = Fixture::new() else { return };
    let want = vec![fixture.argmax()];
    for _ in 0..3 {
        let mut launched: Vec<_> = (0..DEPTH).map(|_| fixture.launch(5).unwrap()).collect();
        fixture.gpu.device.driver.set_wrong_wait(Some("a fault of a driver"));
        failed(launched.remove(0).wait(), "a fault of a driver");
        launched.into_iter().for_each(|sampled| assert_eq!(sampled.wait().unwrap().tokens, want));
        fixture.record(5).unwrap();
        fixture.invalid();
        failed(fixture.gpu.sample(&mut fixture.logits, &Samples::greedy(1)), "invalid");
        // a result that is dropped does not disturb the others
        let launched = [5, 5, 5].map(|token| fixture.launch(token).unwrap());
        let [dropped, polled, waited] = launched;
        drop(dropped);
        assert_eq!(waited.wait().unwrap().tokens, want);
        let mut polled = polled;
        assert!(polled.is_complete() && polled.wait().unwrap().tokens == want);
    }
}

#[test]
fn times_are_measured_after_an_error_as_before() {
    let Some(mut fixture) = Fixture::new() else { return };
    let measure = |fixture: &mut Fixture| {
        fixture.gpu.timestamp()?;
        fixture.record(5)?;
        fixture.gpu.timestamp()?;
        fixture.gpu.elapsed()
    };
    let clock = fixture.gpu.clock();
    assert_eq!(measure(&mut fixture).unwrap().len(), 1);
    fixture.gpu.device.driver.set_wrong_wait(Some("a fault of a driver"));
    failed(measure(&mut fixture), "a fault of a driver");
    if clock == Clock::Device {
        assert_eq!(measure(&mut fixture).unwrap().len(), 1);
    }
    let want = fixture.want.clone();
    assert_eq!(fixture.read().unwrap(), want);
}

/// Every call ends with the same error.
fn all_fail(fixture: &mut Fixture, is_right: fn(&Error) -> bool) {
    let start = Instant::now();
    let heads = Heads { heads: 1, kv_heads: 1, head_dim: 8, rotary_dim: 8 };
    for round in 0..2 {
        let check = |what: &str, result: Result<()>| {
            let Err(error) = result else { panic!("{what}, round {round}: no error") };
            assert!(is_right(&error) && error.to_string().contains("; hint: open the device again"), "{what}: {error}");
        };
        check("read", fixture.read().map(drop));
        check("launch", fixture.launch(5).map(drop));
        check("submit", fixture.gpu.submit());
        check("rows", fixture.gpu.rows("x", 1, 8).map(drop));
        check("vector", fixture.gpu.vector("v", &[1.0]).map(drop));
        check("matrix", fixture.gpu.matrix(&Random(3).weight("w", DType::F16, 8, 8, 1.0), Role::Plain).map(drop));
        let mut cache = fixture.gpu.cache(1, heads, KvType::F32).unwrap();
        check("reserve", fixture.gpu.reserve(&mut cache, 3));
    }
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn a_lost_device_says_so_from_then_on() {
    let Some(mut fixture) = Fixture::new() else { return };
    let launched: Vec<_> = (0..DEPTH).map(|_| fixture.launch(5).unwrap()).collect();
    fixture.gpu.device.raw.destroy();
    let lost = |error: &Error| matches!(error, Error::Lost { message, .. } if message.contains("device lost"));
    let want = vec![fixture.argmax()];
    for sampled in launched {
        match sampled.wait() {
            // a result that was complete before the loss
            Ok(sampled) => assert_eq!(sampled.tokens, want),
            // the driver reports the loss when nothing is in flight
            Err(error) => assert!(lost(&error) || matches!(error, Error::Device { .. }), "{error}"),
        }
    }
    all_fail(&mut fixture, lost);
}

#[test]
fn a_device_that_hangs_is_given_up_once() {
    let Some(mut fixture) = Fixture::new() else { return };
    let launched: Vec<_> = (0..DEPTH).map(|_| fixture.launch(5).unwrap()).collect();
    // work that takes longer than the wait
    let big = fixture.gpu.matrix(&Random(3).weight("big", DType::F32, 2048, 2048, 1.0), Role::Plain).unwrap();
    let (mut x, mut y) = (fixture.gpu.rows("x", 64, 2048).unwrap(), fixture.gpu.rows("y", 64, 2048).unwrap());
    fixture.gpu.begin(&Batch::of(&[1; 64], 0, &[0, 1, 2, 3]).unwrap()).unwrap();
    fixture.gpu.embed(&big, 1.0, &mut x).unwrap();
    (0..16).for_each(|_| fixture.gpu.project(&x, None, &big, Epilogue::OVERWRITE, &mut y).unwrap());
    launched.into_iter().for_each(|sampled| assert!(sampled.wait().is_ok()));
    fixture.gpu.device.driver.set_timeout(Duration::ZERO);
    let hung = |error: &Error| matches!(error, Error::Timeout { seconds: 0, .. });
    let error = fixture.gpu.read(&y, &mut [0.0; 2048]).unwrap_err();
    assert!(hung(&error) && error.to_string().contains("within 0 s"), "{error}");
    // there is no second wait
    fixture.gpu.device.driver.set_timeout(Duration::from_secs(3600));
    all_fail(&mut fixture, hung);
}

#[test]
fn a_deadline_is_a_submissions_own() {
    let Some(mut fixture) = Fixture::new() else { return };
    let outstanding = |fixture: &Fixture| fixture.gpu.device.driver.outstanding();
    let submit = |fixture: &mut Fixture| {
        fixture.record(5).unwrap();
        fixture.gpu.recorder.flush(&mut fixture.gpu.device).unwrap().unwrap()
    };
    assert_eq!(outstanding(&fixture), 0);
    let submissions: Vec<_> = (0..5).map(|_| submit(&mut fixture)).collect();
    assert_eq!(outstanding(&fixture), 5);
    fixture.gpu.device.wait(submissions[2].clone()).unwrap();
    assert_eq!(outstanding(&fixture), 2);
    // a second wait, and a wait for a submission before one that is complete
    fixture.gpu.device.wait(submissions[2].clone()).unwrap();
    fixture.gpu.device.wait(submissions[0].clone()).unwrap();
    assert_eq!(outstanding(&fixture), 2);
    for _ in 0..1000 {
        submit(&mut fixture);
    }
    assert!(outstanding(&fixture) <= 256);
    let want = fixture.want.clone();
    assert_eq!(fixture.read().unwrap(), want);
    assert_eq!(outstanding(&fixture), 0);
}
