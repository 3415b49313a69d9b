//! Tests of the whole engine stand in `tests/root.rs`; the README's example is compiled and run here.
#![doc = include_str!("../../README.md")]
