//! A GGUF file with random weights, tensor by tensor.

use std::path::Path;

use phi3_model::gguf::GgufTensor;
use phi3_model::{GgufLayout, ModelSpec, QuantScheme};
use phi3_runner::gguf_keys;
use phi3_tensor::{DType, quant};
use rayon::prelude::*;
use serde_json::Value;

use crate::random::{mix, normal, stream};
use crate::tensors::distribution;
use crate::write::Progress;
use crate::{Result, check_space, spec, write_small_files};

/// Number of elements in a table of blocks.
const TABLE: usize = 1 << 18;

/// Approximate number of bytes that one thread fills at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Writes a model of `config` with the weight types of `scheme`.
pub(super) fn write(
    variant: &str,
    config: &Value,
    generation: &Value,
    file: &Path,
    scheme: QuantScheme,
    seed: u64,
) -> Result {
    let spec = spec(config)?;
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let layout = GgufLayout::new(&spec, DType::Bf16, scheme).map_err(|error| fail(&error))?;
    let total: u64 = layout.tensors().iter().map(|tensor| tensor.bytes).sum();
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|error| fail(&error))?;
    check_space(folder, total)?;
    println!("{variant}: {} tensors, {:.2} GB of {scheme}", layout.tensors().len(), total as f64 / 1e9);
    let keys = keys(config, generation, &spec, file)?;
    let mut tables = Tables::default();
    let mut data = |i: usize| {
        let tensor = &layout.tensors()[i];
        Ok(match layout.given(i) {
            Some(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            None => tables.values(&layout, i, tensor, &spec, seed),
        })
    };
    let mut progress = Progress::new(total);
    layout.write(variant, keys, file, &mut data, &mut |done, _| progress.show(done)).map_err(|error| fail(&error))?;
    Ok(())
}

/// The keys of tokenizer and sampling, from small files that are written beside the output and then removed.
fn keys(config: &Value, generation: &Value, spec: &ModelSpec, file: &Path) -> Result<phi3_model::gguf::MetadataList> {
    let mut folder = file.as_os_str().to_owned();
    folder.push(".files");
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut notes = Vec::new();
    let keys = write_small_files(folder, config, generation)
        .and_then(|()| gguf_keys(folder, spec, &mut notes).map_err(|error| error.to_string()));
    std::fs::remove_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    notes.iter().for_each(|note| println!("{note}"));
    keys
}

/// Blocks of random values, by type and distribution.
#[derive(Default)]
struct Tables(Vec<(DType, [u32; 2], Vec<u8>)>);

impl Tables {
    /// The bytes of a tensor: each block is chosen from a table by the tensor's random stream.
    fn values(
        &mut self,
        layout: &GgufLayout<'_>,
        i: usize,
        tensor: &GgufTensor,
        spec: &ModelSpec,
        seed: u64,
    ) -> Vec<u8> {
        let (mean, sigma) = distribution(layout.slot(i), &tensor.shape, tensor.name.ends_with(".bias"), spec);
        let table = self.table(tensor.dtype, mean, sigma);
        let block = tensor.dtype.block().1;
        let count = (table.len() / block) as u64;
        let stream = stream(seed, &tensor.name);
        let mut bytes = vec![0; tensor.bytes as usize];
        let blocks = PIECE_BYTES / block;
        bytes.par_chunks_mut(blocks * block).enumerate().for_each(|(piece, bytes)| {
            for (i, out) in bytes.chunks_exact_mut(block).enumerate() {
                let number = (piece * blocks + i) as u64;
                let bits = mix(stream.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
                let from = (bits % count) as usize * block;
                out.copy_from_slice(&table[from..from + block]);
            }
        });
        bytes
    }

    fn table(&mut self, dtype: DType, mean: f32, sigma: f32) -> &[u8] {
        let key = [mean.to_bits(), sigma.to_bits()];
        let found = self.0.iter().position(|(of, with, _)| (*of, *with) == (dtype, key));
        let at = found.unwrap_or_else(|| {
            let value = |i: usize| mean + sigma * normal(mix(i as u64) as u32 & 0xFFFF);
            let values: Vec<f32> = (0..TABLE).map(value).collect();
            self.0.push((dtype, key, quant::quantize(dtype, &values).unwrap_or_default()));
            self.0.len() - 1
        });
        &self.0[at].2
    }
}
