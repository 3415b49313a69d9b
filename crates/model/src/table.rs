//! Tensor table of a model, one row per tensor. Loading, the memory plan, GGUF names, quantization schemes and the tests take
//! names, shapes and roles from it.

use crate::{Mlp, ModelSpec};
use Naming::{Llama, Phi, Phi3, Phi3Small, PhiMoe};
use phi3_tensor::Role;

/// A tensor's place in the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// The embedding.
    Embedding,
    /// A part of a layer.
    Layer(usize, Part),
    /// The norm of the output.
    Norm,
    /// The output projection, if it is not the embedding.
    Head,
}

/// A part of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The norm before attention; in a parallel block, the norm before attention and feed-forward.
    InputNorm,
    /// Queries, keys and values.
    Qkv,
    /// Output projection of attention.
    AttentionOut,
    /// The norm before the feed-forward.
    MlpNorm,
    /// Up projection; for a gated activation, gate and up.
    Up,
    /// Down projection.
    Down,
    /// Router: projection to the experts' scores.
    Router,
    /// Up projections of all experts, stacked by rows.
    ExpertsUp,
    /// Down projections of all experts, stacked by rows.
    ExpertsDown,
}

/// Tensor names of published checkpoints, by model class. Classes of one naming have the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `Phi3ForCausalLM`, and text models that are part of others.
    Phi3,
    /// `PhiForCausalLM`.
    Phi,
    /// `Phi3SmallForCausalLM`.
    Phi3Small,
    /// `PhiMoEForCausalLM`.
    PhiMoe,
    /// `LlamaForCausalLM`, `MistralForCausalLM`.
    Llama,
}

/// File tensors that hold one model tensor, stacked by rows. For experts, the tensors of one expert: a published checkpoint has
/// the expert's number in place of `#`, a GGUF file has all experts in one tensor of three dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// Names, without layer and `.weight`.
    pub(crate) sources: &'static [&'static str],
    pub(crate) order: Order,
    /// Namings that use the form; empty for GGUF files, and for the only form of a tensor.
    pub(crate) of: &'static [Naming],
}

/// Order of the rows in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The order of the operations.
    AsStored,
    /// Gate rows and up rows alternate.
    Alternating,
    /// Queries, keys and values by group of heads.
    ByGroup,
}

/// The only form, or a form in GGUF files.
const fn form(sources: &'static [&'static str]) -> Form {
    named(&[], sources)
}

const fn named(of: &'static [Naming], sources: &'static [&'static str]) -> Form {
    Form { sources, order: Order::AsStored, of }
}

/// Forms of a tensor that is in no table.
const NO_NAMES: &[Form] = &[form(&[""])];

/// Names of a tensor: forms in published checkpoints, Phi-3's first, and in GGUF files. Export writes the first GGUF form; only
/// for queries, keys and values of other architectures than phi3 it writes the last.
struct Names<T: 'static> {
    of: T,
    published: &'static [Form],
    gguf: &'static [Form],
}

/// Parts of a layer in the order of llama.cpp's files.
const PARTS: [Names<Part>; 9] = [
    Names { of: Part::InputNorm, published: &[form(&["input_layernorm"])], gguf: &[form(&["attn_norm"])] },
    Names {
        of: Part::Qkv,
        published: &[
            named(&[Phi3], &["self_attn.qkv_proj"]),
            named(&[Phi, PhiMoe, Llama], &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
            Form { sources: &["self_attn.query_key_value"], order: Order::ByGroup, of: &[Phi3Small] },
        ],
        gguf: &[form(&["attn_qkv"]), form(&["attn_q", "attn_k", "attn_v"])],
    },
    Names {
        of: Part::AttentionOut,
        published: &[
            named(&[Phi3, PhiMoe, Llama], &["self_attn.o_proj"]),
            named(&[Phi, Phi3Small], &["self_attn.dense"]),
        ],
        gguf: &[form(&["attn_output"])],
    },
    Names { of: Part::MlpNorm, published: &[form(&["post_attention_layernorm"])], gguf: &[form(&["ffn_norm"])] },
    Names {
        of: Part::Up,
        published: &[
            named(&[Phi3], &["mlp.gate_up_proj"]),
            named(&[Llama], &["mlp.gate_proj", "mlp.up_proj"]),
            named(&[Phi], &["mlp.fc1"]),
            Form { sources: &["mlp.up_proj"], order: Order::Alternating, of: &[Phi3Small] },
        ],
        gguf: &[form(&["ffn_up"]), form(&["ffn_gate", "ffn_up"])],
    },
    Names {
        of: Part::Down,
        published: &[named(&[Phi3, Phi3Small, Llama], &["mlp.down_proj"]), named(&[Phi], &["mlp.fc2"])],
        gguf: &[form(&["ffn_down"])],
    },
    Names { of: Part::Router, published: &[form(&["block_sparse_moe.gate"])], gguf: &[form(&["ffn_gate_inp"])] },
    Names {
        of: Part::ExpertsUp,
        published: &[form(&["block_sparse_moe.experts.#.w1", "block_sparse_moe.experts.#.w3"])],
        gguf: &[form(&["ffn_gate_exps", "ffn_up_exps"])],
    },
    Names {
        of: Part::ExpertsDown,
        published: &[form(&["block_sparse_moe.experts.#.w2"])],
        gguf: &[form(&["ffn_down_exps"])],
    },
];

/// The other tensors.
const TOP: [Names<Slot>; 3] = [
    Names { of: Slot::Embedding, published: &[form(&["model.embed_tokens"])], gguf: &[form(&["token_embd"])] },
    Names {
        of: Slot::Norm,
        published: &[
            named(&[Phi3, PhiMoe, Llama], &["model.norm"]),
            named(&[Phi, Phi3Small], &["model.final_layernorm"]),
        ],
        gguf: &[form(&["output_norm"])],
    },
    Names { of: Slot::Head, published: &[form(&["lm_head"])], gguf: &[form(&["output"])] },
];

/// A tensor of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Its place in the decoder.
    pub slot: Slot,
    /// Its name in a checkpoint of Phi-3's form.
    pub name: String,
    /// Its shape, outermost dimension first; one dimension for a vector.
    pub shape: Vec<usize>,
    /// Role of a matrix.
    pub role: Role,
    /// Whether it has a bias: one number per row of a matrix, or per dimension of a norm.
    pub bias: bool,
}

impl Slot {
    /// The name of the tensor in a checkpoint of Phi-3's form.
    pub fn name(self) -> String {
        format!("{}{}.weight", self.prefix(false), self.forms(false)[0].sources[0])
    }

    /// Whether it is a router, which is never quantized: the choice of a row's experts depends on it.
    pub(crate) fn is_router(self) -> bool {
        matches!(self, Self::Layer(_, Part::Router))
    }

    /// Prefix of the names of its forms.
    pub(crate) fn prefix(self, gguf: bool) -> String {
        match (self, gguf) {
            (Self::Layer(layer, _), false) => format!("model.layers.{layer}."),
            (Self::Layer(layer, _), true) => format!("blk.{layer}."),
            _ => String::new(),
        }
    }

    /// Its forms in published checkpoints or in GGUF files, at least one.
    pub(crate) fn forms(self, gguf: bool) -> &'static [Form] {
        let forms = match self {
            Self::Layer(_, part) => {
                PARTS.iter().find(|names| names.of == part).map(|names| (names.published, names.gguf))
            }
            slot => TOP.iter().find(|names| names.of == slot).map(|names| (names.published, names.gguf)),
        };
        let (published, of_gguf) = forms.unwrap_or((NO_NAMES, NO_NAMES));
        if gguf { of_gguf } else { published }
    }

    /// Its form in checkpoints of a naming.
    pub(crate) fn published(self, naming: Naming) -> &'static Form {
        let forms = self.forms(false);
        forms.iter().find(|form| form.of.contains(&naming)).unwrap_or(&forms[0])
    }

    /// The tensor in a model of `spec`.
    pub fn tensor(self, spec: &ModelSpec) -> TensorSpec {
        let (hidden, heads) = (spec.hidden_size, spec.heads);
        let layer = |layer: usize| spec.layers.get(layer).copied();
        let (shape, role, bias) = match self {
            Self::Embedding => {
                let role = if spec.tie_word_embeddings { Role::Plain } else { Role::Embedding };
                (vec![spec.vocab_size, hidden], role, spec.head_bias && spec.tie_word_embeddings)
            }
            Self::Head => (vec![spec.vocab_size, hidden], Role::Plain, spec.head_bias),
            Self::Norm | Self::Layer(_, Part::InputNorm | Part::MlpNorm) => {
                (vec![hidden], Role::Plain, spec.norm.has_bias())
            }
            Self::Layer(i, part @ (Part::Qkv | Part::AttentionOut)) => {
                let bias = layer(i).is_some_and(|layer| layer.attention_bias);
                match part {
                    Part::Qkv => (vec![heads.qkv_dim(), hidden], Role::Qkv(heads), bias),
                    _ => (vec![hidden, heads.q_dim()], Role::Plain, bias),
                }
            }
            Self::Layer(i, part @ (Part::Up | Part::Down)) => {
                let (inner, gated, bias) = match layer(i).map(|layer| layer.mlp) {
                    Some(Mlp::Dense { inner, activation, bias }) => (inner, activation.is_gated(), bias),
                    Some(Mlp::Experts { .. }) | None => (0, false, false),
                };
                match part {
                    Part::Up if gated => (vec![2 * inner, hidden], Role::GateUp, bias),
                    Part::Up => (vec![inner, hidden], Role::Plain, bias),
                    _ => (vec![hidden, inner], Role::Plain, bias),
                }
            }
            Self::Layer(i, part @ (Part::Router | Part::ExpertsUp | Part::ExpertsDown)) => {
                let (inner, count, gated) = match layer(i).map(|layer| layer.mlp) {
                    Some(Mlp::Experts { inner, count, activation, .. }) => (inner, count, activation.is_gated()),
                    Some(Mlp::Dense { .. }) | None => (0, 0, false),
                };
                match part {
                    Part::Router => (vec![count, hidden], Role::Plain, false),
                    Part::ExpertsUp => {
                        let rows = count * inner * if gated { 2 } else { 1 };
                        (vec![rows, hidden], Role::Experts { count, gated }, false)
                    }
                    _ => (vec![count * hidden, inner], Role::Experts { count, gated: false }, false),
                }
            }
        };
        TensorSpec { slot: self, name: self.name(), shape, role, bias }
    }
}

impl Part {
    /// The name in a checkpoint of Phi-3's form, without layer and `.weight`.
    pub fn name(self) -> &'static str {
        Slot::Layer(0, self).forms(false)[0].sources[0]
    }

    /// The part with a published name or a GGUF name, without layer and `.weight`.
    pub fn from_name(name: &str) -> Option<Self> {
        let has = |forms: &[Form]| forms.iter().any(|form| form.sources.contains(&name));
        PARTS.iter().find(|names| has(names.published) || has(names.gguf)).map(|names| names.of)
    }
}

/// Every tensor, in the order of llama.cpp's files.
pub fn tensors(spec: &ModelSpec) -> Vec<TensorSpec> {
    let layers = spec.layers.iter().enumerate().flat_map(|(i, layer)| {
        let parts = PARTS.iter().map(|names| names.of).filter(|part| layer.has(*part));
        parts.map(move |part| Slot::Layer(i, part)).collect::<Vec<_>>()
    });
    let head = (!spec.tie_word_embeddings).then_some(Slot::Head);
    let slots = [Slot::Embedding].into_iter().chain(layers).chain([Slot::Norm]).chain(head);
    slots.map(|slot| slot.tensor(spec)).collect()
}

/// The GGUF name of a tensor in Phi-3's form; a name that is in no table is unchanged.
pub(crate) fn gguf_name(published: &str) -> String {
    let translated = || {
        let (stem, kind) = published.rsplit_once('.')?;
        if let Some(names) = TOP.iter().find(|names| names.published[0].sources == [stem]) {
            return Some(format!("{}.{kind}", names.gguf[0].sources[0]));
        }
        let (layer, part) = stem.strip_prefix("model.layers.")?.split_once('.')?;
        let names = PARTS.iter().find(|names| names.published[0].sources == [part])?;
        Some(format!("blk.{layer}.{}.{kind}", names.gguf[0].sources[0]))
    };
    translated().unwrap_or_else(|| published.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_translated() {
        for (published, name) in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("model.layers.31.mlp.gate_up_proj.weight", "blk.31.ffn_up.weight"),
            ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
            ("lm_head.weight", "output.weight"),
            ("rope_factors_long.weight", "rope_factors_long.weight"),
        ] {
            assert_eq!(gguf_name(published), name);
        }
        assert_eq!(Part::from_name("ffn_down"), Some(Part::Down));
        assert_eq!(Part::from_name("mlp.down_proj"), Some(Part::Down));
        assert_eq!(Part::from_name("self_attn.k_proj"), Some(Part::Qkv));
    }

    #[test]
    fn the_table_has_the_published_shapes() {
        let spec = crate::variant("phi-4-mini").unwrap();
        let tensors = tensors(&spec);
        assert_eq!(tensors.len(), 2 + 6 * 32);
        let shape = |name: &str| tensors.iter().find(|tensor| tensor.name == name).map(|tensor| tensor.shape.clone());
        assert_eq!(shape("model.embed_tokens.weight"), Some(vec![200_064, 3072]));
        assert_eq!(shape("model.layers.31.self_attn.qkv_proj.weight"), Some(vec![5120, 3072]));
        assert_eq!(shape("model.layers.0.mlp.gate_up_proj.weight"), Some(vec![16_384, 3072]));
        assert_eq!(shape("model.layers.7.mlp.down_proj.weight"), Some(vec![3072, 8192]));
        assert_eq!(shape("lm_head.weight"), None);
    }
}
