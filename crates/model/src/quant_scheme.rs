//! Quantization schemes: the type of each matrix of a quantized model.

use crate::table::{Part, Slot, TensorSpec};
use crate::{Checkpoint, Error, ModelSpec, Result};
use phi3_tensor::{DType, Rounding, Weight};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Rows of queries, keys and values in a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QkvRows {
    /// All rows, or the rows of any other tensor.
    All,
    /// Queries, or keys.
    QueriesOrKeys,
    /// Values.
    Values,
}

/// A quantization scheme: a type for every matrix. Norms stay f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantScheme {
    name: &'static str,
    dtype: DType,
    /// Whether some matrices get a finer type, by llama.cpp's rules.
    mixed: bool,
    rounding: Rounding,
    /// llama.cpp's number of the scheme (`llama_ftype`).
    file_type: u32,
}

/// The scheme of one type for all matrices.
const fn plain(dtype: DType) -> QuantScheme {
    let (name, file_type) = (dtype.name(), dtype.file_type());
    QuantScheme { name, dtype, mixed: false, rounding: Rounding::Fitted, file_type }
}

const fn mixed(name: &'static str, dtype: DType, file_type: u32) -> QuantScheme {
    QuantScheme { name, dtype, mixed: true, rounding: Rounding::Fitted, file_type }
}

/// Schemes with a rule of their own. If a name ends in `_m`, some matrices have a finer type, as in llama.cpp's scheme of that
/// name.
const RULES: [QuantScheme; 5] = [
    mixed("q5_k_m", DType::Q5K, 17),
    mixed("q4_k_m", DType::Q4K, 15),
    mixed("q3_k_m", DType::Q3K, 12),
    mixed("q2_k_m", DType::Q2K, 10),
    QuantScheme { name: "int4", rounding: Rounding::Int4Rtn, ..plain(DType::Q4_0) },
];

impl QuantScheme {
    /// Every scheme: one for each type, after the schemes with a rule of their own for that type. Finer types come first.
    pub fn all() -> Vec<QuantScheme> {
        let mut types = DType::ALL;
        // 256 elements are whole blocks of every type
        types.sort_by_key(|dtype| std::cmp::Reverse(dtype.bytes(256)));
        let rules = |dtype| RULES.into_iter().filter(move |rule| rule.dtype == dtype);
        types.into_iter().flat_map(|dtype| rules(dtype).chain([plain(dtype)])).collect()
    }

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// llama.cpp's number of the scheme (`general.file_type`).
    pub fn file_type(self) -> u32 {
        self.file_type
    }

    /// llama.cpp's name of the scheme, if it has the same one; else the scheme's own name in upper case.
    pub fn label(self) -> String {
        let known = file_type_label(self.file_type).filter(|_| self.mixed || !self.dtype.is_quantized());
        known.unwrap_or_else(|| self.name.to_uppercase())
    }

    /// Target type of a matrix of type `now`. Quantized matrices and routers keep their type.
    pub fn target(self, now: DType, tensor: &TensorSpec, spec: &ModelSpec) -> DType {
        self.target_of(now, tensor, spec, QkvRows::All)
    }

    /// [`target`](Self::target) for a part of queries, keys and values.
    pub(crate) fn target_of(self, now: DType, tensor: &TensorSpec, spec: &ModelSpec, of: QkvRows) -> DType {
        if now.is_quantized() || tensor.slot.is_router() {
            return now;
        }
        let wanted = if self.mixed { self.finer(tensor.slot, spec, of) } else { self.dtype };
        fitting(wanted, tensor.shape.last().copied().unwrap_or(0))
    }

    /// llama.cpp's type for a mixed scheme (`llama_tensor_get_type` of its `llama-quant.cpp`, without an importance matrix).
    fn finer(self, slot: Slot, spec: &ModelSpec, of: QkvRows) -> DType {
        let layers = spec.layers.len();
        let more_bits = |i: usize| i < layers / 8 || i >= 7 * layers / 8 || (i - layers / 8) % 3 == 2;
        let (layer, part) = match slot {
            Slot::Head => return DType::Q6K,
            Slot::Embedding if spec.tie_word_embeddings => return DType::Q6K,
            Slot::Embedding | Slot::Norm => return self.dtype,
            Slot::Layer(layer, part) => (layer, part),
        };
        if part == Part::Qkv && of != QkvRows::All {
            let shared = spec.heads.heads / spec.heads.kv_heads;
            return match self.dtype {
                dtype if of == QkvRows::QueriesOrKeys => dtype,
                DType::Q2K if shared >= 4 => DType::Q4K,
                DType::Q2K => DType::Q3K,
                DType::Q3K if layer < 2 => DType::Q5K,
                DType::Q3K => DType::Q4K,
                DType::Q4K | DType::Q5K if more_bits(layer) => DType::Q6K,
                dtype => dtype,
            };
        }
        let part = if part == Part::ExpertsDown { Part::Down } else { part };
        match (self.dtype, part) {
            (DType::Q2K, Part::AttentionOut | Part::Down) => DType::Q3K,
            (DType::Q3K, Part::AttentionOut | Part::Qkv) => DType::Q4K,
            (DType::Q3K, Part::Down) if layer < layers / 16 => DType::Q5K,
            (DType::Q3K, Part::Down) if more_bits(layer) => DType::Q4K,
            (DType::Q4K, Part::Qkv) => DType::Q5K,
            (DType::Q5K, Part::Qkv) => DType::Q6K,
            (DType::Q4K | DType::Q5K, Part::Down) if more_bits(layer) => DType::Q6K,
            (other, _) => other,
        }
    }

    /// Quantizes a matrix on `threads` threads; `None` for all that the process may use.
    pub fn apply(
        self,
        weight: &Weight,
        tensor: &TensorSpec,
        spec: &ModelSpec,
        threads: Option<usize>,
    ) -> Result<Weight> {
        self.apply_to(weight, tensor, spec, QkvRows::All, threads)
    }

    /// [`apply`](Self::apply) for a part of queries, keys and values.
    pub(crate) fn apply_to(
        self,
        weight: &Weight,
        tensor: &TensorSpec,
        spec: &ModelSpec,
        of: QkvRows,
        threads: Option<usize>,
    ) -> Result<Weight> {
        let dtype = self.target_of(weight.dtype, tensor, spec, of);
        if dtype == weight.dtype {
            return Ok(weight.clone());
        }
        let rounding = if dtype == self.dtype { self.rounding } else { Rounding::Fitted };
        Ok(weight.requantized(dtype, rounding, threads)?)
    }
}

/// The type itself if rows are whole blocks of it, else llama.cpp's fallback type.
fn fitting(dtype: DType, cols: usize) -> DType {
    if cols.is_multiple_of(dtype.block().0) {
        return dtype;
    }
    let smaller = match dtype {
        DType::Q2K | DType::Q3K | DType::Iq4Xs => DType::Iq4Nl,
        DType::Q4K => DType::Q5_0,
        DType::Q5K => DType::Q5_1,
        DType::Q6K => DType::Q8_0,
        _ => DType::F16,
    };
    if cols.is_multiple_of(smaller.block().0) { smaller } else { DType::F16 }
}

/// llama.cpp's name of a model by its `general.file_type` (`llama_ftype`): the name of the type, except for these.
fn file_type_label(file_type: u32) -> Option<String> {
    let label = match file_type {
        0 => "all F32",
        10 => "Q2_K - Medium",
        11 => "Q3_K - Small",
        12 => "Q3_K - Medium",
        13 => "Q3_K - Large",
        14 => "Q4_K - Small",
        15 => "Q4_K - Medium",
        16 => "Q5_K - Small",
        17 => "Q5_K - Medium",
        21 => "Q2_K - Small",
        25 => "IQ4_NL - 4.5 bpw",
        30 => "IQ4_XS - 4.25 bpw",
        _ => {
            let dtype = DType::ALL.into_iter().find(|dtype| dtype.file_type() == file_type)?;
            return Some(dtype.name().to_uppercase());
        }
    };
    Some(label.to_owned())
}

/// Name of a model's weight type when it is loaded with `quant`: the scheme's if it quantizes most of the values, else that of a
/// GGUF file's `general.file_type`, else the type with the most bytes.
pub fn type_label(checkpoint: &Checkpoint, quant: Option<QuantScheme>) -> String {
    let (mut plain, mut values) = (0, 0);
    let mut by_type = BTreeMap::<&str, u64>::new();
    for (_, dtype, shape, bytes) in checkpoint.tensors() {
        let count = shape.iter().map(|&d| d as u64).product::<u64>();
        let is_plain = DType::PLAIN.into_iter().any(|plain| plain.name().eq_ignore_ascii_case(dtype));
        plain += if is_plain { count } else { 0 };
        values += count;
        *by_type.entry(dtype).or_default() += bytes;
    }
    if let Some(scheme) = quant.filter(|_| 2 * plain > values) {
        return scheme.label();
    }
    let said =
        checkpoint.metadata().and_then(|metadata| metadata.integer("general.file_type", 0..=1023).ok().flatten());
    let said = said.and_then(|number| file_type_label(u32::try_from(number).ok()?));
    let most = || by_type.into_iter().max_by_key(|(_, bytes)| *bytes).map_or("?", |(dtype, _)| dtype);
    said.unwrap_or_else(|| most().to_uppercase())
}

impl fmt::Display for QuantScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for QuantScheme {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wanted = text.to_ascii_lowercase();
        Self::all().into_iter().find(|scheme| scheme.name == wanted).ok_or_else(|| Error::Request {
            what: "unknown type",
            found: format!("{text:?}"),
            limit: format!("the types are {}", Self::all().into_iter().map(Self::name).collect::<Vec<_>>().join(", ")),
            hint: "q4_k_m is small and good, q8_0 nearly exact",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_have_llama_cpp_s_names_where_they_are_the_same() {
        let label = |name: &str| name.parse::<QuantScheme>().unwrap().label();
        assert_eq!(label("q4_k_m"), "Q4_K - Medium");
        assert_eq!(label("q4_k"), "Q4_K");
        assert_eq!((label("int4"), label("q8_0"), label("bf16")), ("INT4".into(), "Q8_0".into(), "BF16".into()));
        assert!(QuantScheme::all().into_iter().all(|scheme| file_type_label(scheme.file_type).is_some()));
    }

    #[test]
    fn q4_k_m_keeps_what_llama_cpp_keeps_finer() {
        let phi_3_mini = crate::variant("phi-3-mini-4k").unwrap();
        let scheme: QuantScheme = "Q4_K_M".parse().unwrap();
        let of = |slot: Slot| scheme.target(DType::Bf16, &slot.tensor(&phi_3_mini), &phi_3_mini);
        assert_eq!(of(Slot::Head), DType::Q6K);
        assert_eq!(of(Slot::Embedding), DType::Q4K);
        assert_eq!(of(Slot::Layer(3, Part::Qkv)), DType::Q5K);
        let finer = (0..32).filter(|&i| of(Slot::Layer(i, Part::Down)) == DType::Q6K);
        assert_eq!(finer.collect::<Vec<_>>(), [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]);
        // rows that are not whole blocks
        let narrow = |i: usize, cols: usize| {
            let mut tensor = Slot::Layer(i, Part::Down).tensor(&phi_3_mini);
            tensor.shape[1] = cols;
            scheme.target(DType::Bf16, &tensor, &phi_3_mini)
        };
        assert_eq!((narrow(3, 672), narrow(4, 672), narrow(4, 35)), (DType::Q8_0, DType::Q5_0, DType::F16));
        let kept = scheme.target(DType::Q4_0, &Slot::Head.tensor(&phi_3_mini), &phi_3_mini);
        assert_eq!(kept, DType::Q4_0);
        assert!("q9".parse::<QuantScheme>().is_err());
    }
}
