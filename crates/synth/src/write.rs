//! Writes shards and their index while the values are computed.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::random::{Dtype, Values};
use super::tensors::Tensor;
use super::write_json;
use crate::Result;

/// Maximum shard size of published checkpoints.
const SHARD_BYTES: u64 = 5_000_000_000;

const BUFFER_BYTES: usize = 64 << 20;

/// Part of the buffer filled by one thread at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Writes all tensors into one or more safetensors files, and the index of several.
pub(super) fn checkpoint(folder: &Path, tensors: &[Tensor], dtype: Dtype, seed: u64) -> Result {
    remove_older_files(folder)?;
    let shards = shards(tensors, dtype);
    let total: u64 = tensors.iter().map(|tensor| tensor.elements() * dtype.size()).sum();
    let mut progress = Progress::new(total);
    let mut weight_map = Map::new();
    for (i, shard) in (1..).zip(&shards) {
        let name = match shards.len() {
            1 => "model.safetensors".to_owned(),
            count => format!("model-{i:05}-of-{count:05}.safetensors"),
        };
        let path = folder.join(&name);
        write_shard(&path, shard, dtype, seed, &mut progress).map_err(|e| format!("{}: {e}", path.display()))?;
        weight_map.extend(shard.iter().map(|tensor| (tensor.name.clone(), Value::from(name.as_str()))));
    }
    if shards.len() > 1 {
        weight_map.sort_keys();
        let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
        write_json(&folder.join("model.safetensors.index.json"), &index)?;
    }
    Ok(())
}

/// Removes shards of an earlier run, which would be read as parts of this checkpoint.
fn remove_older_files(folder: &Path) -> Result {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in folder.read_dir().map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("model") && (name.ends_with(".safetensors") || name == "model.safetensors.index.json") {
            std::fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

fn shards(tensors: &[Tensor], dtype: Dtype) -> Vec<Vec<&Tensor>> {
    let mut shards: Vec<Vec<&Tensor>> = vec![Vec::new()];
    let mut size = 0;
    for tensor in tensors {
        let bytes = tensor.elements() * dtype.size();
        if size > 0 && size + bytes > SHARD_BYTES {
            shards.push(Vec::new());
            size = 0;
        }
        size += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    shards
}

/// Writes the header's length in eight bytes, the header in JSON, and the data.
fn write_shard(
    path: &Path,
    tensors: &[&Tensor],
    dtype: Dtype,
    seed: u64,
    progress: &mut Progress,
) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let header = header(tensors, dtype);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    let mut buffer = vec![0; BUFFER_BYTES];
    for tensor in tensors {
        let values = Values::of(tensor, dtype, seed);
        let size = dtype.size();
        let mut first = 0;
        while first < tensor.elements() {
            let count = (tensor.elements() - first).min(BUFFER_BYTES as u64 / size);
            let bytes = &mut buffer[..(count * size) as usize];
            bytes.par_chunks_mut(PIECE_BYTES).enumerate().for_each(|(i, piece)| {
                let offset = (i * PIECE_BYTES) as u64 / size;
                values.fill(piece, first + offset);
            });
            file.write_all(bytes)?;
            first += count;
            progress.advance(bytes.len() as u64);
        }
    }
    file.sync_all()
}

fn header(tensors: &[&Tensor], dtype: Dtype) -> String {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.elements() * dtype.size();
        let entry = json!({"dtype": dtype.name(), "shape": tensor.shape, "data_offsets": [start, end]});
        header.insert(tensor.name.clone(), entry);
        start = end;
    }
    let mut header = Value::Object(header).to_string();
    // the data starts at a multiple of eight bytes
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    header
}

/// Progress of writing, printed in lines.
pub(super) struct Progress {
    start: Instant,
    done: u64,
    total: u64,
    shown: u64,
}

impl Progress {
    pub(super) fn new(total: u64) -> Self {
        Self { start: Instant::now(), done: 0, total, shown: 0 }
    }

    fn advance(&mut self, bytes: u64) {
        self.show(self.done + bytes);
    }

    /// Sets the number of bytes written, and prints a line every 5 %. Returns `true`: writing is never cancelled.
    pub(super) fn show(&mut self, done: u64) -> bool {
        self.done = done;
        let percent = self.done * 100 / self.total.max(1);
        if percent / 5 > self.shown / 5 || self.done == self.total {
            self.shown = percent;
            let speed = self.done as f64 / 1e9 / self.start.elapsed().as_secs_f64();
            println!("{percent:3} %  {:.2} GB, {speed:.2} GB/s", self.done as f64 / 1e9);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_cut_at_the_limit() {
        let tensors: Vec<Tensor> = (0..5).map(|i| Tensor::normal(format!("t{i}"), &[1 << 30], 0.0, 1.0)).collect();
        let lengths: Vec<usize> = shards(&tensors, Dtype::Bf16).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 2, 1]);
    }

    #[test]
    fn a_small_checkpoint() {
        let folder = std::env::temp_dir().join(format!("xtask-synth-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let tensors = [Tensor::normal("a", &[3, 5], 0.0, 1.0), Tensor::normal("b.weight", &[7], 1.0, 0.1)];
        checkpoint(&folder, &tensors, Dtype::F16, 4).unwrap();
        let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        assert_eq!(header["b.weight"], json!({"dtype": "F16", "shape": [7], "data_offsets": [30, 44]}));
        assert_eq!((length % 8, bytes.len()), (0, 8 + length + 44));
    }
}
