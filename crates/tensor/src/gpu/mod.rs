//! Any GPU, through wgpu.
