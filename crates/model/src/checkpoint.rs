//! A checkpoint folder: `config.json` and its weights, one file or many.

use crate::json::Object;
use crate::safetensors::{Entry, SafeTensors};
use crate::{Config, Error, Result};
use phi3_tensor::{Bytes, DType, Weight};
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// An opened checkpoint: checked headers over memory maps. Weights are not read until they are used.
pub struct Checkpoint {
    config: Config,
    files: Vec<SafeTensors>,
    /// Tensor name to file and entry.
    tensors: HashMap<String, (usize, usize)>,
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl Checkpoint {
    /// Opens a folder that holds `config.json` and `model.safetensors`, or `model.safetensors.index.json` and the shards
    /// that it names.
    pub fn open(folder: &Path) -> Result<Self> {
        let config = Config::read(&folder.join("config.json"))?;
        let paths = weight_files(folder)?;
        let files = paths.iter().map(|path| SafeTensors::open(path)).collect::<Result<Vec<_>>>()?;
        Self::assemble(config, files)
    }

    /// A checkpoint in memory: the bytes of one safetensors file; `name` is for messages.
    pub fn from_memory(name: &str, config: &str, weights: &'static [u8]) -> Result<Self> {
        let config = Config::parse(&Path::new(name).join("config.json"), config.as_bytes())?;
        let file = SafeTensors::parse(&Path::new(name).join(SINGLE), Arc::new(weights))?;
        Self::assemble(config, vec![file])
    }

    fn assemble(config: Config, files: Vec<SafeTensors>) -> Result<Self> {
        let mut tensors = HashMap::new();
        for (i, file) in files.iter().enumerate() {
            for (j, entry) in file.entries.iter().enumerate() {
                if let Some((first, _)) = tensors.insert(entry.name.clone(), (i, j)) {
                    return Err(Error::Tensor {
                        path: file.path.clone(),
                        tensor: entry.name.clone(),
                        message: format!("stands in {} too", files[first].path.display()),
                        hint: "every tensor belongs in one shard; fetch the checkpoint again",
                    });
                }
            }
        }
        Ok(Self { config, files, tensors })
    }

    /// What the decoder computes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Bytes of all weight files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| (*file.bytes).as_ref().len() as u64).sum()
    }

    /// A matrix `[rows, cols]`.
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Weight> {
        let (file, entry, dtype) = self.find(name, &[rows, cols])?;
        let bytes = Bytes::new(file.bytes.clone(), entry.range.clone())
            .ok_or_else(|| self.wrong(file, name, "its bytes lie outside the file".into()))?;
        Ok(Weight::new(name, dtype, rows, cols, bytes)?)
    }

    /// A vector, widened to f32.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let (file, entry, dtype) = self.find(name, &[len])?;
        let mut values = vec![0.0; len];
        dtype.widen(&(*file.bytes).as_ref()[entry.range.clone()], &mut values);
        Ok(values)
    }

    fn wrong(&self, file: &SafeTensors, name: &str, message: String) -> Error {
        let hint = "config.json and the weights may be of different models";
        Error::Tensor { path: file.path.clone(), tensor: name.to_owned(), message, hint }
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<(&SafeTensors, &Entry, DType)> {
        let Some(&(file, entry)) = self.tensors.get(name) else {
            let path = self.files.first().map_or_else(PathBuf::new, |file| file.path.clone());
            let more =
                if self.files.len() > 1 { format!(" in all {} shards", self.files.len()) } else { String::new() };
            return Err(Error::Tensor {
                path,
                tensor: name.to_owned(),
                message: format!("is missing{more}, expected with shape {shape:?}"),
                hint: "the download may be incomplete, or config.json of another model",
            });
        };
        let file = &self.files[file];
        let entry = &file.entries[entry];
        if entry.shape != shape {
            return Err(self.wrong(file, name, format!("shape: expected {shape:?}, found {:?}", entry.shape)));
        }
        let dtype = match entry.dtype {
            "F32" => DType::F32,
            "F16" => DType::F16,
            "BF16" => DType::Bf16,
            other => return Err(self.wrong(file, name, format!("dtype: expected F32, F16 or BF16, found {other}"))),
        };
        Ok((file, entry, dtype))
    }

    /// The first weight that is NaN or infinite, in file order: to explain logits that are.
    pub fn first_not_finite(&self) -> Option<String> {
        let finite = |dtype: &str, bytes: &[u8]| match dtype {
            "F32" => bytes.chunks_exact(4).all(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite()),
            "F16" => bytes.chunks_exact(2).all(|b| half::f16::from_le_bytes([b[0], b[1]]).is_finite()),
            "BF16" => bytes.chunks_exact(2).all(|b| half::bf16::from_le_bytes([b[0], b[1]]).is_finite()),
            _ => true,
        };
        self.files.iter().flat_map(|file| file.entries.iter().map(move |entry| (file, entry))).find_map(
            |(file, entry)| {
                let bytes = &(*file.bytes).as_ref()[entry.range.clone()];
                (!finite(entry.dtype, bytes)).then(|| entry.name.clone())
            },
        )
    }
}

/// The weight files of a folder: the single file where there is one, else the shards of the index.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let single = folder.join(SINGLE);
    if single.exists() {
        return Ok(vec![single]);
    }
    let index = folder.join(INDEX);
    if !index.exists() {
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
    names.sort_unstable();
    names.dedup();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}
