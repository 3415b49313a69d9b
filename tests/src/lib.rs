//! Compiles and runs the README's example. The tests of the whole engine are in `tests/root.rs`.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
