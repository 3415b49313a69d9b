//! Sharded models: files `NAME-00001-of-0000N.gguf` and so on, as llama.cpp's `llama-gguf-split` writes them.

use super::{Metadata, open_one};
use crate::shard::Shard;
use crate::{Error, Result};
use std::path::Path;

/// Checks that a file in memory is not one of several shards.
pub(super) fn alone(metadata: &Metadata) -> Result<()> {
    let key = "split.count";
    match metadata.integer(key, 0..=u16::MAX as usize)? {
        Some(2..) => {
            Err(metadata.bad(key, "1: a model in one file", "open a model in several files by its first path"))
        }
        _ => Ok(()),
    }
}

/// All shards of a model whose first file was opened.
pub(super) fn complete(path: &Path, metadata: &Metadata, first: Shard) -> Result<Vec<Shard>> {
    let count = metadata.integer("split.count", 0..=u16::MAX as usize)?.unwrap_or(1);
    let mut shards = vec![first];
    if count > 1 {
        let no = metadata.integer("split.no", 0..=u16::MAX as usize)?.unwrap_or(0);
        if no != 0 {
            let hint = "give the path of the first shard (-00001-of-...)";
            return Err(metadata.bad("split.no", "0: the first shard", hint));
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(stem) = name.strip_suffix(&format!("-00001-of-{count:05}.gguf")) else {
            let expected = format!("a file name that ends in -00001-of-{count:05}.gguf (this is one shard of several)");
            return Err(metadata.bad(
                "split.count",
                expected,
                "the shards must keep the names that they were made with",
            ));
        };
        for no in 1..count {
            let path = path.with_file_name(format!("{stem}-{:05}-of-{count:05}.gguf", no + 1));
            let (shard, entries) = open_one(&path)?;
            for (key, expected) in [("split.no", no), ("split.count", count)] {
                if shard.integer(key, 0..=u16::MAX as usize)? != Some(expected) {
                    let hint = "this is another shard, or one of another model";
                    return Err(shard.bad(key, expected.to_string(), hint));
                }
            }
            shards.push(entries);
        }
    }
    let found: usize = shards.iter().map(|shard| shard.entries.len()).sum();
    match metadata.integer("split.tensors.count", 0..=i32::MAX as usize)? {
        Some(expected) if expected != found => Err(Error::Field {
            path: path.to_owned(),
            field: "split.tensors.count".into(),
            expected: format!("{found}: the number of tensors in all shards"),
            found: expected.to_string(),
            hint: "the shards may be of different models",
        }),
        _ => Ok(shards),
    }
}
