//! Epilogue of a projection: activation, scale and store.

use crate::Activation;

/// How results meet what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Store {
    /// `out = result`.
    #[default]
    Overwrite,
    /// `out += result`: the residual.
    Accumulate,
}

/// What becomes of a projection's outputs y, to which the weight's bias has been added: `scale * activation(y)` is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epilogue {
    /// Function of the outputs.
    pub activation: Activation,
    /// Factor of what the activation gives.
    pub scale: f32,
    /// Where it goes.
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

    /// The width of what is stored, for so many outputs.
    pub(crate) fn width(self, outputs: usize) -> usize {
        if self.activation.is_gated() { outputs / 2 } else { outputs }
    }
}
