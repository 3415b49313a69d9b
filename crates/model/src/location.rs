//! Resolution of a path to a model: a folder in the layout of a published checkpoint, or a GGUF file.

use crate::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Location of a model's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder with `config.json`, safetensors weights and the tokenizer's files.
    Folder {
        /// The folder.
        root: PathBuf,
        /// The weight file, if the path is a safetensors file with neither a published name nor the name of a shard.
        weights: Option<PathBuf>,
    },
    /// A GGUF file; of several shards the first.
    Gguf(PathBuf),
}

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
const CONFIG: &str = "config.json";

impl Location {
    /// Finds the model of a path: a checkpoint folder, one of its files, a GGUF file, a folder that holds one, a model's
    /// folder in the Hugging Face cache (above its `snapshots`), or one of its snapshots.
    ///
    /// A folder without a recognized model is returned as [`Location::Folder`]; opening it reports what is missing.
    ///
    /// # Errors
    /// The path does not exist, holds several models, or is a file of another kind.
    pub fn find(path: &Path) -> Result<Self> {
        let found = fs::metadata(path).map_err(|error| {
            let hint = "a model is a folder with config.json and safetensors weights, or a GGUF file";
            Error::read(path, error, hint)
        })?;
        if !found.is_dir() {
            return Self::of_file(path);
        }
        let root = snapshot(path)?.unwrap_or_else(|| path.to_owned());
        let has = |name: &str| root.join(name).symlink_metadata().is_ok();
        let files = names(&root);
        let plain = has(SINGLE) || has(INDEX) || files.iter().any(|name| is_weights(name));
        match gguf_files(&files).as_slice() {
            [only] if !plain => Ok(Self::Gguf(root.join(only))),
            [] => Ok(Self::Folder { root, weights: None }),
            _ if plain => Ok(Self::Folder { root, weights: None }),
            several => Err(Error::Foreign {
                path: root,
                expected: "one model",
                found: format!("{} GGUF files: {}", several.len(), several.join(", ")),
                hint: "give the path of one of these files",
            }),
        }
    }

    fn of_file(path: &Path) -> Result<Self> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let lower = name.to_ascii_lowercase();
        let root = || match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        if lower == CONFIG || lower.ends_with(".safetensors.index.json") {
            return Ok(Self::Folder { root: root(), weights: None });
        }
        if lower.ends_with(".onnx") || lower.ends_with(".onnx.data") {
            return Err(foreign(path, "an ONNX model", ONNX));
        }
        if !lower.ends_with(".safetensors") {
            return Ok(Self::Gguf(path.to_owned()));
        }
        let root = root();
        if root.join(CONFIG).symlink_metadata().is_err() {
            if lower.starts_with("adapter") || root.join("adapter_config.json").exists() {
                return Err(foreign(path, "a LoRA adapter", ADAPTER));
            }
            return Err(Error::Foreign {
                path: path.to_owned(),
                expected: "a checkpoint folder with config.json",
                found: "a safetensors file without config.json beside it".into(),
                hint: "put config.json and the tokenizer's files of the model into the same folder",
            });
        }
        let published = name == SINGLE || shard(&name).is_some();
        Ok(Self::Folder { root, weights: (!published).then(|| path.to_owned()) })
    }

    /// The folder of the companion files; `None` for a GGUF file, which contains their data.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder { root, .. } => Some(root),
            Self::Gguf(_) => None,
        }
    }
}

/// The snapshot of a model's folder in the Hugging Face cache: that of `main`, or the only one. `None` for another folder.
fn snapshot(path: &Path) -> Result<Option<PathBuf>> {
    let inside = path.join("snapshots");
    let snapshots = match path.file_name().is_some_and(|name| name == "snapshots") {
        true => path,
        false if inside.is_dir() => &inside,
        false => return Ok(None),
    };
    let main = snapshots.parent().and_then(|model| fs::read_to_string(model.join("refs/main")).ok());
    if let Some(main) = main.map(|commit| snapshots.join(commit.trim()))
        && main.is_dir()
    {
        return Ok(Some(main));
    }
    let mut all = names(snapshots);
    all.retain(|name| snapshots.join(name).is_dir());
    match all.as_slice() {
        [only] => Ok(Some(snapshots.join(only))),
        several => Err(Error::Foreign {
            path: path.to_owned(),
            expected: "one model",
            found: match several {
                [] => "a folder of the Hugging Face cache whose snapshots folder is empty".into(),
                _ => format!("{} snapshots: {}", several.len(), several.join(", ")),
            },
            hint: "give one of the folders in snapshots, or fetch the model again",
        }),
    }
}

/// The names in a folder, sorted; none if it cannot be read.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// GGUF files that hold a model or its first shard; projectors of vision models are left out.
fn gguf_files(names: &[String]) -> Vec<String> {
    let first = |name: &str| shard(name).is_none_or(|(_, number, _)| number == 1);
    let wanted = |name: &&String| has_extension(name, "gguf") && first(name) && !name.contains("mmproj");
    names.iter().filter(wanted).cloned().collect()
}

fn is_weights(name: &str) -> bool {
    has_extension(name, "safetensors") && !name.to_ascii_lowercase().starts_with("adapter")
}

/// Stem, number and count of `STEM-00001-of-00003.EXTENSION`.
fn shard(name: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = name.rsplit_once('.')?.0.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.parse().ok().filter(|_| text.len() == 5);
    Some((stem, digits(number)?, digits(count)?)).filter(|_| !stem.is_empty())
}

const ADAPTER: &str =
    "merge the adapter into its base model (merge_and_unload in PEFT), save that, and give its folder";
const ONNX: &str = "take the safetensors checkpoint or a GGUF file of the same model";
const PICKLES: &str =
    "take the safetensors files of the model, or save it again with safe_serialization=True; pickles are not read";
const NONE: &str = "a checkpoint folder holds config.json and safetensors weights";

fn foreign(path: &Path, found: impl Into<String>, hint: &'static str) -> Error {
    let expected = "a checkpoint with config.json and safetensors weights, or a GGUF file";
    Error::Foreign { path: path.to_owned(), expected, found: found.into(), hint }
}

/// The error for a folder without a model: names what it holds instead.
pub(crate) fn without_model(root: &Path) -> Error {
    let files = names(root);
    let with = |extensions: &[&str]| files.iter().find(|name| extensions.iter().any(|e| has_extension(name, e)));
    if files.iter().any(|name| name == "adapter_config.json") || with(&["safetensors"]).is_some_and(|n| !is_weights(n))
    {
        return foreign(root, "a LoRA adapter (adapter_config.json)", ADAPTER);
    }
    if let Some(name) = with(&["onnx"]).or_else(|| files.iter().find(|name| *name == "genai_config.json")) {
        return foreign(root, format!("an ONNX model ({name})"), ONNX);
    }
    if let Some(name) = with(&["bin", "pt", "pth", "ckpt"]) {
        let found = match name.starts_with("openvino") {
            true => return foreign(root, format!("an OpenVINO model ({name})"), ONNX),
            false => format!("weights as a PyTorch pickle ({name})"),
        };
        return foreign(root, found, PICKLES);
    }
    if let Some(name) = with(&["h5", "msgpack", "ot", "npz", "tflite", "mlmodel"]) {
        return foreign(root, format!("weights of another framework ({name})"), ONNX);
    }
    let inside = files.iter().find(|name| root.join(name).join(CONFIG).is_file() || holds_gguf(&root.join(name)));
    if let Some(name) = inside {
        return foreign(root, format!("a folder with the model in {name}"), "give the folder inside");
    }
    if files
        .iter()
        .any(|name| root.join(name).is_dir() && names(&root.join(name)).iter().any(|n| has_extension(n, "onnx")))
    {
        return foreign(root, "folders of ONNX models", ONNX);
    }
    if let Some(name) = with(&["gguf"]).filter(|name| name.contains("mmproj")) {
        return foreign(
            root,
            format!("the projector of a vision model only ({name})"),
            "fetch the model's own file too",
        );
    }
    let found = match root.join(CONFIG).symlink_metadata() {
        Ok(_) => format!("config.json, but no weights: neither {SINGLE} nor {INDEX}"),
        Err(_) if files.is_empty() => "an empty folder".into(),
        Err(_) => "neither config.json nor a GGUF file".into(),
    };
    foreign(root, found, NONE)
}

fn holds_gguf(folder: &Path) -> bool {
    folder.is_dir() && !gguf_files(&names(folder)).is_empty()
}

/// Safetensors files of a folder without the published names and without an index, and a note about them: the only file, or all
/// shards of a complete set.
pub(crate) fn unnamed_weights(root: &Path) -> Option<(Vec<PathBuf>, String)> {
    let files: Vec<String> = names(root).into_iter().filter(|name| is_weights(name)).collect();
    let note = match files.as_slice() {
        [] => return None,
        [only] => format!("{}: the weights are taken from {only}, there is no {SINGLE}", root.display()),
        several => {
            let sets: Vec<_> = several.iter().map(|name| shard(name)).collect::<Option<_>>()?;
            let whole = |(i, set): (usize, &(&str, usize, usize))| *set == (sets[0].0, i + 1, files.len());
            if !sets.iter().enumerate().all(whole) {
                return None;
            }
            format!("{}: all {} shards are read, there is no {INDEX}", root.display(), files.len())
        }
    };
    Some((files.iter().map(|name| root.join(name)).collect(), note))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn folder(files: &[&str]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let (name, text) = file.split_once('=').unwrap_or((file, ""));
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn gguf(root: &Path, name: &str) -> Location {
        Location::Gguf(root.join(name))
    }

    fn plain(root: impl Into<PathBuf>) -> Location {
        Location::Folder { root: root.into(), weights: None }
    }

    #[test]
    fn what_people_point_at_is_found() {
        let kept = folder(&["config.json", SINGLE, "q4.gguf", "adapter_model.safetensors"]);
        let root = kept.path();
        assert_eq!(Location::find(root).unwrap(), plain(root));
        assert_eq!(Location::find(&root.join("q4.gguf")).unwrap(), gguf(root, "q4.gguf"));
        assert_eq!(Location::find(&root.join(SINGLE)).unwrap(), plain(root));
        assert_eq!(Location::find(&root.join("config.json")).unwrap(), plain(root));
        fs::write(root.join("tuned.safetensors"), "").unwrap();
        let tuned = root.join("tuned.safetensors");
        assert_eq!(Location::find(&tuned).unwrap(), Location::Folder { root: root.into(), weights: Some(tuned) });

        let kept =
            folder(&["README.md", "m-Q4_K_M-00001-of-00002.GGUF", "m-Q4_K_M-00002-of-00002.GGUF", "mmproj-f16.gguf"]);
        let root = kept.path();
        assert_eq!(Location::find(root).unwrap(), gguf(root, "m-Q4_K_M-00001-of-00002.GGUF"));
        let kept = folder(&["a.gguf", "b.gguf"]);
        let root = kept.path();
        assert!(Location::find(root).unwrap_err().to_string().contains("a.gguf, b.gguf"));

        let missing = Location::find(&root.join("none")).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read"), "{missing}");
    }

    #[test]
    fn the_cache_s_folders_lead_to_a_snapshot() {
        let kept = folder(&["refs/main=bbb\n", "snapshots/aaa/config.json", "snapshots/bbb/config.json"]);
        let root = kept.path();
        assert_eq!(Location::find(root).unwrap(), plain(root.join("snapshots/bbb")));
        assert_eq!(Location::find(&root.join("snapshots")).unwrap(), plain(root.join("snapshots/bbb")));
        assert_eq!(Location::find(&root.join("snapshots/aaa")).unwrap(), plain(root.join("snapshots/aaa")));
        fs::remove_file(root.join("refs/main")).unwrap();
        let several = Location::find(root).unwrap_err().to_string();
        assert!(several.contains("aaa, bbb") && several.contains("snapshots"), "{several}");
        fs::remove_dir_all(root.join("snapshots/bbb")).unwrap();
        assert_eq!(Location::find(root).unwrap(), plain(root.join("snapshots/aaa")));
        let kept = folder(&["refs/main=aaa", "snapshots/aaa/q4.gguf"]);
        let root = kept.path();
        assert_eq!(Location::find(root).unwrap(), gguf(root, "snapshots/aaa/q4.gguf"));
    }

    #[test]
    fn folders_without_a_model_are_told_what_they_are() {
        let told = |files: &[&str]| without_model(folder(files).path()).to_string();
        assert!(told(&["adapter_config.json", "adapter_model.safetensors"]).contains("LoRA adapter"));
        assert!(told(&["config.json", "pytorch_model-00001-of-00002.bin"]).contains("pytorch_model-00001"));
        assert!(told(&["genai_config.json", "model.onnx"]).contains("ONNX"));
        assert!(told(&["cpu/model.onnx"]).contains("ONNX"));
        assert!(told(&["openvino_model.bin", "openvino_model.xml"]).contains("OpenVINO"));
        assert!(told(&["tf_model.h5"]).contains("tf_model.h5"));
        assert!(told(&["inside/config.json"]).contains("inside"));
        assert!(told(&["q4/m.gguf"]).contains("q4"));
        assert!(told(&["mmproj-f16.gguf"]).contains("projector"));
        assert!(told(&["config.json"]).contains("no weights"));
        assert!(told(&[]).contains("empty"));
        let alone = folder(&["model.safetensors"]);
        assert!(Location::find(&alone.path().join(SINGLE)).unwrap_err().to_string().contains("config.json"));
    }

    #[test]
    fn shards_without_their_index_are_a_set_or_nothing() {
        let kept = folder(&["w-00001-of-00002.safetensors", "w-00002-of-00002.safetensors"]);
        let root = kept.path();
        assert_eq!(unnamed_weights(root).unwrap().0.len(), 2);
        fs::remove_file(root.join("w-00001-of-00002.safetensors")).unwrap();
        fs::write(root.join("w-00003-of-00003.safetensors"), "").unwrap();
        assert!(unnamed_weights(root).is_none());
        assert!(unnamed_weights(folder(&["phi.safetensors"]).path()).is_some());
        assert!(unnamed_weights(folder(&["adapter_model.safetensors"]).path()).is_none());
    }
}
