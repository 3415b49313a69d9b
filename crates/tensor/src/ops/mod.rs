//! The operations of a decoder, each in a module of its own.
//!
//! A module has the operation's trait, arguments and their checks (`mod.rs`), its definition in double precision
//! (`reference.rs`), the implementations (`cpu.rs`, `gpu.rs`), cases that compare them (`cases.rs`), and cases of a GPU's
//! self-check at its first start (`self_check.rs`).
//!
//! `use phi3_tensor::ops::*` brings every method of a backend into scope.

pub(crate) mod attention;
pub(crate) mod embed;
pub(crate) mod experts;
pub(crate) mod norm;
pub(crate) mod project;
pub(crate) mod project_qkv;
pub(crate) mod sample;
pub(crate) mod select;
pub(crate) mod write;

#[cfg(feature = "gpu")]
use crate::DType;
pub use crate::Device;
#[cfg(any(test, feature = "reference", feature = "gpu"))]
use crate::Result;
#[cfg(any(test, feature = "reference"))]
use crate::comparison::Comparison;

/// Defines [`Backend`] by the operations' traits, and the comparison of their cases.
macro_rules! operations {
    ($($module:ident::$operation:ident),* $(,)?) => {
        $(pub use $module::$operation;)*

        /// A device with every operation of a decoder. Every type with all these traits implements it.
        pub trait Backend: Device $(+ $operation)* {}

        impl<D: Device $(+ $operation)*> Backend for D {}

        /// Compares every operation with the reference, with weights of the types of the comparison.
        #[cfg(any(test, feature = "reference"))]
        pub(crate) fn compare<B: Backend>(comparison: &mut Comparison<'_, B>) -> Result<()> {
            $($module::cases::compare(comparison)?;)*
            Ok(())
        }
    };
}

operations! {
    embed::Embed,
    write::WriteRows,
    norm::Normalize,
    project::Project,
    project_qkv::ProjectQkv,
    attention::Attend,
    experts::Experts,
    select::SelectRows,
    sample::Sample,
}

/// Results by name of the operations with weights of a type, for the self-check of a GPU.
#[cfg(feature = "gpu")]
pub(crate) fn self_check<B: Backend>(b: &mut B, dtype: DType) -> Result<Vec<(String, Vec<f32>)>> {
    let mut results = project::self_check::results(b, dtype)?;
    results.extend(attention::self_check::results(b, dtype)?);
    results.extend(experts::self_check::results(b, dtype)?);
    Ok(results)
}
