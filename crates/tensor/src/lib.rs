//! Weights, activations and the operations of a Phi decoder, on the CPU and on any GPU.
//!
//! The [`Backend`] trait has few, decoder-sized operations: pre-norm, activation and residual are options of a
//! projection, so that one call is one fused kernel where the machine can. [`cpu::Cpu`] and (with the feature `gpu`)
//! [`gpu::Gpu`] implement it; the decoder in `phi3-model` is written against it once.

mod backend;
mod batch;
mod checks;
mod choice;
pub mod cpu;
mod dtype;
mod epilogue;
mod error;
mod experts;
#[cfg(feature = "gpu")]
pub mod gpu;
mod mask;
mod measure;
#[cfg(any(test, feature = "reference"))]
pub mod parity;
pub mod quant;
#[cfg(any(test, feature = "reference"))]
pub mod reference;
mod requantize;
mod timed;
mod weight;

pub use backend::{Backend, DeviceInfo, DeviceKind, Footprint, Heads, KvType, Norm, Role};
pub use batch::{Batch, PAGE, Segment};
pub use choice::Choice;
pub use dtype::DType;
pub use epilogue::{Activation, Epilogue, Store};
pub use error::{Error, Expected, Result};
pub use experts::{Route, Router, TOP_EXPERTS};
pub use mask::{BlockSparse, Mask};
pub use measure::{Clock, Limits};
pub use requantize::Rounding;
pub use timed::{Label, Pass, Timed, Trace};
pub use weight::{Bytes, Memory, RowOrder, Weight};
