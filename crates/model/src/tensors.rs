//! The tensors of all weight files, by their published names.

use crate::shard::{Entry, Shard};
use crate::table::{Form, Naming, Order, Slot, TensorSpec, gguf_name};
use crate::vision::VisionTensor;
use crate::{Error, Result};
use phi3_tensor::{Bytes, DType, Heads, Role, Rounding, RowOrder, Weight};
use std::collections::HashMap;
use std::path::PathBuf;

/// Names of tensors in the weight files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Names of published checkpoints; those of the naming have precedence.
    Published(Naming),
    /// Names of GGUF files.
    Gguf,
}

/// The tensors of all weight files.
pub(crate) struct Tensors {
    pub(crate) files: Vec<Shard>,
    /// Indexes of file and entry, by name.
    places: HashMap<String, (usize, usize)>,
    names: Names,
    /// Whether the two dimensions of a rotated pair are adjacent rows in separate queries and keys.
    pub(crate) rotated_pairs: bool,
}

/// Components that wrappers of modules add to names: `torch.compile`, data parallel training, sharding, PEFT.
const WRAPPERS: [&str; 5] = ["_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer"];

/// Parts of the names of Phi-4-multimodal's adapters, which apply only to inputs with images or speech.
const MODALITIES: [&str; 2] = [".vision.", ".speech."];

/// Parts of the names of an adapter's tensors.
const ADAPTER: [&str; 4] = [".lora_A.", ".lora_B.", ".lora_embedding_", ".lora_magnitude_vector"];

/// The published name of a tensor, from its name in a wrapper, in a larger model or in a bare decoder.
fn canonical(name: &str) -> String {
    let mut parts: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    loop {
        parts = match parts.as_slice() {
            ["base_model", "model", rest @ ..] => rest.to_vec(),
            ["language_model", rest @ ..] => rest.to_vec(),
            ["model", "language_model" | "model" | "lm_head", ..] => parts[1..].to_vec(),
            ["layers" | "embed_tokens" | "norm", ..] => [&["model"], parts.as_slice()].concat(),
            // as transformers 5 saves a tower
            ["model", "vision_embed_tokens", "img_processor", "embeddings" | "encoder" | "pre_layrnorm", ..] => {
                [&parts[..3], &["vision_model"], &parts[3..]].concat()
            }
            ["model", "vision_tower", "vision_tower", "embeddings" | "encoder" | "post_layernorm" | "head", ..] => {
                [&parts[..3], &["vision_model"], &parts[3..]].concat()
            }
            _ => return parts.join("."),
        };
    }
}

/// The type with a name in a weight file; `None` if the type is not supported.
pub(crate) fn dtype(name: &str) -> Option<DType> {
    DType::ALL.into_iter().find(|dtype| dtype.name().eq_ignore_ascii_case(name))
}

impl Tensors {
    /// Indexes the tensors of `files`. Adds a note if tensors are read under other names.
    pub(crate) fn new(files: Vec<Shard>, names: Names, notes: &mut Vec<String>) -> Result<Self> {
        let mut places = HashMap::new();
        let entries = || {
            let files = files.iter().enumerate();
            files.flat_map(|(i, file)| file.entries.iter().enumerate().map(move |(j, entry)| (i, j, file, entry)))
        };
        for (i, j, file, entry) in entries() {
            let wrong = |message: String, hint| Error::Tensor {
                path: file.path.clone(),
                tensor: entry.name.clone(),
                message,
                hint,
            };
            let is_in = |parts: &[&str]| parts.iter().any(|part| entry.name.contains(part));
            if matches!(names, Names::Published(_)) && is_in(&ADAPTER) && !is_in(&MODALITIES) {
                let hint =
                    "merge the adapter into its base model (merge_and_unload in PEFT), save that, and give its folder";
                return Err(wrong("is of a LoRA adapter, which is not merged into the weights".into(), hint));
            }
            if let Some((first, _)) = places.insert(entry.name.clone(), (i, j)) {
                let hint = "every tensor must be in one shard only; fetch the checkpoint again";
                return Err(wrong(format!("is in {} too", files[first].path.display()), hint));
            }
        }
        let mut renamed = None;
        for (i, j, file, entry) in entries() {
            let mut name = canonical(&entry.name);
            if names == Names::Gguf {
                name = gguf_name(&name);
            }
            if name != entry.name && !places.contains_key(&name) {
                renamed.get_or_insert_with(|| {
                    format!("{}: tensor names such as {} are read as {name}", file.path.display(), entry.name)
                });
                places.insert(name, (i, j));
            }
        }
        notes.extend(renamed);
        Ok(Self { files, places, names, rotated_pairs: false })
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// The shape of a matrix; `None` if there is no tensor of this name with two dimensions.
    pub(crate) fn shape(&self, name: &str) -> Option<[usize; 2]> {
        let &(file, entry) = self.places.get(name)?;
        <[usize; 2]>::try_from(self.files[file].entries[entry].shape.as_slice()).ok()
    }

    /// Adds `name` as another name of the tensor `of`.
    pub(crate) fn alias(&mut self, name: &str, of: &str) {
        if let Some(&place) = self.places.get(of) {
            self.places.insert(name.to_owned(), place);
        }
    }

    /// Whether two matrices `[rows, cols]` hold the same values, whatever their types.
    pub(crate) fn same(&self, [a, b]: [&str; 2], rows: usize, cols: usize) -> Result<bool> {
        let (a, b) = (self.matrix(a, rows, cols)?, self.matrix(b, rows, cols)?);
        if a.dtype == b.dtype {
            return Ok((0..rows).all(|row| a.row(row) == b.row(row)));
        }
        let mut values = [vec![0.0; cols], vec![0.0; cols]];
        Ok((0..rows).all(|row| {
            a.dtype.widen(a.row(row), &mut values[0]);
            b.dtype.widen(b.row(row), &mut values[1]);
            values[0] == values[1]
        }))
    }

    /// Names (without `.weight`) of the file tensors that hold a model tensor, and the order of their rows. A published
    /// checkpoint has the form of its naming if any tensor of that form is present. Otherwise, and in GGUF files, the form is the
    /// largest complete one, else one that is present in part.
    fn sources(&self, slot: Slot) -> (Vec<String>, Order) {
        let gguf = self.names == Names::Gguf;
        let prefix = slot.prefix(gguf);
        let full = |form: &Form| form.sources.iter().map(|name| format!("{prefix}{name}")).collect::<Vec<_>>();
        let here = |name: &String| self.places.contains_key(&format!("{}.weight", name.replace('#', "0")));
        let forms = slot.forms(gguf);
        // the largest complete form: `ffn_up` alone is gate and up, `ffn_up` beside `ffn_gate` is up only
        let whole = forms.iter().filter(|form| full(form).iter().all(here)).max_by_key(|form| form.sources.len());
        let some = || forms.iter().find(|form| full(form).iter().any(here));
        let own = match self.names {
            Names::Published(naming) => slot.published(naming),
            Names::Gguf => &forms[0],
        };
        let form = match full(own).iter().any(here) && self.names != Names::Gguf {
            true => own,
            false => whole.or_else(some).unwrap_or(own),
        };
        (full(form), form.order)
    }

    /// A matrix of the model with its bias, in one part. The rows of queries, keys and values are in several parts if the file's
    /// tensors have several types.
    pub(crate) fn matrices(&self, tensor: &TensorSpec, heads: Heads) -> Result<Vec<Weight>> {
        if let Role::Experts { count, .. } = tensor.role {
            return Ok(vec![self.experts(tensor, count)?]);
        }
        let (names, order) = self.sources(tensor.slot);
        let (rows, cols) = (tensor.shape[0], tensor.shape[1]);
        let counts = match (names.len(), tensor.role) {
            (3, _) => vec![heads.q_dim(), heads.kv_dim(), heads.kv_dim()],
            (2, _) => vec![rows / 2, rows / 2],
            _ => vec![rows],
        };
        let mut bias = Vec::new();
        let mut parts: Vec<Vec<Weight>> = Vec::new();
        for (name, rows) in names.iter().zip(counts) {
            let weight = self.matrix(&format!("{name}.weight"), rows, cols)?;
            if tensor.bias {
                bias.extend(self.vector(&format!("{name}.bias"), rows)?);
            }
            match parts.last_mut() {
                Some(part) if part[0].dtype == weight.dtype => part.push(weight),
                _ => parts.push(vec![weight]),
            }
        }
        if parts.len() > 1 && !matches!(tensor.role, Role::Qkv(_)) {
            let widened = parts.iter().flatten().map(|part| part.requantized(DType::F32, Rounding::Fitted, None));
            parts = vec![widened.collect::<std::result::Result<_, _>>()?];
        }
        let mut first = 0;
        let mut matrices = Vec::new();
        for part in parts {
            let weight = if part.len() == 1 { part[0].clone() } else { Weight::stacked(&tensor.name, &part)? };
            let rows = weight.rows;
            let order = match order {
                Order::AsStored => RowOrder::AsStored,
                Order::Alternating => RowOrder::GateUpAlternating,
                Order::ByGroup => RowOrder::QkvByGroup(heads),
            };
            let order = match tensor.role {
                Role::Qkv(_) if self.rotated_pairs => {
                    let rows = (heads.q_dim() + heads.kv_dim()).saturating_sub(first).min(rows);
                    RowOrder::RotatedPairs { head_dim: heads.head_dim, rows }
                }
                _ => order,
            };
            let mut weight = weight.ordered(order)?;
            if tensor.bias {
                let bias = &bias[first..first + rows];
                weight = weight.with_bias((0..rows).map(|row| bias[order.stored(row, rows)]).collect())?;
            }
            matrices.push(weight);
            first += rows;
        }
        Ok(matrices)
    }

    /// The matrices of all experts, stacked by rows.
    fn experts(&self, tensor: &TensorSpec, count: usize) -> Result<Weight> {
        let (names, _) = self.sources(tensor.slot);
        let (rows, cols) = (tensor.shape[0] / count / names.len(), tensor.shape[1]);
        let mut of_all = Vec::new();
        if self.names == Names::Gguf {
            for name in &names {
                of_all.push(self.matrix_of(&format!("{name}.weight"), &[count, rows, cols])?);
            }
        }
        let mut parts = Vec::new();
        for expert in 0..count {
            match self.names {
                Names::Gguf => {
                    for weight in &of_all {
                        parts.push(weight.slice(expert * rows..(expert + 1) * rows)?);
                    }
                }
                Names::Published(_) => {
                    for name in &names {
                        let name = name.replace('#', &expert.to_string());
                        parts.push(self.matrix(&format!("{name}.weight"), rows, cols)?);
                    }
                }
            }
        }
        Ok(Weight::stacked(&tensor.name, &parts)?)
    }

    /// A norm of the model: weight, and bias where it has one.
    pub(crate) fn norm(&self, tensor: &TensorSpec) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        let (names, _) = self.sources(tensor.slot);
        let of = |kind: &str| self.vector(&format!("{}.{kind}", names[0]), tensor.shape[0]);
        Ok((of("weight")?, if tensor.bias { Some(of("bias")?) } else { None }))
    }

    /// A matrix `[rows, cols]` by its name in the file.
    pub(crate) fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Weight> {
        self.matrix_of(name, &[rows, cols])
    }

    /// A matrix from a tensor of `shape`: all dimensions but the last are rows.
    fn matrix_of(&self, name: &str, shape: &[usize]) -> Result<Weight> {
        self.reshaped(name, shape, shape[..shape.len() - 1].iter().product(), shape[shape.len() - 1])
    }

    /// A matrix `[rows, cols]` from a tensor of another shape with as many elements.
    fn reshaped(&self, name: &str, shape: &[usize], rows: usize, cols: usize) -> Result<Weight> {
        let (file, entry, dtype) = self.find(name, shape)?;
        let bytes = Bytes::new(file.bytes.clone(), entry.range.clone())
            .ok_or_else(|| self.wrong_in(file, &entry.name, "its bytes are outside the file".into()))?;
        Ok(Weight::new(&entry.name, dtype, rows, cols, bytes)?)
    }

    /// A matrix of a tower with its bias; in f32 if its file tensors have several types.
    pub(crate) fn vision(&self, tensor: &VisionTensor) -> Result<Weight> {
        let (mut parts, mut bias) = (Vec::new(), Vec::new());
        for source in &tensor.sources {
            parts.push(self.reshaped(&format!("{source}.weight"), &tensor.shape, tensor.shape[0], tensor.cols())?);
            if tensor.bias {
                bias.extend(self.vector(&format!("{source}.bias"), tensor.shape[0])?);
            }
        }
        if parts.iter().any(|part| part.dtype != parts[0].dtype) {
            let widened = parts.iter().map(|part| part.requantized(DType::F32, Rounding::Fitted, None));
            parts = widened.collect::<std::result::Result<_, _>>()?;
        }
        let weight = Weight::stacked(format!("{}.weight", tensor.sources[0]), &parts)?;
        Ok(if tensor.bias { weight.with_bias(bias)? } else { weight })
    }

    /// A vector by its name in the file, widened to f32.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.values(name, &[len])
    }

    /// All elements of a tensor by its name in the file, widened to f32.
    pub(crate) fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (file, entry, dtype) = self.find(name, shape)?;
        let mut values = vec![0.0; shape.iter().product()];
        dtype.widen(&file.bytes.bytes()[entry.range.clone()], &mut values);
        Ok(values)
    }

    /// Size of a tensor in bytes; `None` if there is no tensor of this name.
    pub(crate) fn bytes_of(&self, name: &str) -> Option<u64> {
        let &(file, entry) = self.places.get(name)?;
        Some(self.files[file].entries[entry].range.len() as u64)
    }

    /// An error about one of the model's tensors.
    pub(crate) fn wrong_of(&self, slot: Slot, message: String) -> Error {
        let (names, _) = self.sources(slot);
        self.wrong(&format!("{}.weight", names[0]), message)
    }

    /// An error about a tensor.
    pub(crate) fn wrong(&self, name: &str, message: String) -> Error {
        let place = self.places.get(name).copied();
        match self.files.get(place.map_or(0, |(file, _)| file)) {
            // the tensor's name in the file
            Some(file) => self.wrong_in(file, place.map_or(name, |(_, entry)| &file.entries[entry].name), message),
            None => Error::Tensor { path: PathBuf::new(), tensor: name.to_owned(), message, hint: "no weights" },
        }
    }

    fn wrong_in(&self, file: &Shard, name: &str, message: String) -> Error {
        let hint = match self.names {
            Names::Published(_) => "config.json and the weights may be of different models",
            Names::Gguf => "the metadata and the weights may be of different models, or the file is damaged",
        };
        Error::Tensor { path: file.path.clone(), tensor: name.to_owned(), message, hint }
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<(&Shard, &Entry, DType)> {
        let Some(&(file, entry)) = self.places.get(name) else { return Err(self.missing(name, shape)) };
        let file = &self.files[file];
        let entry = &file.entries[entry];
        if entry.shape != shape {
            return Err(self.wrong_in(
                file,
                &entry.name,
                format!("shape: expected {shape:?}, found {:?}", entry.shape),
            ));
        }
        match dtype(entry.dtype) {
            Some(dtype) => Ok((file, entry, dtype)),
            None => Err(self.unsupported(file, entry)),
        }
    }

    fn missing(&self, name: &str, shape: &[usize]) -> Error {
        let path = self.files.first().map_or_else(PathBuf::new, |file| file.path.clone());
        let more = if self.files.len() > 1 { format!(" in all {} shards", self.files.len()) } else { String::new() };
        let (instead, hint) = match (self.nearest(name), self.names) {
            (Some(found), _) => (format!("; found {found} instead"), "the weights are of another form or model"),
            (None, Names::Published(_)) => {
                (String::new(), "the download may be incomplete, or config.json may be of another model")
            }
            (None, Names::Gguf) => (String::new(), "the file may be incomplete, or have a wrong general.architecture"),
        };
        let message = format!("is missing{more}, expected with shape {shape:?}{instead}");
        Error::Tensor { path, tensor: name.to_owned(), message, hint }
    }

    /// The name of a tensor that may be the missing one in another form: it ends with the missing name, or begins with the name
    /// of its module.
    fn nearest(&self, name: &str) -> Option<&str> {
        let parts: Vec<&str> = name.split('.').collect();
        // the compared part contains the number of the layer
        let most = parts.iter().position(|part| *part == "layers" || *part == "blk").unwrap_or(parts.len() - 2);
        let ends = (0..=most).map(|skip| format!(".{}", parts[skip..].join(".")));
        let module = name.strip_suffix("weight");
        let entries = || self.files.iter().flat_map(|file| &file.entries).map(|entry| entry.name.as_str());
        let ending = ends.into_iter().find_map(|end| entries().find(|found| found.ends_with(&end)));
        ending.or_else(|| module.and_then(|module| entries().find(|found| found.starts_with(module))))
    }

    fn unsupported(&self, file: &Shard, entry: &Entry) -> Error {
        let known: &[DType] = match self.names {
            Names::Published(_) => &DType::PLAIN,
            Names::Gguf => &DType::ALL,
        };
        let kinds = known.iter().map(|dtype| dtype.name().to_uppercase()).collect::<Vec<_>>().join(", ");
        let (state, hint) = match (entry.dtype, self.names) {
            (name, _) if name.starts_with("Q4_0_") => {
                ("was removed from the format", "take a Q4_0 file: it is repacked at load")
            }
            (name, _) if name.starts_with("IQ4_NL_") => {
                ("was removed from the format", "take an IQ4_NL file: it is repacked at load")
            }
            (_, Names::Gguf) => {
                ("is not supported", "take a Q4_0, Q4_K or Q8_0 file, or quantize the published checkpoint")
            }
            (_, Names::Published(_)) => {
                ("is not supported", "take the checkpoint's unquantized weights, or a GGUF file")
            }
        };
        Error::Tensor {
            path: file.path.clone(),
            tensor: entry.name.clone(),
            message: format!("dtype: type {} {state}, expected one of {kinds}", entry.dtype),
            hint,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn names_of_wrappers_lead_to_the_published_ones() {
        let layer = "model.layers.3.self_attn.qkv_proj.weight";
        for name in [
            layer,
            "layers.3.self_attn.qkv_proj.weight",
            "base_model.model.model.layers.3.self_attn.qkv_proj.weight",
            "base_model.model.model.layers.3.self_attn.qkv_proj.base_layer.weight",
            "_orig_mod.model.layers.3.self_attn.qkv_proj.weight",
            "model.layers.3._orig_mod.self_attn.qkv_proj.weight",
            "module.model.layers.3.self_attn.qkv_proj.weight",
            "module._orig_mod.model.layers.3.self_attn.qkv_proj.weight",
            "language_model.model.layers.3.self_attn.qkv_proj.weight",
            "model.language_model.layers.3.self_attn.qkv_proj.weight",
            "model.model.layers.3.self_attn.qkv_proj.weight",
            "model._fsdp_wrapped_module.layers.3._fsdp_wrapped_module.self_attn.qkv_proj.weight",
        ] {
            assert_eq!(canonical(name), layer, "{name}");
        }
        for name in [
            "lm_head.weight",
            "base_model.model.lm_head.weight",
            "language_model.lm_head.weight",
            "model.lm_head.weight",
        ] {
            assert_eq!(canonical(name), "lm_head.weight", "{name}");
        }
        let tower = "model.vision_embed_tokens.img_processor.vision_model.pre_layrnorm.bias";
        assert_eq!(canonical(tower), tower);
        assert_eq!(canonical("model.vision_embed_tokens.img_processor.pre_layrnorm.bias"), tower);
        let tower = "model.vision_tower.vision_tower.vision_model.encoder.layers.3.mlp.fc1.weight";
        assert_eq!(canonical(tower), tower);
        assert_eq!(canonical("model.vision_tower.vision_tower.encoder.layers.3.mlp.fc1.weight"), tower);
        assert_eq!(canonical("norm.weight"), "model.norm.weight");
        assert_eq!(canonical("token_embd.weight"), "token_embd.weight");
        assert_eq!(canonical("model.vision_embed_tokens.wte.weight"), "model.vision_embed_tokens.wte.weight");
    }
}
