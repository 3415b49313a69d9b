//! Epilogue of a projection: activation, scale and store.

use crate::Activation;

/// How results are written to the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Store {
    /// `out = result`.
    #[default]
    Overwrite,
    /// `out += result`: the residual.
    Accumulate,
}

/// Epilogue of a projection: `scale * activation(y)` of its outputs y, which include the weight's bias, is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epilogue {
    /// Function of the outputs.
    pub activation: Activation,
    /// Factor of the activation's results.
    pub scale: f32,
    /// Whether the results replace the output or are added to it.
    pub store: Store,
}

impl Default for Epilogue {
    fn default() -> Self {
        Self::OVERWRITE
    }
}

impl Epilogue {
    /// `out = y`.
    pub const OVERWRITE: Self = Self { activation: Activation::Identity, scale: 1.0, store: Store::Overwrite };

    /// `out += y`: the residual.
    pub const ACCUMULATE: Self = Self { store: Store::Accumulate, ..Self::OVERWRITE };

    /// `out = activation(y)`.
    pub const fn of(activation: Activation) -> Self {
        Self { activation, ..Self::OVERWRITE }
    }

    /// Width of the stored results, for a number of outputs.
    pub(crate) fn width(self, outputs: usize) -> usize {
        if self.activation.is_gated() { outputs / 2 } else { outputs }
    }
}
