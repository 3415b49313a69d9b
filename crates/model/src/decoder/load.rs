//! Loading of weights from a checkpoint into a backend.

use super::{DecoderOptions, Layer, MlpWeights};
use crate::table::{Part, Slot};
use crate::{Checkpoint, Mlp, ModelSpec, NormSpec, Result};
use phi3_tensor::{Backend, DType, Norm, Role, Rounding, Weight};

/// Bias of a suppressed token: finite, and far below any logit.
const NEVER: f32 = -1e30;

/// Weights of a norm.
pub(super) struct NormWeights<B: Backend> {
    spec: NormSpec,
    weight: B::Vector,
    /// Bias of a LayerNorm.
    bias: Option<B::Vector>,
}

impl<B: Backend> NormWeights<B> {
    pub(super) fn norm(&self) -> Norm<'_, B> {
        let Self { spec, weight, bias } = self;
        match (*spec, bias) {
            (NormSpec::Layer { eps }, Some(bias)) => Norm::Layer { weight, bias, eps },
            (NormSpec::Layer { eps } | NormSpec::Rms { eps }, _) => Norm::Rms { weight, eps },
        }
    }
}

/// Reads weights from the checkpoint, loads them into the backend, and counts their bytes.
pub(super) struct Loader<'a, B: Backend> {
    pub(super) backend: &'a mut B,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) spec: &'a ModelSpec,
    pub(super) options: DecoderOptions,
    pub(super) done: u64,
    pub(super) progress: &'a mut dyn FnMut(u64),
}

impl<B: Backend> Loader<'_, B> {
    /// A matrix in one part; an error if the checkpoint has several.
    pub(super) fn matrix(&mut self, slot: Slot) -> Result<B::Matrix> {
        let mut parts = self.matrices(slot)?;
        let found = parts.len();
        match parts.pop() {
            Some(matrix) if found == 1 => Ok(matrix),
            _ => Err(self.checkpoint.wrong(&slot.tensor(self.spec), format!("expected one part, found {found}"))),
        }
    }

    /// A matrix, in as many parts as the checkpoint has.
    fn matrices(&mut self, slot: Slot) -> Result<Vec<B::Matrix>> {
        let tensor = slot.tensor(self.spec);
        let mut parts = self.checkpoint.matrices(&tensor)?;
        if slot.is_router() {
            // f32: the choice of a row's experts depends on it, and it is small
            let widened = parts.iter().map(|part| part.requantized(DType::F32, Rounding::Fitted, self.options.threads));
            parts = widened.collect::<std::result::Result<_, _>>()?;
        }
        let is_head = slot == Slot::Head || slot == Slot::Embedding && self.spec.tie_word_embeddings;
        if is_head && !self.spec.suppressed.is_empty() {
            parts = parts.into_iter().map(|part| self.suppressed(part)).collect::<Result<_>>()?;
        }
        let (mut first, several) = (0, parts.len() > 1);
        let mut matrices = Vec::new();
        for weight in parts {
            let rows = weight.rows;
            let role = match tensor.role {
                Role::Qkv(heads) if several => Role::QkvPart(heads, first),
                role => role,
            };
            matrices.push(self.bring(weight, &tensor, role)?);
            first += rows;
        }
        Ok(matrices)
    }

    /// The head with a bias of [`NEVER`] for suppressed tokens, so that on-device sampling never chooses them.
    fn suppressed(&self, head: Weight) -> Result<Weight> {
        let mut bias = head.bias().map_or_else(|| vec![0.0; head.rows], <[f32]>::to_vec);
        for token in &self.spec.suppressed {
            if let Some(bias) = bias.get_mut(*token as usize) {
                *bias = NEVER;
            }
        }
        Ok(head.with_bias(bias)?)
    }

    fn bring(&mut self, weight: Weight, tensor: &crate::TensorSpec, role: Role) -> Result<B::Matrix> {
        let DecoderOptions { quant, threads, .. } = self.options;
        let (matrix, in_place) = match quant.filter(|_| !weight.dtype.is_quantized()) {
            Some(scheme) => {
                let weight = scheme.apply(&weight, tensor, self.spec, threads)?;
                (self.backend.matrix(&weight, role)?, false)
            }
            None => {
                let footprint = self.backend.footprint(&tensor.name, weight.dtype, weight.rows, weight.cols, role)?;
                (self.backend.matrix(&weight, role)?, footprint.in_place)
            }
        };
        // the device has its own copy, or makes it when it needs the matrix
        if !in_place {
            weight.release();
        }
        self.done += weight.size() as u64;
        (self.progress)(self.done);
        Ok(matrix)
    }

    pub(super) fn norm(&mut self, slot: Slot) -> Result<NormWeights<B>> {
        let tensor = slot.tensor(self.spec);
        let (weight, bias) = self.checkpoint.norm(&tensor)?;
        let bias = bias.map(|bias| self.backend.vector(&tensor.name, &bias)).transpose()?;
        Ok(NormWeights { spec: self.spec.norm, weight: self.backend.vector(&tensor.name, &weight)?, bias })
    }

    pub(super) fn layer(&mut self, i: usize) -> Result<Layer<B>> {
        let has_norm = self.spec.layers[i].has(Part::MlpNorm);
        Ok(Layer {
            input_layernorm: self.norm(Slot::Layer(i, Part::InputNorm))?,
            qkv_proj: self.matrices(Slot::Layer(i, Part::Qkv))?,
            o_proj: self.matrix(Slot::Layer(i, Part::AttentionOut))?,
            post_attention_layernorm: match has_norm {
                true => Some(self.norm(Slot::Layer(i, Part::MlpNorm))?),
                false => None,
            },
            mlp: self.mlp(i)?,
        })
    }

    fn mlp(&mut self, i: usize) -> Result<MlpWeights<B>> {
        let mlp = self.spec.layers[i].mlp;
        let mut matrix = |part| self.matrix(Slot::Layer(i, part));
        Ok(match mlp {
            Mlp::Dense { activation, .. } => {
                MlpWeights::Dense { activation, up: matrix(Part::Up)?, down: matrix(Part::Down)? }
            }
            Mlp::Experts { router, activation, .. } => MlpWeights::Experts {
                choice: router,
                activation,
                router: matrix(Part::Router)?,
                up: matrix(Part::ExpertsUp)?,
                down: matrix(Part::ExpertsDown)?,
            },
        })
    }
}
