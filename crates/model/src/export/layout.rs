//! Layout of a model's GGUF file: architecture, keys, tensors, and the sources of their values.

use crate::gguf::{GgufTensor, LONG, MetadataList, MetadataValue, SHORT};
use crate::quant_scheme::QkvRows;
use crate::table::{TensorSpec, tensors};
use crate::{Block, Error, Mlp, ModelSpec, NormSpec, QuantScheme, Result};
use phi3_tensor::{Activation, DType, Mask, Role, Router, TOP_EXPERTS};
use std::ops::Range;

/// A GGUF architecture, by llama.cpp's name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    Phi2,
    Phi3,
    PhiMoe,
}

/// The type of some rows of a matrix before a scheme is applied.
pub(super) type StoredType<'a> = dyn Fn(&TensorSpec, &[Range<usize>]) -> Result<DType> + 'a;

/// Source of a tensor's values.
pub(super) enum Source {
    /// Rows of a matrix of the model.
    Rows { tensor: TensorSpec, rows: Vec<Range<usize>>, of: QkvRows },
    /// Rows of a matrix's bias.
    Bias { tensor: TensorSpec, rows: Vec<Range<usize>> },
    /// A norm's weight, or its bias.
    Norm { tensor: TensorSpec, bias: bool },
    /// Factors of LongRoPE, from the model's configuration.
    Factors(Vec<f32>),
}

impl Architecture {
    /// The architecture for a model; an error if none can hold all of it.
    pub(super) fn of(spec: &ModelSpec) -> Result<Self> {
        let Some(layer) = spec.layers.first().copied() else { return Err(unwritable("a model without layers")) };
        if spec.layers.iter().any(|other| *other != layer) {
            return Err(unwritable("layers that differ"));
        }
        let usual = 1.0 / (spec.heads.head_dim as f32).sqrt();
        if [spec.embedding_scale, spec.logit_scale] != [1.0; 2] || spec.attention_scale != usual {
            return Err(unwritable("factors of the embedding, of scores or of logits"));
        }
        if spec.rope.scaling().is_some_and(|scaling| scaling.short_mscale != scaling.long_mscale) {
            return Err(unwritable("different LongRoPE magnitudes for short and long sequences, where a file has one"));
        }
        let (norm_bias, head_bias) = (spec.norm.has_bias(), spec.head_bias);
        let windowed = !matches!(layer.mask, Mask::Blocks(_));
        match (layer.block, layer.mlp) {
            (Block::Sequential, Mlp::Dense { activation: Activation::SwiGlu, bias: false, .. })
                if windowed && !layer.attention_bias && !norm_bias && !head_bias =>
            {
                Ok(Self::Phi3)
            }
            (Block::Parallel, Mlp::Dense { activation: Activation::GeluTanh, bias: true, .. })
                if layer.mask == Mask::Causal && layer.attention_bias && norm_bias && head_bias =>
            {
                Ok(Self::Phi2)
            }
            (
                Block::Sequential,
                Mlp::Experts { activation: Activation::SwiGlu, router: Router::SparseMixer { jitter }, .. },
            ) if windowed && norm_bias && jitter == 0.01 => Ok(Self::PhiMoe),
            _ => Err(unwritable("norms, biases and layers of another kind")),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Phi2 => "phi2",
            Self::Phi3 => "phi3",
            Self::PhiMoe => "phimoe",
        }
    }

    /// The keys of the model itself.
    pub(super) fn keys(self, spec: &ModelSpec, scheme: QuantScheme, name: &str) -> MetadataList {
        use MetadataValue::{F32, String, U32};
        let (NormSpec::Rms { eps } | NormSpec::Layer { eps }) = spec.norm;
        let key = |key: &str| format!("{}.{key}", self.name());
        let number = |n: usize| U32(u32::try_from(n).unwrap_or(u32::MAX));
        let mut keys = vec![
            ("general.architecture".into(), String(self.name().into())),
            ("general.type".into(), String("model".into())),
            ("general.name".into(), String(name.into())),
            ("general.quantization_version".into(), U32(2)),
            ("general.file_type".into(), U32(scheme.file_type())),
            (key("context_length"), number(spec.max_position_embeddings)),
        ];
        if self != Self::Phi2 {
            let original =
                spec.rope.scaling().map_or(spec.max_position_embeddings, |s| s.original_max_position_embeddings);
            keys.push((key("rope.scaling.original_context_length"), number(original)));
        }
        keys.extend([
            (key("embedding_length"), number(spec.hidden_size)),
            (key("feed_forward_length"), number(spec.widest_mlp())),
            (key("block_count"), number(spec.layers.len())),
            (key("attention.head_count"), number(spec.heads.heads)),
            (key("attention.head_count_kv"), number(spec.heads.kv_heads)),
        ]);
        let epsilon =
            if self == Self::Phi2 { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" };
        keys.push((key(epsilon), F32(eps)));
        if spec.heads.q_dim() != spec.hidden_size {
            let length = number(spec.heads.head_dim);
            keys.extend([(key("attention.key_length"), length.clone()), (key("attention.value_length"), length)]);
        }
        keys.extend([
            (key("rope.dimension_count"), number(spec.heads.rotary_dim)),
            (key("rope.freq_base"), F32(spec.rope.theta())),
        ]);
        if self != Self::Phi2 {
            keys.push((key("attention.sliding_window"), number(spec.window().unwrap_or(0))));
        }
        if self == Self::PhiMoe {
            keys.push((key("expert_count"), number(spec.most_experts())));
            keys.push((key("expert_used_count"), number(TOP_EXPERTS)));
        }
        if let Some(scaling) = spec.rope.scaling() {
            keys.push((key("rope.scaling.attn_factor"), F32(scaling.short_mscale)));
        }
        keys
    }

    /// File tensors that hold a model tensor: names without `.weight` or `.bias`, and the rows of the model tensor in each.
    fn parts(self, tensor: &TensorSpec, spec: &ModelSpec) -> Vec<(String, Vec<Range<usize>>, QkvRows)> {
        let prefix = tensor.slot.prefix(true);
        let forms = tensor.slot.forms(true);
        // the first form of queries, keys and values is one fused tensor, the last has three
        let apart = self != Self::Phi3 && matches!(tensor.role, Role::Qkv(_));
        let form = if apart { forms[forms.len() - 1] } else { forms[0] };
        let names = form.sources.iter().map(|name| format!("{prefix}{name}"));
        let rows = tensor.shape[0];
        let (q, k) = (spec.heads.q_dim(), spec.heads.kv_dim());
        match (tensor.role, form.sources.len()) {
            (Role::Qkv(_), 3) => {
                let of = [0..q, q..q + k, q + k..q + 2 * k].into_iter();
                let kinds = [QkvRows::QueriesOrKeys, QkvRows::QueriesOrKeys, QkvRows::Values];
                names.zip(of.zip(kinds)).map(|(name, (rows, kind))| (name, vec![rows], kind)).collect()
            }
            (Role::Experts { count, .. }, sources) => {
                let each = rows / count / sources;
                let of = |i: usize| {
                    (0..count).map(move |expert| (expert * sources + i) * each..(expert * sources + i + 1) * each)
                };
                names.enumerate().map(|(i, name)| (name, of(i).collect(), QkvRows::All)).collect()
            }
            _ => names.map(|name| (name, std::iter::once(0..rows).collect(), QkvRows::All)).collect(),
        }
    }
}

fn unwritable(found: impl Into<String>) -> Error {
    Error::Request {
        what: "GGUF file",
        found: found.into(),
        limit: "files of the architectures phi3, phi2 and phimoe are written".into(),
        hint: "run the checkpoint itself, which can be quantized while it is loaded",
    }
}

/// The tensors in llama.cpp's order. `stored` returns the type of some rows of a matrix before the scheme is applied.
pub(super) fn plan(
    spec: &ModelSpec,
    to: Architecture,
    scheme: QuantScheme,
    stored: &StoredType<'_>,
) -> Result<Vec<(GgufTensor, Source)>> {
    let mut plan = Vec::new();
    let floats = |name: String, len: usize, source| {
        let tensor = GgufTensor { name, shape: vec![len], dtype: DType::F32, bytes: 4 * len as u64 };
        (tensor, source)
    };
    for tensor in tensors(spec) {
        for (name, rows, of) in to.parts(&tensor, spec) {
            let count: usize = rows.iter().map(ExactSizeIterator::len).sum();
            if tensor.shape.len() == 1 {
                for (kind, bias) in [("weight", false), ("bias", true)].into_iter().take(1 + usize::from(tensor.bias)) {
                    let source = Source::Norm { tensor: tensor.clone(), bias };
                    plan.push(floats(format!("{name}.{kind}"), count, source));
                }
                continue;
            }
            let cols = tensor.shape[1];
            let dtype = scheme.target_of(stored(&tensor, &rows[..1])?, &tensor, spec, of);
            let bytes = dtype.bytes(cols).and_then(|row| row.checked_mul(count)).map(|bytes| bytes as u64);
            let bytes = bytes.ok_or_else(|| unwritable(format!("{name}: rows of {cols} values of type {dtype}")))?;
            let shape = match tensor.role {
                Role::Experts { count: experts, .. } => vec![experts, count / experts, cols],
                _ => vec![count, cols],
            };
            let info = GgufTensor { name: format!("{name}.weight"), shape, dtype, bytes };
            plan.push((info, Source::Rows { tensor: tensor.clone(), rows: rows.clone(), of }));
            if tensor.bias {
                plan.push(floats(format!("{name}.bias"), count, Source::Bias { tensor: tensor.clone(), rows }));
            }
        }
    }
    if let Some(scaling) = spec.rope.scaling() {
        for (name, factors) in [(LONG, &scaling.long_factor), (SHORT, &scaling.short_factor)] {
            plan.push(floats(name.into(), factors.len(), Source::Factors(factors.clone())));
        }
    }
    Ok(plan)
}
