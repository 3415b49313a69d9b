//! Writing a checkpoint as a GGUF file, tensor by tensor: never the model in memory. Keys and tensor order are those of llama.cpp's
//! converter.

use crate::gguf::{ALIGNMENT, LONG, MetadataList, MetadataValue, SHORT, TensorInfo, header};
use crate::table::{TensorSpec, gguf_name, tensors};
use crate::{Block, Checkpoint, Error, LayerSpec, Mlp, ModelSpec, NormSpec, Recipe, Result};
use phi3_tensor::{Activation, DType, Rounding, Weight};
use std::fs::{self, File, FileType};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Where the values of a tensor come from.
enum Source {
    /// The checkpoint.
    Tensor(TensorSpec),
    /// Factors of LongRoPE, which a published checkpoint has in `config.json`.
    Factors(Vec<f32>),
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
    let out = &destination(out)?;
    if let Ok(there) = fs::canonicalize(out)
        && checkpoint.files().any(|file| fs::canonicalize(file).is_ok_and(|file| file == there))
    {
        return Err(Error::Occupied { path: out.to_owned(), found: "a weight file of the model that is read" });
    }
    let (tensors, sources): (Vec<TensorInfo>, Vec<Source>) = plan(checkpoint, recipe)?.into_iter().unzip();
    let mut partial = out.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    regular(partial, fs::symlink_metadata(partial))?;
    let fail = |source: std::io::Error| Error::Write { path: out.to_owned(), source };
    let result = (|| {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(partial).map_err(fail)?);
        let mut metadata = model_keys(checkpoint.spec(), recipe, name);
        metadata.extend(keys);
        file.write_all(&header(&metadata, &tensors)).map_err(fail)?;
        let total = tensors.iter().map(|tensor| tensor.bytes).sum();
        let mut done = 0;
        for (tensor, source) in tensors.iter().zip(&sources) {
            let data = data(checkpoint, recipe, source)?;
            check(tensor, &data, out)?;
            file.write_all(&data).map_err(fail)?;
            file.write_all(&vec![0; padding(tensor.bytes)]).map_err(fail)?;
            done += tensor.bytes;
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
fn check(tensor: &TensorInfo, data: &[u8], out: &Path) -> Result<()> {
    let found = data.len() as u64;
    if found == tensor.bytes {
        return Ok(());
    }
    Err(Error::Tensor {
        path: out.to_owned(),
        tensor: tensor.name.clone(),
        message: format!("expected {} bytes of {} as the header says, found {found}", tensor.bytes, tensor.dtype),
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
        Err(source) => Err(Error::Write { path: path.to_owned(), source }),
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

/// An error unless GGUF's architecture phi3 describes the model.
fn check_architecture(spec: &ModelSpec) -> Result<()> {
    let of_layer = |layer: &LayerSpec| {
        let mlp = Mlp::Dense { inner: spec.widest_mlp(), activation: Activation::SwiGlu, bias: false };
        layer.block == Block::Sequential
            && !layer.attention_bias
            && layer.mlp == mlp
            && layer.mask == spec.layers[0].mask
    };
    let scaled = spec.embedding_scale != 1.0 || spec.logit_scale != 1.0;
    if !spec.norm.has_bias() && !spec.head_bias && !scaled && spec.layers.iter().all(of_layer) {
        return Ok(());
    }
    Err(Error::Request {
        what: "GGUF file",
        found: "a model with biases, other norms or other layers than Phi-3's".into(),
        limit: "files of architecture phi3 are written".into(),
        hint: "run the checkpoint itself; --quant quantizes it while it is loaded",
    })
}

/// The tensors in llama.cpp's order.
fn plan(checkpoint: &Checkpoint, recipe: Recipe) -> Result<Vec<(TensorInfo, Source)>> {
    let spec = checkpoint.spec();
    check_architecture(spec)?;
    let mut plan = Vec::new();
    for tensor in tensors(spec) {
        let dtype = match tensor.shape.len() {
            1 => DType::F32,
            _ => recipe.target(whole(checkpoint, &tensor)?.dtype, &tensor, spec),
        };
        let (rows, cols) = tensor.shape.split_at(tensor.shape.len() - 1);
        let row = dtype.bytes(cols[0]);
        let bytes = row.and_then(|row| row.checked_mul(rows.iter().product())).map(|bytes| bytes as u64);
        let message = || format!("rows of {} values are no whole blocks of {dtype}", cols[0]);
        let bytes = bytes.ok_or_else(|| checkpoint.wrong(&tensor, message()))?;
        let (name, shape) = (gguf_name(&tensor.name), tensor.shape.clone());
        plan.push((TensorInfo { name, shape, dtype, bytes }, Source::Tensor(tensor)));
    }
    if let Some(scaling) = spec.rope.scaling() {
        for (name, factors) in [(LONG, &scaling.long_factor), (SHORT, &scaling.short_factor)] {
            let (shape, bytes) = (vec![factors.len()], 4 * factors.len() as u64);
            let tensor = TensorInfo { name: name.into(), shape, dtype: DType::F32, bytes };
            plan.push((tensor, Source::Factors(factors.clone())));
        }
    }
    Ok(plan)
}

fn data(checkpoint: &Checkpoint, recipe: Recipe, source: &Source) -> Result<Vec<u8>> {
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let tensor = match source {
        Source::Factors(factors) => return Ok(floats(factors)),
        Source::Tensor(tensor) => tensor,
    };
    match tensor.shape.len() {
        1 => Ok(floats(&checkpoint.norm(tensor)?.0)),
        _ => Ok(recipe.apply(&whole(checkpoint, tensor)?, tensor, checkpoint.spec(), None)?.to_bytes()),
    }
}

/// A matrix in one part: where the file's tensors are of several types, in single precision.
fn whole(checkpoint: &Checkpoint, tensor: &TensorSpec) -> Result<Weight> {
    let parts = checkpoint.matrices(tensor)?;
    if let [weight] = &parts[..] {
        return Ok(weight.clone());
    }
    let widened = parts.iter().map(|part| part.requantised(DType::F32, Rounding::Fitted, None));
    Ok(Weight::stacked(&tensor.name, &widened.collect::<std::result::Result<Vec<_>, _>>()?)?)
}

/// The keys of the model itself.
fn model_keys(spec: &ModelSpec, recipe: Recipe, name: &str) -> MetadataList {
    use MetadataValue::{F32, String, U32};
    let (NormSpec::Rms { eps } | NormSpec::Layer { eps }) = spec.norm;
    let key = |name: &str| format!("phi3.{name}");
    let number = |n: usize| U32(u32::try_from(n).unwrap_or(u32::MAX));
    let original = spec.rope.scaling().map_or(spec.max_position_embeddings, |s| s.original_max_position_embeddings);
    let mut keys = vec![
        ("general.architecture".into(), String("phi3".into())),
        ("general.type".into(), String("model".into())),
        ("general.name".into(), String(name.into())),
        ("general.quantization_version".into(), U32(2)),
        ("general.file_type".into(), U32(recipe.file_type())),
        (key("context_length"), number(spec.max_position_embeddings)),
        (key("rope.scaling.original_context_length"), number(original)),
        (key("embedding_length"), number(spec.hidden_size)),
        (key("feed_forward_length"), number(spec.widest_mlp())),
        (key("block_count"), number(spec.layers.len())),
        (key("attention.head_count"), number(spec.heads.heads)),
        (key("attention.head_count_kv"), number(spec.heads.kv_heads)),
        (key("attention.layer_norm_rms_epsilon"), F32(eps)),
        (key("rope.dimension_count"), number(spec.heads.rotary_dim)),
        (key("rope.freq_base"), F32(spec.rope.theta())),
        (key("attention.sliding_window"), number(spec.window().unwrap_or(0))),
    ];
    if let Some(scaling) = spec.rope.scaling() {
        keys.push((key("rope.scaling.attn_factor"), F32(scaling.short_mscale)));
    }
    keys
}
