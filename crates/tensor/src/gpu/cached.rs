//! The driver's compiled pipelines, kept between starts where the driver supports it.

use super::memory::{hash, replace};
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of the hash in front of the driver's bytes.
const FRONT: usize = size_of::<u64>();

/// A cache of pipelines, and its file.
pub(crate) struct Cached {
    pub(crate) raw: wgpu::PipelineCache,
    file: PathBuf,
    /// Hash of the driver's bytes in the file; 0 without a file.
    kept: u64,
}

impl Cached {
    /// The pipeline cache of an adapter and driver in a folder; `None` where the driver has no pipeline cache. A damaged file is
    /// ignored.
    pub(crate) fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo, folder: &Path) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let file = folder.join(format!("{}.bin", wgpu::util::pipeline_cache_key(info)?));
        let data = fs::read(&file).ok().and_then(|bytes| whole(&bytes).map(<[u8]>::to_vec));
        let kept = data.as_deref().map_or(0, hash);
        let descriptor =
            wgpu::PipelineCacheDescriptor { label: Some("pipelines"), data: data.as_deref(), fallback: true };
        // SAFETY: the hash proves that the data is a result of `get_data`; wgpu and the driver check its header, which names the
        // driver
        let raw = unsafe { device.create_pipeline_cache(&descriptor) };
        Some(Self { raw, file, kept })
    }

    /// Writes the driver's pipelines if they changed. If the file cannot be written, the next start compiles again.
    pub(crate) fn keep(&self) {
        let Some(data) = self.raw.get_data() else { return };
        let now = hash(&data);
        if now != self.kept {
            replace(&self.file, &[&now.to_le_bytes()[..], &data].concat());
        }
    }
}

/// The driver's bytes, if their hash is right.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let (front, data) = bytes.split_first_chunk::<FRONT>()?;
    (hash(data) == u64::from_le_bytes(*front)).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Gpu, Options, Select};

    #[test]
    fn damaged_files_are_none() {
        let data = b"pipelines";
        let bytes = [&hash(data).to_le_bytes()[..], data].concat();
        assert_eq!(whole(&bytes), Some(&data[..]));
        assert_eq!(whole(&bytes[..bytes.len() - 1]), None);
        assert_eq!(whole(&bytes[..3]), None);
    }

    #[test]
    fn pipelines_are_kept_between_starts() {
        let folder = std::env::temp_dir().join(format!("phi3-pipelines-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let open = || {
            let options = Options { software: true, check: true, memory: Some(folder.clone()), ..Options::default() };
            Gpu::open(&Select::Any, &options)
        };
        let Ok(gpu) = open() else {
            println!("skipped: no adapter");
            return;
        };
        drop(gpu);
        let files = || fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let Some(file) = files().find(|path| path.extension().is_some_and(|extension| extension == "bin")) else {
            println!("skipped: the driver keeps no pipelines");
            return;
        };
        assert!(whole(&fs::read(&file).unwrap()).is_some());
        for damaged in [&b""[..], b"12345678 and more"] {
            fs::write(&file, damaged).unwrap();
            drop(open().unwrap());
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
