//! GGUF files: metadata, tensor table, shards, and the description of a decoder from them.
//!
//! A file is mapped, not read. Everything in it is checked before use: counts and lengths against the remaining bytes, offsets
//! of tensors against the file's size and each other.

mod config;
mod display;
mod reader;
mod split;
mod value;
mod vocabulary;
mod write;

pub use value::Metadata;
pub use vocabulary::{TokenizerKind, Vocabulary};
pub use write::{MetadataList, MetadataValue};

pub(crate) use config::{LONG, SHORT, config};
pub use write::GgufTensor;
pub(crate) use write::{ALIGNMENT, header};

use crate::Result;
use crate::shard::{Shard, Shared, map};
use std::path::Path;

/// An opened model.
pub(crate) struct Gguf {
    pub(crate) metadata: Metadata,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) shards: Vec<Shard>,
}

/// Opens a model: its only file, or the first of its shards.
pub(crate) fn open(path: &Path) -> Result<Gguf> {
    let (metadata, first) = open_one(path)?;
    let shards = split::complete(path, &metadata, first)?;
    described(metadata, shards)
}

/// Reads a model from the bytes of its only file; `name` is for messages.
pub(crate) fn from_memory(name: &Path, bytes: Shared) -> Result<Gguf> {
    let (metadata, only) = reader::parse(name, bytes)?;
    split::alone(&metadata)?;
    let shards = split::complete(name, &metadata, only)?;
    described(metadata, shards)
}

fn described(metadata: Metadata, shards: Vec<Shard>) -> Result<Gguf> {
    config::check_architecture(&metadata)?;
    let vocabulary = Vocabulary::read(&metadata)?;
    Ok(Gguf { metadata, vocabulary, shards })
}

fn open_one(path: &Path) -> Result<(Metadata, Shard)> {
    match map(path, "a model is a GGUF file (of several shards the first) or a checkpoint folder")? {
        Some(bytes) => reader::parse(path, bytes),
        None => reader::parse(path, std::sync::Arc::new(Vec::new())),
    }
}

impl Metadata {
    /// The metadata of a GGUF file of any architecture. For a sharded model, only the metadata of this shard.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(open_one(path)?.0)
    }

    /// The metadata in the bytes of a GGUF file; `name` is for messages.
    ///
    /// # Errors
    /// The bytes are damaged.
    pub fn from_memory(name: &str, bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self> {
        Ok(reader::parse(Path::new(name), std::sync::Arc::new(crate::shard::Lent(bytes)))?.0)
    }
}
