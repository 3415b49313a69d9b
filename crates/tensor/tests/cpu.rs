//! The CPU backend against the reference, at every instruction set of this machine.
#![cfg(feature = "reference")]

use phi3_tensor::cpu::{Cpu, Level, Options};
use phi3_tensor::parity;

fn check(options: Options) {
    let mut cpu = Cpu::new(options).expect("threads start");
    let outcomes = parity::run(&mut cpu, &[]).expect("every case runs");
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.ok()).collect();
    assert!(outcomes.len() > 100 && failed.is_empty(), "{} of {}: {failed:#?}", failed.len(), outcomes.len());
}

#[test]
fn every_level_agrees_with_the_reference() {
    for level in Level::ALL {
        if !level.available() {
            println!("skipped: this processor has no {level}");
            continue;
        }
        for threads in [1, 2] {
            check(Options { threads: Some(threads), level: Some(level) });
        }
    }
}
