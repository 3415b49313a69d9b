//! A checkpoint: a folder with `config.json` and safetensors weights, or a GGUF file; of either, one file or many.

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

/// An opened checkpoint: checked headers over memory maps. Weights are not read until they are used.
pub struct Checkpoint {
    spec: ModelSpec,
    tensors: Tensors,
    gguf: Option<(Metadata, Vocabulary)>,
    notes: Vec<String>,
}

impl Checkpoint {
    /// Opens what [`Location::find`] finds at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_at(&Location::find(path)?)
    }

    /// Opens a GGUF file (of several shards, the first), or a folder that holds `config.json` and `model.safetensors`, or
    /// `model.safetensors.index.json` and the shards that it names.
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

    /// A checkpoint in memory: the bytes of one safetensors file; `name` is for messages.
    pub fn from_memory(name: &str, config: &str, weights: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self> {
        let mut notes = Vec::new();
        let json = Object::parse(&Path::new(name).join("config.json"), config.as_bytes())?;
        let spec = ModelSpec::of_json(&json, &mut notes)?;
        let file = safetensors::parse(&Path::new(name).join(SINGLE), Arc::new(Lent(weights)))?;
        let tensors = Tensors::new(vec![file], Names::Published(Naming::of_json(&json)?), &mut notes)?;
        Self { spec, tensors, gguf: None, notes }.with_head()
    }

    /// A checkpoint in memory: the bytes of one GGUF file, which must be the model's only one; `name` is for messages.
    pub fn from_gguf_memory(name: &str, bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self> {
        Self::of_gguf(gguf::from_memory(Path::new(name), Arc::new(Lent(bytes)))?)
    }

    /// Decides whether embedding and head are one matrix, as transformers 5 does: where `config.json` ties them, the file
    /// need hold only one of the two, and a head of other values is used as it is.
    fn with_head(mut self) -> Result<Self> {
        let (embedding, head) = ("model.embed_tokens.weight", "lm_head.weight");
        let (rows, cols) = (self.spec.vocab_size, self.spec.hidden_size);
        let tensors = &mut self.tensors;
        match (self.spec.tie_word_embeddings, tensors.has(embedding), tensors.has(head)) {
            (true, false, true) => tensors.alias(embedding, head),
            (true, true, true) if !tensors.same([embedding, head], rows, cols)? => {
                self.spec.tie_word_embeddings = false;
                self.notes.push(format!(
                    "{head} is used as it is: it differs from the embedding, though tie_word_embeddings is true"
                ));
            }
            (false, true, false) => {
                let message = "is missing, and tie_word_embeddings is not true".into();
                let hint = "the download may be incomplete; where the embedding is the head, config.json must say \
                    \"tie_word_embeddings\": true";
                let path = tensors.files.first().map_or_else(PathBuf::new, |file| file.path.clone());
                return Err(Error::Tensor { path, tensor: head.into(), message, hint });
            }
            _ => {}
        }
        Ok(self.with_note_of_layers().with_note_of_tower())
    }

    /// Notes layers that stand in the file behind those of the model.
    fn with_note_of_layers(mut self) -> Self {
        let count = self.spec.layers.len();
        let beyond = self.tensors().filter_map(|(name, ..)| layer_of(name)).filter(|&layer| layer >= count).max();
        if let Some(last) = beyond {
            self.notes.push(format!(
                "the weights have layers up to {last}, and the model has {count}: those from {count} on are not used; the \
                 number may be of another model"
            ));
        }
        self
    }

    /// Notes that a tower's last layer, and what follows it, is in the file and not used.
    fn with_note_of_tower(mut self) -> Self {
        let unused = self.spec.vision.as_ref().map_or_else(Vec::new, vision_unused);
        let bytes = |names: &[(String, Vec<usize>)]| -> u64 {
            let of = |(name, _): &(String, Vec<usize>)| self.tensors.bytes_of(name);
            names.iter().filter_map(of).sum()
        };
        let held = bytes(&unused);
        if held > 0 {
            self.notes.push(format!(
                "the features of pictures are the output of the tower's last layer but one: what follows, {held} bytes of the \
                 weights, is not used"
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

    /// What the files say that is not followed, or is read otherwise than it stands there: one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Stop tokens and sampling defaults of a GGUF file; `None` for other checkpoints, which have a file of their own for
    /// them. Adds to `notes` what is not followed.
    ///
    /// # Errors
    /// A key is of the wrong type or out of range.
    pub fn generation(&self, notes: &mut Vec<String>) -> Result<Option<GenerationConfig>> {
        let metadata = self.gguf.as_ref().map(|(metadata, _)| metadata);
        metadata.map(|metadata| GenerationConfig::of_gguf(metadata, &self.spec, notes)).transpose()
    }

    /// The metadata of a GGUF file; other checkpoints keep theirs in files of their own.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.gguf.as_ref().map(|(metadata, _)| metadata)
    }

    /// The tokenizer's data in a GGUF file.
    pub fn vocabulary(&self) -> Option<&Vocabulary> {
        self.gguf.as_ref().map(|(_, vocabulary)| vocabulary)
    }

    /// Bytes of all weight files.
    pub fn bytes(&self) -> u64 {
        self.tensors.files.iter().map(|file| file.bytes.bytes().len() as u64).sum()
    }

    /// Every tensor as its file has it: name, type, shape (outermost dimension first), bytes. In file order.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &'static str, &[usize], u64)> {
        let entries = self.tensors.files.iter().flat_map(|file| &file.entries);
        entries.map(|e| (e.name.as_str(), e.dtype, e.shape.as_slice(), e.range.len() as u64))
    }

    /// A matrix of the model, with its bias. Of queries, keys and values the rows come in several parts where the file's tensors
    /// are of several types.
    ///
    /// # Errors
    /// A tensor is missing, or of another shape or type than it should be.
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

    /// The first weight that is NaN or infinite, in file order, with its file: to explain logits that are. Of a quantized
    /// weight only scales and minima can be.
    pub fn first_not_finite(&self) -> Option<String> {
        let files = self.tensors.files.iter();
        files.flat_map(|file| file.entries.iter().map(move |entry| (file, entry))).find_map(|(file, entry)| {
            let bytes = &file.bytes.bytes()[entry.range.clone()];
            let finite = dtype(entry.dtype).is_none_or(|dtype| dtype.all_finite(bytes));
            (!finite).then(|| format!("{} of {}", entry.name, file.path.display()))
        })
    }
}

/// The layer of the decoder that a tensor belongs to, by its name in a file.
fn layer_of(name: &str) -> Option<usize> {
    let at = |mark: &str| name.find(mark).map(|at| &name[at + mark.len()..]);
    let rest = at("model.layers.").or_else(|| name.strip_prefix("layers.")).or_else(|| name.strip_prefix("blk."))?;
    rest.split('.').next()?.parse().ok()
}

/// The weight files of a folder: the single file where there is one, else the shards of the index, else what else there is.
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
            let hint = "a path that leads outside the checkpoint is refused";
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
