//! Writing a GGUF file: version 3, tensor data one after the other, never the model in memory.
//!
//! Layout after `docs/gguf.md` of ggml; keys and tensor order are those of llama.cpp's converter.

use super::names::translate;
use crate::layout::tensors;
use crate::{Checkpoint, Config, Error, Recipe, Result};
use phi3_tensor::{DType, Weight};
use std::fs::{self, File, FileType};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Where tensor data begins: at multiples of this.
const ALIGNMENT: u64 = 32;

/// A metadata value to write.
#[derive(Clone, Debug, PartialEq)]
pub enum MetadataValue {
    /// `u32`
    U32(u32),
    /// `i32`
    I32(i32),
    /// `f32`
    F32(f32),
    /// `bool`
    Bool(bool),
    /// `string`
    String(String),
    /// An array of strings.
    Strings(Vec<String>),
    /// An array of `f32`.
    Floats(Vec<f32>),
    /// An array of `i32`.
    Integers(Vec<i32>),
}

/// Keys with their values, in the order of the file.
pub type MetadataList = Vec<(String, MetadataValue)>;

/// A tensor of the new file.
struct Plan {
    published: String,
    /// Outermost first; one dimension for a vector.
    shape: Vec<usize>,
    dtype: DType,
    bytes: u64,
}

/// Writes `checkpoint` by `recipe` to `out`. `keys` are those of sampling and of the tokenizer. `progress` is told the bytes of tensor
/// data that are written, and of all; it may break off by returning `false`, and nothing is left behind then.
///
/// The file appears under its name when it is complete, or under that of [`destination`]. Returns whether it is.
pub fn write_gguf(
    checkpoint: &Checkpoint,
    recipe: Recipe,
    name: &str,
    keys: MetadataList,
    out: &Path,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<bool> {
    let config = checkpoint.config();
    let out = &destination(out)?;
    let plans = plans(checkpoint, recipe)?;
    let mut partial = out.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    regular(partial, fs::symlink_metadata(partial))?;
    let fail = |e: std::io::Error| Error::Write { path: out.to_owned(), message: e.to_string() };
    let result = (|| {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(partial).map_err(fail)?);
        let mut metadata = model_keys(config, recipe, name);
        metadata.extend(keys);
        file.write_all(&header(&metadata, &plans)).map_err(fail)?;
        let total = plans.iter().map(|plan| plan.bytes).sum();
        let mut done = 0;
        for plan in &plans {
            let data = data(checkpoint, recipe, plan)?;
            check(plan, &data, out)?;
            file.write_all(&data).map_err(fail)?;
            file.write_all(&vec![0; padding(plan.bytes)]).map_err(fail)?;
            done += plan.bytes;
            if !progress(done, total) {
                return Ok(false);
            }
        }
        file.into_inner().map_err(|e| fail(e.into_error()))?.sync_all().map_err(fail)?;
        fs::rename(partial, out).map_err(fail)?;
        Ok(true)
    })();
    if !matches!(result, Ok(true)) {
        // the unfinished file is of no use; that it cannot be removed changes nothing about the result
        let _ = fs::remove_file(partial);
    }
    result
}

/// The header stands in the file already: a tensor of another size would move all that follow.
fn check(plan: &Plan, data: &[u8], out: &Path) -> Result<()> {
    let found = data.len() as u64;
    if found == plan.bytes {
        return Ok(());
    }
    Err(Error::Tensor {
        path: out.to_owned(),
        tensor: translate(&plan.published),
        message: format!("expected {} bytes of {} as the header says, found {found}", plan.bytes, plan.dtype),
        hint: "a defect of this program, please report it; nothing was written",
    })
}

/// The file that writing to `out` replaces: itself, or where a symbolic link leads.
///
/// # Errors
/// Something other than a regular file is there, such as a device: a complete file would take its place.
pub fn destination(out: &Path) -> Result<PathBuf> {
    let linked = fs::symlink_metadata(out).is_ok_and(|found| found.is_symlink());
    let target = match fs::canonicalize(out) {
        Ok(target) if linked => target,
        Err(_) if linked => {
            return Err(Error::Occupied { path: out.to_owned(), found: "a symbolic link that leads nowhere" });
        }
        _ => out.to_owned(),
    };
    regular(&target, fs::symlink_metadata(&target))?;
    Ok(target)
}

fn regular(path: &Path, found: std::io::Result<fs::Metadata>) -> Result<()> {
    match found.map(|found| found.file_type()) {
        Ok(kind) if kind.is_file() => Ok(()),
        Ok(kind) => Err(Error::Occupied { path: path.to_owned(), found: described(kind) }),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::Write { path: path.to_owned(), message: e.to_string() }),
    }
}

fn described(kind: FileType) -> &'static str {
    match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_symlink() => "a symbolic link",
        () => "a device, a pipe or a socket",
    }
}

fn padding(bytes: u64) -> usize {
    (bytes.next_multiple_of(ALIGNMENT) - bytes) as usize
}

/// The tensors in llama.cpp's order.
fn plans(checkpoint: &Checkpoint, recipe: Recipe) -> Result<Vec<Plan>> {
    let config = checkpoint.config();
    let mut plans = Vec::new();
    let mut add = |name: String, shape: &[usize]| -> Result<()> {
        let dtype = match *shape {
            [rows, cols] => recipe.target(checkpoint.matrix(&name, rows, cols)?.dtype, &name, cols, config),
            _ => DType::F32,
        };
        let row = dtype.bytes(shape[shape.len() - 1]);
        let rows = shape[..shape.len() - 1].iter().product::<usize>();
        let bytes = row.and_then(|row| row.checked_mul(rows)).map(|bytes| bytes as u64);
        let message = || format!("rows of {} values are no whole blocks of {dtype}", shape[shape.len() - 1]);
        let bytes = bytes.ok_or_else(|| checkpoint.wrong(&name, message()))?;
        plans.push(Plan { published: name, shape: shape.to_vec(), dtype, bytes });
        Ok(())
    };
    for (name, shape) in tensors(config) {
        add(name, &shape)?;
    }
    if config.rope.scaling().is_some() {
        add("rope_factors_long.weight".into(), &[config.heads.rotary_dim / 2])?;
        add("rope_factors_short.weight".into(), &[config.heads.rotary_dim / 2])?;
    }
    Ok(plans)
}

fn data(checkpoint: &Checkpoint, recipe: Recipe, plan: &Plan) -> Result<Vec<u8>> {
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let scaling = checkpoint.config().rope.scaling();
    Ok(match (plan.published.as_str(), plan.shape.as_slice(), scaling) {
        ("rope_factors_long.weight", _, Some(scaling)) => floats(&scaling.long_factor),
        ("rope_factors_short.weight", _, Some(scaling)) => floats(&scaling.short_factor),
        (name, &[rows, cols], _) => {
            let weight: Weight = checkpoint.matrix(name, rows, cols)?;
            recipe.apply(&weight, name, checkpoint.config())?.bytes().to_vec()
        }
        (name, shape, _) => floats(&checkpoint.vector(name, shape.iter().product())?),
    })
}

/// The keys of the model itself.
fn model_keys(config: &Config, recipe: Recipe, name: &str) -> MetadataList {
    use MetadataValue::{F32, String, U32};
    let key = |name: &str| format!("phi3.{name}");
    let number = |n: usize| U32(u32::try_from(n).unwrap_or(u32::MAX));
    let original = config.rope.scaling().map_or(config.max_position_embeddings, |s| s.original_max_position_embeddings);
    let mut keys = vec![
        ("general.architecture".into(), String("phi3".into())),
        ("general.type".into(), String("model".into())),
        ("general.name".into(), String(name.into())),
        ("general.quantization_version".into(), U32(2)),
        ("general.file_type".into(), U32(recipe.file_type())),
        (key("context_length"), number(config.max_position_embeddings)),
        (key("rope.scaling.original_context_length"), number(original)),
        (key("embedding_length"), number(config.hidden_size)),
        (key("feed_forward_length"), number(config.intermediate_size)),
        (key("block_count"), number(config.num_hidden_layers)),
        (key("attention.head_count"), number(config.heads.heads)),
        (key("attention.head_count_kv"), number(config.heads.kv_heads)),
        (key("attention.layer_norm_rms_epsilon"), F32(config.rms_norm_eps)),
        (key("rope.dimension_count"), number(config.heads.rotary_dim)),
        (key("rope.freq_base"), F32(config.rope.theta())),
        (key("attention.sliding_window"), number(config.sliding_window.unwrap_or(0))),
    ];
    if let Some(scaling) = config.rope.scaling() {
        keys.push((key("rope.scaling.attn_factor"), F32(scaling.attention_factor)));
    }
    keys
}

/// Everything before the tensor data, padded.
fn header(metadata: &[(String, MetadataValue)], plans: &[Plan]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((plans.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        string(&mut out, key);
        write_value(&mut out, value);
    }
    let mut offset = 0u64;
    for plan in plans {
        string(&mut out, &translate(&plan.published));
        out.extend((plan.shape.len() as u32).to_le_bytes());
        plan.shape.iter().rev().for_each(|&d| out.extend((d as u64).to_le_bytes()));
        out.extend(plan.dtype.ggml_id().to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += plan.bytes.next_multiple_of(ALIGNMENT);
    }
    let padded = (out.len() as u64).next_multiple_of(ALIGNMENT) as usize;
    out.resize(padded, 0);
    out
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_value(out: &mut Vec<u8>, value: &MetadataValue) {
    let kind = |out: &mut Vec<u8>, id: u32| out.extend(id.to_le_bytes());
    let array = |out: &mut Vec<u8>, element: u32, len: usize| {
        out.extend(9u32.to_le_bytes());
        out.extend(element.to_le_bytes());
        out.extend((len as u64).to_le_bytes());
    };
    match value {
        MetadataValue::U32(n) => {
            kind(out, 4);
            out.extend(n.to_le_bytes());
        }
        MetadataValue::I32(n) => {
            kind(out, 5);
            out.extend(n.to_le_bytes());
        }
        MetadataValue::F32(x) => {
            kind(out, 6);
            out.extend(x.to_le_bytes());
        }
        MetadataValue::Bool(b) => {
            kind(out, 7);
            out.push(u8::from(*b));
        }
        MetadataValue::String(text) => {
            kind(out, 8);
            string(out, text);
        }
        MetadataValue::Strings(list) => {
            array(out, 8, list.len());
            list.iter().for_each(|text| string(out, text));
        }
        MetadataValue::Floats(list) => {
            array(out, 6, list.len());
            list.iter().for_each(|x| out.extend(x.to_le_bytes()));
        }
        MetadataValue::Integers(list) => {
            array(out, 5, list.len());
            list.iter().for_each(|n| out.extend(n.to_le_bytes()));
        }
    }
}
