//! Export of a checkpoint as a GGUF file, with one tensor in memory at a time. Keys and tensor order are those of llama.cpp's
//! converter.

mod data;
mod layout;

use crate::gguf::{ALIGNMENT, GgufTensor, MetadataList, header};
use crate::table::{Slot, TensorSpec};
use crate::{Checkpoint, Error, ModelSpec, QuantScheme, Result};
use layout::{Architecture, Source, StoredType, plan};
use phi3_tensor::DType;
use std::fs::{self, File, FileType};
use std::io::{BufWriter, ErrorKind, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Tensors and keys of a GGUF file to write, in llama.cpp's order.
pub struct GgufLayout<'a> {
    spec: &'a ModelSpec,
    scheme: QuantScheme,
    architecture: Architecture,
    tensors: Vec<GgufTensor>,
    sources: Vec<Source>,
}

impl<'a> GgufLayout<'a> {
    /// The layout for a model whose matrices are all of type `stored` before `scheme` is applied.
    ///
    /// # Errors
    ///
    /// [`Error::Request`] if no supported GGUF architecture can hold the model.
    pub fn new(spec: &'a ModelSpec, stored: DType, scheme: QuantScheme) -> Result<Self> {
        Self::of(spec, scheme, &|_, _| Ok(stored))
    }

    fn of(spec: &'a ModelSpec, scheme: QuantScheme, stored: &StoredType<'_>) -> Result<Self> {
        let architecture = Architecture::of(spec)?;
        let (tensors, sources) = plan(spec, architecture, scheme, stored)?.into_iter().unzip();
        Ok(Self { spec, scheme, architecture, tensors, sources })
    }

    /// The tensors, in the order of the file.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// The model tensor of which tensor `i` holds weights or the bias; [`Slot::Embedding`] for LongRoPE's factors.
    pub fn slot(&self, i: usize) -> Slot {
        match self.sources.get(i) {
            Some(Source::Rows { tensor, .. } | Source::Bias { tensor, .. } | Source::Norm { tensor, .. }) => {
                tensor.slot
            }
            Some(Source::Factors(_)) | None => Slot::Embedding,
        }
    }

    /// Values of tensor `i` that come from the model's configuration: LongRoPE's factors. `None` for weights.
    pub fn given(&self, i: usize) -> Option<&[f32]> {
        match self.sources.get(i) {
            Some(Source::Factors(factors)) => Some(factors),
            _ => None,
        }
    }

    /// Writes the file. `data` returns the bytes of tensor `i`; `keys` are those of sampling and of the tokenizer. `progress` is
    /// called with the bytes of tensor data written so far, and of all. If `progress` returns `false`, the export is cancelled,
    /// and no file is left.
    ///
    /// The file is written under a temporary name and renamed to [`destination`] when complete. Returns whether it is complete.
    ///
    /// # Errors
    ///
    /// [`Error::Write`], [`Error::Occupied`], and those of `data`.
    pub fn write(
        &self,
        name: &str,
        keys: MetadataList,
        out: &Path,
        data: &mut dyn FnMut(usize) -> Result<Vec<u8>>,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<bool> {
        let out = &destination(out)?;
        let mut partial = out.as_os_str().to_owned();
        partial.push(".partial");
        let partial = Path::new(&partial);
        regular(partial, fs::symlink_metadata(partial))?;
        let fail = |source: std::io::Error| Error::Write { path: out.to_owned(), source };
        let result = (|| {
            let mut file = BufWriter::with_capacity(1 << 20, File::create(partial).map_err(fail)?);
            let mut metadata = self.architecture.keys(self.spec, self.scheme, name);
            metadata.extend(keys);
            file.write_all(&header(&metadata, &self.tensors)).map_err(fail)?;
            let total = self.tensors.iter().map(|tensor| tensor.bytes).sum();
            let mut done = 0;
            for (i, tensor) in self.tensors.iter().enumerate() {
                let data = data(i)?;
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
            // an error of removing the unfinished file does not change the result
            let _ = fs::remove_file(partial);
        }
        result
    }
}

/// Writes `checkpoint`, quantized by `scheme`, to `out`, as [`GgufLayout::write`] does.
///
/// # Errors
///
/// [`Error::Occupied`] if `out` is a weight file of the checkpoint, [`Error::Request`] if no supported GGUF architecture can hold
/// the model, and those of reading and writing.
pub fn write_gguf(
    checkpoint: &Checkpoint,
    scheme: QuantScheme,
    name: &str,
    keys: MetadataList,
    out: &Path,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<bool> {
    let target = destination(out)?;
    if let Ok(there) = fs::canonicalize(&target)
        && checkpoint.files().any(|file| fs::canonicalize(file).is_ok_and(|file| file == there))
    {
        return Err(Error::Occupied { path: target, found: "a weight file of the model that is read" });
    }
    let stored = |tensor: &TensorSpec, rows: &[Range<usize>]| data::stored(checkpoint, tensor, rows);
    let layout = GgufLayout::of(checkpoint.spec(), scheme, &stored)?;
    let mut data = |i: usize| data::data(checkpoint, scheme, &layout.sources[i]);
    layout.write(name, keys, out, &mut data, progress)
}

/// Checks a tensor's size against the header, which is already written: another size would shift all tensors after it.
fn check(tensor: &GgufTensor, data: &[u8], out: &Path) -> Result<()> {
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

/// The file that a write to `out` replaces: `out` itself, or the target of a symbolic link.
///
/// # Errors
/// [`Error::Occupied`] if something other than a regular file is there, such as a device: the complete file would replace it.
pub fn destination(out: &Path) -> Result<PathBuf> {
    let linked = fs::symlink_metadata(out).is_ok_and(|found| found.is_symlink());
    let target = match fs::canonicalize(out) {
        Ok(target) if linked => target,
        Err(_) if linked => {
            return Err(Error::Occupied { path: out.to_owned(), found: "a symbolic link whose target does not exist" });
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
