//! Benchmarks of the operations: `cargo bench`. They stand in `benches/operations.rs`.
