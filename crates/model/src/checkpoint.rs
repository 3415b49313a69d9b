//! A checkpoint: a folder with `config.json` and safetensors weights, or a GGUF file. The weights may be in several shards.

use crate::gguf::{self, Metadata, Vocabulary};
use crate::json::Object;
use crate::location::{INDEX, Location, SINGLE, unnamed_weights, without_model};
use crate::safetensors;
use crate::shard::Lent;
use crate::table::Naming;
use crate::tensors::{Names, Tensors, dtype};
use crate::vision::{VisionTensor, vision_unused};
use crate::{Error, GenerationConfig, ModelSpec, Result, TensorSpec};
use phi3_tensor::Weight;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// An opened checkpoint: checked headers over memory maps, or over bytes in memory. Weights are not read until they are used.
pub struct Checkpoint {
    spec: ModelSpec,
    tensors: Tensors,
    gguf: Option<(Metadata, Vocabulary)>,
    notes: Vec<String>,
}

impl Checkpoint {
    /// Opens the model that [`Location::find`] finds at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_at(&Location::find(path)?)
    }

    /// Opens a GGUF file (of several shards, the first), or a folder with `config.json` and safetensors weights. The weights are
    /// the file of `location`, else `model.safetensors`, else the shards that `model.safetensors.index.json` names, else the only
    /// safetensors file or the only complete set of shards.
    pub fn open_at(location: &Location) -> Result<Self> {
        let (root, weights) = match location {
            Location::Gguf(path) => return Self::of_gguf(gguf::open(path)?),
            Location::Folder { root, weights } => (root, weights),
        };
        if root.join("config.json").symlink_metadata().is_err() {
            return Err(without_model(root));
        }
        let mut notes = Vec::new();
        let json = Object::read(&root.join("config.json"), "a checkpoint folder holds config.json beside its weights")?;
        let spec = ModelSpec::of_json(&json, &mut notes)?;
        let paths = match weights {
            Some(file) => vec![file.clone()],
            None => weight_files(root, &mut notes)?,
        };
        let files = paths.iter().map(|path| safetensors::open(path)).collect::<Result<Vec<_>>>()?;
        let tensors = Tensors::new(files, Names::Published(Naming::of_json(&json)?), &mut notes)?;
        Self { spec, tensors, gguf: None, notes }.with_head()
    }

    fn of_gguf(gguf: gguf::Gguf) -> Result<Self> {
        let gguf::Gguf { metadata, vocabulary, shards } = gguf;
        let mut notes = Vec::new();
        let mut tensors = Tensors::new(shards, Names::Gguf, &mut notes)?;
        let spec = gguf::config(&metadata, &vocabulary, &mut tensors, &mut notes)?;
        Ok(Self { spec, tensors, gguf: Some((metadata, vocabulary)), notes }.with_note_of_layers())
    }

    /// Opens a checkpoint in memory: the text of its `config.json`, and the bytes of one safetensors file. `name` is for
    /// messages.
    pub fn from_memory(name: &str, config: &str, weights: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self> {
        let mut notes = Vec::new();
        let json = Object::parse(&Path::new(name).join("config.json"), config.as_bytes())?;
        let spec = ModelSpec::of_json(&json, &mut notes)?;
        let file = safetensors::parse(&Path::new(name).join(SINGLE), Arc::new(Lent(weights)))?;
        let tensors = Tensors::new(vec![file], Names::Published(Naming::of_json(&json)?), &mut notes)?;
        Self { spec, tensors, gguf: None, notes }.with_head()
    }

    /// Opens a checkpoint in memory: the bytes of one GGUF file, which must hold the whole model. `name` is for messages.
    pub fn from_gguf_memory(name: &str, bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self> {
        Self::of_gguf(gguf::from_memory(Path::new(name), Arc::new(Lent(bytes)))?)
    }

    /// Decides whether embedding and head are one matrix, by the rule of transformers 5. If `config.json` ties them, one of the
    /// two may be missing. A head whose values differ from the embedding's is used as stored.
    fn with_head(mut self) -> Result<Self> {
        let (embedding, head) = ("model.embed_tokens.weight", "lm_head.weight");
        let (rows, cols) = (self.spec.vocab_size, self.spec.hidden_size);
        let tensors = &mut self.tensors;
        match (self.spec.tie_word_embeddings, tensors.has(embedding), tensors.has(head)) {
            (true, false, true) => tensors.alias(embedding, head),
            (true, true, true) if !tensors.same([embedding, head], rows, cols)? => {
                self.spec.tie_word_embeddings = false;
                self.notes.push(format!(
                    "{head} is used as stored: its values differ from the embedding's, though tie_word_embeddings is true"
                ));
            }
            (false, true, false) => {
                let message = "is missing, and tie_word_embeddings is not true".into();
                let hint = "the download may be incomplete; if the head uses the embedding's weights, config.json must have \
                    \"tie_word_embeddings\": true";
                let path = tensors.files.first().map_or_else(PathBuf::new, |file| file.path.clone());
                return Err(Error::Tensor { path, tensor: head.into(), message, hint });
            }
            _ => {}
        }
        Ok(self.with_note_of_layers().with_note_of_tower())
    }

    /// Adds a note if the files hold more layers than the model has.
    fn with_note_of_layers(mut self) -> Self {
        let count = self.spec.layers.len();
        let beyond = self.tensors().filter_map(|(name, ..)| layer_of(name)).filter(|&layer| layer >= count).max();
        if let Some(last) = beyond {
            self.notes.push(format!(
                "the weights have layers up to {last}, but the model has {count} layers: the layers from {count} on are not \
                 used; the number of layers may be that of another model"
            ));
        }
        self
    }

    /// Adds a note with the size of the tower's tensors that are in the file and not used.
    fn with_note_of_tower(mut self) -> Self {
        let unused = self.spec.vision.as_ref().map_or_else(Vec::new, vision_unused);
        let bytes = |names: &[(String, Vec<usize>)]| -> u64 {
            let of = |(name, _): &(String, Vec<usize>)| self.tensors.bytes_of(name);
            names.iter().filter_map(of).sum()
        };
        let held = bytes(&unused);
        if held > 0 {
            self.notes.push(format!(
                "{held} bytes of the weights are not used: the features of a picture are the output of the tower's last layer \
                 but one"
            ));
        }
        self
    }

    /// The weight files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.tensors.files.iter().map(|file| file.path.as_path())
    }

    /// What the decoder computes.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Notes about the files, one sentence each: fields that are not followed, values and names that are replaced, weights that
    /// are not used.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Stop tokens and sampling defaults of a GGUF file; `None` for other checkpoints, which have `generation_config.json`. Adds
    /// a note for each key that is not followed.
    ///
    /// # Errors
    /// A key is of the wrong type or out of range.
    pub fn generation(&self, notes: &mut Vec<String>) -> Result<Option<GenerationConfig>> {
        let metadata = self.gguf.as_ref().map(|(metadata, _)| metadata);
        metadata.map(|metadata| GenerationConfig::of_gguf(metadata, &self.spec, notes)).transpose()
    }

    /// The metadata of a GGUF file; `None` for other checkpoints.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.gguf.as_ref().map(|(metadata, _)| metadata)
    }

    /// The tokenizer's data in a GGUF file; `None` for other checkpoints.
    pub fn vocabulary(&self) -> Option<&Vocabulary> {
        self.gguf.as_ref().map(|(_, vocabulary)| vocabulary)
    }

    /// Size in bytes of all weight files.
    pub fn bytes(&self) -> u64 {
        self.tensors.files.iter().map(|file| file.bytes.bytes().len() as u64).sum()
    }

    /// Every tensor as stored, in file order: name, type, shape (outermost dimension first), size in bytes.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &'static str, &[usize], u64)> {
        let entries = self.tensors.files.iter().flat_map(|file| &file.entries);
        entries.map(|e| (e.name.as_str(), e.dtype, e.shape.as_slice(), e.range.len() as u64))
    }

    /// A matrix of the model with its bias, in one part. The rows of queries, keys and values are in several parts if the file's
    /// tensors have several types.
    ///
    /// # Errors
    /// A tensor is missing, has another shape than the model needs, or has a type that is not supported.
    pub fn matrices(&self, tensor: &TensorSpec) -> Result<Vec<Weight>> {
        self.tensors.matrices(tensor, self.spec.heads)
    }

    /// A norm of the model, widened to f32: weight, and bias where it has one.
    ///
    /// # Errors
    /// Those of [`matrices`](Self::matrices).
    pub fn norm(&self, tensor: &TensorSpec) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        self.tensors.norm(tensor)
    }

    /// A matrix of the tower, with its bias.
    pub(crate) fn vision_matrix(&self, tensor: &VisionTensor) -> Result<Weight> {
        self.tensors.vision(tensor)
    }

    /// All elements of one of the tower's tensors, widened to f32.
    pub(crate) fn vision_values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.tensors.values(name, shape)
    }

    /// An error about a tensor of this checkpoint.
    pub(crate) fn wrong(&self, tensor: &TensorSpec, message: String) -> Error {
        self.tensors.wrong_of(tensor.slot, message)
    }

    /// Name and file of the first tensor, in file order, that holds NaN or infinity. It explains logits that are not finite. In a
    /// quantized tensor, only scales and minima can be NaN or infinite. Tensors of unsupported types are not checked.
    pub fn first_not_finite(&self) -> Option<String> {
        let files = self.tensors.files.iter();
        files.flat_map(|file| file.entries.iter().map(move |entry| (file, entry))).find_map(|(file, entry)| {
            let bytes = &file.bytes.bytes()[entry.range.clone()];
            let finite = dtype(entry.dtype).is_none_or(|dtype| dtype.all_finite(bytes));
            (!finite).then(|| format!("{} of {}", entry.name, file.path.display()))
        })
    }
}

/// The number of the decoder layer in a tensor's name; `None` for tensors outside the decoder's layers.
fn layer_of(name: &str) -> Option<usize> {
    let at = |mark: &str| name.find(mark).map(|at| &name[at + mark.len()..]);
    let rest = at("model.layers.").or_else(|| name.strip_prefix("layers.")).or_else(|| name.strip_prefix("blk."))?;
    rest.split('.').next()?.parse().ok()
}

/// The weight files of a folder: `model.safetensors` if it exists, else the shards of the index, else the files of
/// [`unnamed_weights`].
fn weight_files(folder: &Path, notes: &mut Vec<String>) -> Result<Vec<PathBuf>> {
    let single = folder.join(SINGLE);
    if single.symlink_metadata().is_ok() {
        return Ok(vec![single]);
    }
    let index = folder.join(INDEX);
    if index.symlink_metadata().is_err() {
        let (files, note) = unnamed_weights(folder).ok_or_else(|| without_model(folder))?;
        notes.push(note);
        return Ok(files);
    }
    let index = Object::read(&index, "the index names the shards of the checkpoint")?;
    let Some(map) = index.object("weight_map")? else {
        return Err(index.bad("weight_map", "an object that maps tensors to files", "fetch the index again"));
    };
    let mut names: Vec<&str> = Vec::new();
    for tensor in map.names() {
        let name = map.string(tensor)?.ok_or_else(|| map.bad(tensor, "a file name", "fetch the index again"))?;
        let name = name.strip_prefix("./").or_else(|| name.strip_prefix(".\\")).unwrap_or(name);
        let mut parts = Path::new(name).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) || name.contains(['/', '\\']) {
            let hint = "shards are read from the folder of the index only";
            return Err(Error::Field {
                path: index.path().to_owned(),
                field: format!("weight_map.{tensor}"),
                expected: "the name of a file beside the index".into(),
                found: format!("the path {name}"),
                hint,
            });
        }
        names.push(name);
    }
    if names.is_empty() {
        return Err(index.bad("weight_map", "the tensors of the checkpoint", "fetch the index again"));
    }
    names.sort_unstable();
    names.dedup();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}
