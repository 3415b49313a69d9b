//! Tests of the whole engine stand in `tests/root.rs`; the README's example is compiled and run here.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
