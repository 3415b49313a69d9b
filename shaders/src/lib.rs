//! The WGSL kernels of the engine.
