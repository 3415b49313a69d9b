//! A checkpoint: a folder with `config.json` and safetensors weights, or a GGUF file; of either, one file or many.

use crate::gguf::{self, Metadata, Vocabulary};
use crate::json::Object;
use crate::safetensors;
use crate::shard::{Entry, Lent, Shard};
use crate::{Config, Error, Result};
use phi3_tensor::{Bytes, DType, Weight};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// An opened checkpoint: checked headers over memory maps. Weights are not read until they are used.
pub struct Checkpoint {
    config: Config,
    tensors: Tensors,
    gguf: Option<(Metadata, Vocabulary)>,
}

/// What the weight files call tensors.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// The published names.
    Published,
    /// Those of GGUF.
    Gguf,
}

/// The tensors of all weight files.
pub(crate) struct Tensors {
    files: Vec<Shard>,
    /// Name in the file to file and entry.
    places: HashMap<String, (usize, usize)>,
    names: Names,
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl Checkpoint {
    /// Opens a GGUF file (of several shards, the first), or a folder that holds `config.json` and `model.safetensors`, or
    /// `model.safetensors.index.json` and the shards that it names.
    pub fn open(path: &Path) -> Result<Self> {
        let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        if !path.is_dir() && (named || path.is_file()) {
            return Self::open_gguf(path);
        }
        let config = Config::read(&path.join("config.json"))?;
        let paths = weight_files(path)?;
        let files = paths.iter().map(|path| safetensors::open(path)).collect::<Result<Vec<_>>>()?;
        Ok(Self { config, tensors: Tensors::new(files, Names::Published)?, gguf: None })
    }

    fn open_gguf(path: &Path) -> Result<Self> {
        Self::of_gguf(gguf::open(path)?)
    }

    fn of_gguf(gguf: gguf::Gguf) -> Result<Self> {
        let gguf::Gguf { metadata, vocabulary, shards } = gguf;
        let tensors = Tensors::new(shards, Names::Gguf)?;
        let config = gguf::config(&metadata, &vocabulary, &tensors)?;
        Ok(Self { config, tensors, gguf: Some((metadata, vocabulary)) })
    }

    /// A checkpoint in memory: the bytes of one safetensors file; `name` is for messages.
    pub fn from_memory(name: &str, config: &str, weights: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self> {
        let config = Config::parse(&Path::new(name).join("config.json"), config.as_bytes())?;
        let file = safetensors::parse(&Path::new(name).join(SINGLE), Arc::new(Lent(weights)))?;
        Ok(Self { config, tensors: Tensors::new(vec![file], Names::Published)?, gguf: None })
    }

    /// A checkpoint in memory: the bytes of one GGUF file, which must be the model's only one; `name` is for messages.
    pub fn from_gguf_memory(name: &str, bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self> {
        Self::of_gguf(gguf::from_memory(Path::new(name), Arc::new(Lent(bytes)))?)
    }

    /// What the decoder computes.
    pub fn config(&self) -> &Config {
        &self.config
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

    /// A matrix `[rows, cols]` by its published name.
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Weight> {
        self.tensors.matrix(name, rows, cols)
    }

    /// A vector by its published name, widened to f32.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.tensors.vector(name, len)
    }

    /// An error about a tensor of this checkpoint.
    pub(crate) fn wrong(&self, name: &str, message: String) -> Error {
        self.tensors.wrong(name, message)
    }

    /// The first weight that is NaN or infinite, in file order, with its file: to explain logits that are. Of a quantised
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

/// The type of a name in a weight file, where the engine has it.
fn dtype(name: &str) -> Option<DType> {
    DType::ALL.into_iter().find(|dtype| dtype.name().eq_ignore_ascii_case(name))
}

impl Tensors {
    fn new(files: Vec<Shard>, names: Names) -> Result<Self> {
        let mut places = HashMap::new();
        for (i, file) in files.iter().enumerate() {
            for (j, entry) in file.entries.iter().enumerate() {
                if let Some((first, _)) = places.insert(entry.name.clone(), (i, j)) {
                    return Err(Error::Tensor {
                        path: file.path.clone(),
                        tensor: entry.name.clone(),
                        message: format!("stands in {} too", files[first].path.display()),
                        hint: "every tensor belongs in one shard; fetch the checkpoint again",
                    });
                }
            }
        }
        Ok(Self { files, places, names })
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.places.contains_key(self.name(name).as_ref())
    }

    fn name<'a>(&self, published: &'a str) -> Cow<'a, str> {
        match self.names {
            Names::Published => Cow::Borrowed(published),
            Names::Gguf => Cow::Owned(gguf::translate(published)),
        }
    }

    fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Weight> {
        let (file, entry, dtype) = self.find(name, &[rows, cols])?;
        let bytes = Bytes::new(file.bytes.clone(), entry.range.clone())
            .ok_or_else(|| self.wrong_in(file, &entry.name, "its bytes lie outside the file".into()))?;
        Ok(Weight::new(&entry.name, dtype, rows, cols, bytes)?)
    }

    /// A vector, widened to f32.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let (file, entry, dtype) = self.find(name, &[len])?;
        let mut values = vec![0.0; len];
        dtype.widen(&file.bytes.bytes()[entry.range.clone()], &mut values);
        Ok(values)
    }

    /// An error about a tensor.
    pub(crate) fn wrong(&self, name: &str, message: String) -> Error {
        let name = self.name(name);
        let file = self.places.get(name.as_ref()).map_or(0, |&(file, _)| file);
        match self.files.get(file) {
            Some(file) => self.wrong_in(file, &name, message),
            None => Error::Tensor { path: PathBuf::new(), tensor: name.into_owned(), message, hint: "no weights" },
        }
    }

    fn wrong_in(&self, file: &Shard, name: &str, message: String) -> Error {
        let hint = match self.names {
            Names::Published => "config.json and the weights may be of different models",
            Names::Gguf => "the metadata and the weights may be of different models, or the file is damaged",
        };
        Error::Tensor { path: file.path.clone(), tensor: name.to_owned(), message, hint }
    }

    fn find(&self, published: &str, shape: &[usize]) -> Result<(&Shard, &Entry, DType)> {
        let name = self.name(published);
        let Some(&(file, entry)) = self.places.get(name.as_ref()) else {
            let path = self.files.first().map_or_else(PathBuf::new, |file| file.path.clone());
            let more =
                if self.files.len() > 1 { format!(" in all {} shards", self.files.len()) } else { String::new() };
            let hint = match self.names {
                Names::Published => "the download may be incomplete, or config.json of another model",
                Names::Gguf => "the file may be incomplete, or of another kind of model than it says",
            };
            let message = format!("is missing{more}, expected with shape {shape:?}");
            return Err(Error::Tensor { path, tensor: name.into_owned(), message, hint });
        };
        let file = &self.files[file];
        let entry = &file.entries[entry];
        if entry.shape != shape {
            return Err(self.wrong_in(file, &name, format!("shape: expected {shape:?}, found {:?}", entry.shape)));
        }
        let Some(dtype) = dtype(entry.dtype) else {
            let expected = match self.names {
                Names::Published => "F32, F16 or BF16",
                Names::Gguf => "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K, IQ4_NL or IQ4_XS",
            };
            let message = format!("dtype: expected {expected}, found {} (type not supported)", entry.dtype);
            return Err(self.wrong_in(file, &name, message));
        };
        Ok((file, entry, dtype))
    }
}

/// The weight files of a folder: the single file where there is one, else the shards of the index.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let single = folder.join(SINGLE);
    if single.symlink_metadata().is_ok() {
        return Ok(vec![single]);
    }
    let index = folder.join(INDEX);
    if index.symlink_metadata().is_err() {
        return Err(Error::Read {
            path: folder.to_owned(),
            message: format!("no weights: neither {SINGLE} nor {INDEX} was found"),
            hint: "--model takes a folder with config.json and safetensors weights",
        });
    }
    let index = Object::read(&index, "the index names the shards of the checkpoint")?;
    let Some(map) = index.object("weight_map")? else {
        return Err(index.bad("weight_map", "an object that maps tensors to files", "fetch the index again"));
    };
    let mut names: Vec<&str> = Vec::new();
    for tensor in map.names() {
        let name = map.string(tensor)?.ok_or_else(|| map.bad(tensor, "a file name", "fetch the index again"))?;
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
