//! Benchmarks, run by `cargo bench`: the operations in `benches/operations.rs`, the host time of a token in `benches/encode.rs`.
