//! Weights, activations and the operations of a Phi decoder, on the CPU and on any GPU.
//!
//! The [`Backend`] trait has few, decoder-sized operations: pre-norm, activation and residual are options of a
//! projection, so that one call is one fused kernel where the backend supports it. Each operation is a trait in [`ops`].
//! [`cpu::Cpu`] and (with the feature `gpu`) [`gpu::Gpu`] implement them; the decoder in `phi3-model` is written against
//! [`Backend`] once.

mod activation;
pub mod arithmetic;
mod batch;
mod checks;
#[cfg(any(test, feature = "reference"))]
mod comparison;
pub mod cpu;
mod device;
mod dtype;
mod epilogue;
mod error;
#[cfg(feature = "gpu")]
pub mod gpu;
mod measure;
pub mod ops;
#[cfg(any(test, feature = "reference"))]
pub mod parity;
pub mod quant;
mod readback;
#[cfg(any(test, feature = "reference"))]
pub mod reference;
mod requantize;
mod timed;
mod weight;

pub use activation::Activation;
pub use batch::{Batch, PAGE, Phase, Segment};
pub use device::{Device, DeviceInfo, DeviceKind, Footprint, Heads, KvType, Role};
pub use dtype::DType;
pub use epilogue::{Epilogue, Store};
pub use error::{Error, Expected, Result};
pub use measure::{Clock, Limits};
pub use ops::Backend;
pub use ops::attention::{BlockSparse, Mask};
pub use ops::experts::{Route, Router, TOP_EXPERTS};
pub use ops::norm::Norm;
pub use ops::sample::{LogitEdit, Logprobs, SampleRow, Sampled, Samples, Sampling};
pub use readback::Readback;
pub use requantize::Rounding;
pub use timed::{Label, Pass, Timed, Trace};
pub use weight::{Bytes, Memory, RowOrder, Weight};
