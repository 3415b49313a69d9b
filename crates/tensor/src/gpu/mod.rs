//! Any GPU, through wgpu.
//!
//! A pass of the decoder is recorded into one compute pass and submitted once; a pass of much work is several submissions.
//! Pipelines and bind groups are created at their first use and kept; `compile_only` creates pipelines ahead. The parameters of all
//! dispatches of a pass are in one uniform buffer, at dynamic offsets; tokens, positions, rotations and pages are in one buffer.
//! Weights keep the file's type.
//!
//! Imports go one way: device, then pipelines, recorder, timestamps and uploads, then the backend that owns them
//! (`machine.rs`), then its recordings (`project.rs` here, the operations in [`ops`](crate::ops)), then the self-check and
//! the opening.

mod adapter;
pub(crate) mod batch_metadata;
pub(crate) mod cache;
mod cached;
pub(crate) mod device;
mod driver;
#[cfg(test)]
mod faults;
pub(crate) mod grid;
mod limits;
mod machine;
mod memory;
mod open;
pub(crate) mod pipelines;
pub(crate) mod planes;
pub(crate) mod project;
pub(crate) mod recorder;
pub(crate) mod routes;
pub(crate) mod sampling;
pub(crate) mod selfcheck;
pub(crate) mod staging;
#[cfg(test)]
mod tests;
mod timestamps;
pub(crate) mod upload;

pub use adapter::{AdapterInfo, AdapterKind, Options, Select, adapters};
pub use cache::Cache;
pub use machine::{Counters, Gpu, Rows, Vector};
pub use phi3_shaders::Tier;
pub use routes::Routes;
pub use upload::Matrix;
