//! Selection of a model's files in a repository.

use crate::error::{Error, Result};
use crate::names::{ModelName, Part, is_gguf};
use crate::safe::FilePath;
use serde_json::Value;
use std::collections::BTreeSet;

/// The part of a model to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All files needed to run the model.
    Model,
    /// Configuration, tokenizer and chat template. A GGUF file contains them and is fetched whole.
    Text,
}

/// Small files beside the weights; fetched if they exist.
const SMALL: [&str; 9] = [
    CONFIG,
    "generation_config.json",
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    OPTIONAL,
];

/// Tokenizer files of a repository without `tokenizer.json`; `*.tiktoken` files are added.
const OTHER_TOKENIZER: [&str; 2] = ["vocab.json", "merges.txt"];

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";
const SINGLE: &str = "model.safetensors";

/// The index of sharded weights.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// The default quantization of a repository that has only GGUF files.
const USUAL: &str = "q4_k_m";

/// The optional file.
const OPTIONAL: &str = "preprocessor_config.json";

/// Whether a model can be used without this file.
pub(crate) fn is_optional(file: &FilePath) -> bool {
    file.as_str() == OPTIONAL
}

/// The files of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Files needed, without the shards that the index names.
    pub(crate) files: Vec<FilePath>,
    /// Whether the shards of the index are needed too.
    pub(crate) has_index: bool,
    /// The GGUF file to open; `None` for a checkpoint, opened by the snapshot's folder.
    pub(crate) gguf: Option<FilePath>,
    /// Small files that the repository does not have.
    pub(crate) absent: Vec<&'static str>,
    /// Whether the choice depends on the listing, so that another listing could change it.
    pub(crate) by_default: bool,
}

/// Selects the files of a model.
pub(crate) fn plan(name: &ModelName, wanted: Wanted, paths: &BTreeSet<String>) -> Result<Plan> {
    let repo = name.repo().to_string();
    let ggufs = Ggufs { repo: &repo, paths };
    match name.part() {
        Part::File(file) => ggufs.plan(ggufs.file(file)?, false),
        Part::Label(label) => ggufs.plan(ggufs.label(label)?, false),
        Part::Whole => {
            let has = |file: &str| paths.contains(file);
            let weights = if has(SINGLE) { Some(SINGLE) } else { Some(INDEX).filter(|index| has(index)) };
            match weights {
                Some(weights) if has(CONFIG) => published(weights, wanted, paths),
                _ if paths.iter().any(|path| is_gguf(path)) => ggufs.plan(ggufs.usual()?, true),
                Some(weights) => Err(Error::NoWeights {
                    repo,
                    message: format!("it has {weights}, but no {CONFIG}"),
                    hint: "name the repository of the whole model",
                }),
                None => Err(no_weights(repo, paths)),
            }
        }
    }
}

/// The small files and the weights of a published checkpoint.
fn published(weights: &'static str, wanted: Wanted, paths: &BTreeSet<String>) -> Result<Plan> {
    let (there, absent): (Vec<&str>, Vec<&str>) = SMALL.iter().partition(|file| paths.contains(**file));
    let mut files: Vec<String> = there.into_iter().map(str::to_owned).collect();
    if !paths.contains(TOKENIZER) {
        let stands_in = |path: &&String| OTHER_TOKENIZER.contains(&path.as_str()) || is_tiktoken(path);
        files.extend(paths.iter().filter(stands_in).cloned());
    }
    let has_weights = wanted == Wanted::Model;
    if has_weights {
        files.push(weights.to_owned());
    }
    Ok(Plan {
        files: files.iter().map(|file| FilePath::new(file)).collect::<Result<_>>()?,
        has_index: has_weights && weights == INDEX,
        gguf: None,
        absent,
        by_default: false,
    })
}

fn is_tiktoken(path: &str) -> bool {
    path.ends_with(".tiktoken") && !path.contains('/')
}

/// The error for a repository without usable weights, by the files it has instead.
fn no_weights(repo: String, paths: &BTreeSet<String>) -> Error {
    let ends = |ends: &[&str]| paths.iter().any(|path| ends.iter().any(|end| path.ends_with(end)));
    let (message, hint) = if ends(&["adapter_model.safetensors", "adapter_model.bin"]) {
        ("it holds an adapter for another model", "name the model that it was made for")
    } else if ends(&[".safetensors"]) {
        (
            "its safetensors files are neither model.safetensors nor named by model.safetensors.index.json",
            "they may belong to another program; name the repository of the published model",
        )
    } else if ends(&[".bin", ".pt", ".pth"]) {
        (
            "it has PyTorch files only (.bin, .pt, .pth), which can run code when they are read",
            "name a repository with safetensors or GGUF files; most models have one",
        )
    } else if ends(&[".onnx", ".onnx.data"]) {
        ("it has ONNX files only", "name the repository with safetensors weights, or one with GGUF files")
    } else {
        ("it has no weights at all", "is the name right?")
    };
    Error::NoWeights { repo, message: message.into(), hint }
}

/// The shards that an index names, by their paths in the repository.
pub(crate) fn shards(repo: &str, index: &[u8]) -> Result<Vec<FilePath>> {
    let bad = |message: String| Error::Index { repo: repo.to_owned(), file: INDEX.into(), message };
    let value: Value = serde_json::from_slice(index).map_err(|error| bad(format!("not valid JSON: {error}")))?;
    let map =
        value["weight_map"].as_object().ok_or_else(|| bad("weight_map: expected an object, found none".into()))?;
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        let file =
            file.as_str().ok_or_else(|| bad(format!("weight_map.{tensor}: expected a file name, found {file}")))?;
        if file.contains('/') {
            return Err(bad(format!("weight_map.{tensor}: expected a file beside the index, found {file:?}")));
        }
        names.insert(FilePath::new(file)?);
    }
    if names.is_empty() {
        return Err(bad("weight_map: expected the model's tensors, found none".into()));
    }
    Ok(names.into_iter().collect())
}

/// The GGUF files of a repository.
struct Ggufs<'a> {
    repo: &'a str,
    paths: &'a BTreeSet<String>,
}

impl<'a> Ggufs<'a> {
    /// GGUF models. A model split into several files is listed by its first.
    fn models(&self) -> Vec<&'a str> {
        let is_model = |path: &&str| {
            // vision projectors and importance matrices are not models
            let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
            let helper = name.starts_with("mmproj") || name.ends_with("imatrix.gguf");
            is_gguf(path) && !helper && split(path).is_none_or(|(_, number, _)| number == 1)
        };
        self.paths.iter().map(String::as_str).filter(is_model).collect()
    }

    fn choice(&self, message: String) -> Error {
        let files = self.models();
        let Some(example) = files.first() else {
            return Error::NoWeights {
                repo: self.repo.to_owned(),
                message: "it has no GGUF files".into(),
                hint: "name the repository without a file, or one whose name ends in -GGUF",
            };
        };
        Error::GgufChoice {
            repo: self.repo.to_owned(),
            message,
            example: (*example).to_owned(),
            files: files.join(", "),
        }
    }

    /// A file by its path. A split file is found by any of its parts, or by its name without the numbers.
    fn file(&self, file: &FilePath) -> Result<&'a str> {
        let is_it = |path: &&&str| {
            let stem = split(path).map(|(stem, _, _)| stem);
            **path == file.as_str() || stem.is_some_and(|stem| Some(stem) == stem_of(file.as_str()))
        };
        let models = self.models();
        let found = models.iter().find(is_it).copied();
        // a helper file is taken if it is named explicitly
        let named = || self.paths.get(file.as_str()).map(String::as_str);
        found.or_else(named).ok_or_else(|| self.choice(format!("there is no GGUF file {:?}", file.as_str())))
    }

    /// The file of a quantization.
    fn label(&self, label: &str) -> Result<&'a str> {
        let models = self.models();
        let of = |separators: &[char]| -> Vec<&'a str> {
            models.iter().copied().filter(|path| has_label(path, label, separators)).collect()
        };
        let mut found = of(&['-', '.']);
        // after an underscore, only labels that begin with letters and a digit: not the K_M of Q4_K_M
        let digits = label.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        if found.is_empty() && digits.len() < label.len() && digits.starts_with(|c: char| c.is_ascii_digit()) {
            found = of(&['-', '.', '_']);
        }
        match found.as_slice() {
            [one] => Ok(one),
            [] => Err(self.choice(format!("no GGUF file has the quantization {label:?}"))),
            several => Err(self.choice(format!("{label:?} matches {} GGUF files", several.len()))),
        }
    }

    /// The default file.
    fn usual(&self) -> Result<&'a str> {
        match (self.label(USUAL), self.models().as_slice()) {
            (Ok(usual), _) => Ok(usual),
            (Err(_), [one]) => Ok(one),
            (Err(_), several) => Err(self.choice(format!("it has {} GGUF files, and none is named", several.len()))),
        }
    }

    fn plan(&self, first: &str, by_default: bool) -> Result<Plan> {
        let paths = match split(first) {
            None => vec![first.to_owned()],
            Some((stem, _, count)) => (1..=count).map(|n| format!("{stem}-{n:05}-of-{count:05}.gguf")).collect(),
        };
        if let Some(missing) = paths.iter().find(|path| !self.paths.contains(*path)) {
            return Err(Error::NoWeights {
                repo: self.repo.to_owned(),
                message: format!("{first} is one of several parts, and {missing} is missing"),
                hint: "the repository is incomplete; name another file",
            });
        }
        let files = paths.iter().map(|path| FilePath::new(path)).collect::<Result<Vec<_>>>()?;
        Ok(Plan { gguf: files.first().cloned(), files, has_index: false, absent: Vec::new(), by_default })
    }
}

/// A path without `.gguf`.
fn stem_of(path: &str) -> Option<&str> {
    is_gguf(path).then(|| &path[..path.len() - 5])
}

/// `STEM-00002-of-00003.gguf` as stem, number and count.
fn split(path: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = stem_of(path)?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| (text.len() == 5).then(|| text.parse::<usize>().ok()).flatten();
    let (number, count) = (digits(number)?, digits(count)?);
    (1..=count).contains(&number).then_some((stem, number, count))
}

/// Whether the name of a GGUF file or of its folder contains a quantization label, delimited by separators or by the ends of
/// the name.
fn has_label(path: &str, label: &str, separators: &[char]) -> bool {
    let stem = split(path).map_or_else(|| stem_of(path), |(stem, _, _)| Some(stem)).unwrap_or(path);
    let label = label.to_ascii_lowercase();
    stem.to_ascii_lowercase().rsplit('/').take(2).any(|part| {
        part.match_indices(&label).any(|(at, _)| {
            let before = part[..at].chars().next_back();
            // an underscore continues the label: Q4_K does not match Q4_K_M
            let after = part[at + label.len()..].chars().next();
            before.is_none_or(|c| separators.contains(&c)) && after.is_none_or(|c| ['-', '.'].contains(&c))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(paths: &[&str]) -> BTreeSet<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    fn chosen(name: &str, wanted: Wanted, paths: &[&str]) -> std::result::Result<Vec<String>, String> {
        let plan = plan(&name.parse().unwrap(), wanted, &set(paths)).map_err(|error| error.to_string())?;
        if let Some(gguf) = &plan.gguf {
            assert_eq!(Some(gguf), plan.files.first());
        }
        Ok(plan.files.iter().map(ToString::to_string).collect())
    }

    const PUBLISHED: [&str; 16] = [
        ".gitattributes",
        "README.md",
        "added_tokens.json",
        "config.json",
        "configuration_phi3.py",
        "consolidated.safetensors",
        "generation_config.json",
        "merges.txt",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "onnx/model.onnx",
        "pytorch_model.bin",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ];

    #[test]
    fn a_published_checkpoint_is_its_small_files_and_its_weights() {
        let name = "a/b".parse().unwrap();
        let whole = plan(&name, Wanted::Model, &set(&PUBLISHED)).unwrap();
        let small =
            ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "added_tokens.json"];
        let files: Vec<&str> = whole.files.iter().map(FilePath::as_str).collect();
        assert_eq!(files, [&small[..], &["model.safetensors.index.json"]].concat());
        assert!(whole.has_index && whole.gguf.is_none());
        assert_eq!(
            whole.absent,
            ["special_tokens_map.json", "chat_template.jinja", "chat_template.json", "preprocessor_config.json"]
        );
        assert_eq!(chosen("a/b", Wanted::Text, &PUBLISHED).unwrap(), small);
        assert!(!plan(&name, Wanted::Text, &set(&PUBLISHED)).unwrap().has_index);
        // one file of weights is enough
        let single = [&PUBLISHED[..], &["model.safetensors"]].concat();
        assert_eq!(chosen("a/b", Wanted::Model, &single).unwrap().last().unwrap(), "model.safetensors");
        // another tokenizer stands in
        let other = ["config.json", "model.safetensors", "vocab.json", "merges.txt", "x.tiktoken", "sub/y.tiktoken"];
        let files = chosen("a/b", Wanted::Text, &other).unwrap();
        assert_eq!(files, ["config.json", "merges.txt", "vocab.json", "x.tiktoken"]);
    }

    #[test]
    fn labels_name_gguf_files() {
        let paths = [
            "README.md",
            "phi-4-Q4_K_M.gguf",
            "phi-4-Q4_K_S.gguf",
            "phi-4-Q4_K_L.gguf",
            "phi-4-IQ4_XS.gguf",
            "phi-4.Q8_0.gguf",
            "phi-4_q6_k.gguf",
            "phi-4-f16/phi-4-f16-00001-of-00002.gguf",
            "phi-4-f16/phi-4-f16-00002-of-00002.gguf",
            "BF16/phi-4-00001-of-00001.gguf",
            "phi-4-UD-Q4_K_XL.gguf",
            "phi-4-imatrix.gguf",
            "mmproj-Q5_0.gguf",
        ];
        for (label, expected) in [
            ("q4_k_m", "phi-4-Q4_K_M.gguf"),
            ("Q4_K_L", "phi-4-Q4_K_L.gguf"),
            ("iq4_xs", "phi-4-IQ4_XS.gguf"),
            ("q8_0", "phi-4.Q8_0.gguf"),
            ("Q6_K", "phi-4_q6_k.gguf"),
            ("ud-q4_k_xl", "phi-4-UD-Q4_K_XL.gguf"),
            ("q4_k_xl", "phi-4-UD-Q4_K_XL.gguf"),
            ("bf16", "BF16/phi-4-00001-of-00001.gguf"),
        ] {
            assert_eq!(chosen(&format!("a/b:{label}"), Wanted::Model, &paths).unwrap(), [expected], "{label}");
        }
        let both = ["phi-4-f16/phi-4-f16-00001-of-00002.gguf", "phi-4-f16/phi-4-f16-00002-of-00002.gguf"];
        for name in ["a/b:F16", "a/b:phi-4-f16/phi-4-f16-00002-of-00002.gguf", "a/b:phi-4-f16/phi-4-f16.gguf"] {
            assert_eq!(chosen(name, Wanted::Text, &paths).unwrap(), both, "{name}");
        }
        for (label, word) in [
            ("q4_k", "no GGUF file"),
            ("q4", "no GGUF file"),
            ("xs", "no GGUF file"),
            ("q5_0", "no GGUF file"),
            ("phi", "matches 9"),
        ] {
            let error = chosen(&format!("a/b:{label}"), Wanted::Model, &paths).unwrap_err();
            assert!(error.contains(word) && error.contains("phi-4-Q4_K_M.gguf, "), "{label}: {error}");
            assert!(!error.contains("imatrix") && !error.contains("00002-of"), "{error}");
        }
        assert_eq!(chosen("a/b", Wanted::Model, &paths).unwrap(), ["phi-4-Q4_K_M.gguf"]);
        let error = chosen("a/b:Phi-4-Q4_K_M.gguf", Wanted::Model, &paths).unwrap_err();
        assert!(error.contains("Phi-4-Q4_K_M.gguf") && error.contains("hint: "), "{error}");
    }

    #[test]
    fn a_repository_of_gguf_files_has_a_usual_one() {
        assert_eq!(chosen("a/b", Wanted::Model, &["x-Q8_0.gguf", "README.md"]).unwrap(), ["x-Q8_0.gguf"]);
        let error = chosen("a/b", Wanted::Model, &["x-q4.gguf", "x-fp16.gguf"]).unwrap_err();
        assert!(error.contains("x-fp16.gguf, x-q4.gguf") && error.contains("a/b:x-fp16.gguf"), "{error}");
        assert_eq!(chosen("a/b:q4", Wanted::Model, &["x-q4.gguf", "x-fp16.gguf"]).unwrap(), ["x-q4.gguf"]);
        // published weights come first
        let mixed = ["config.json", "model.safetensors", "x-Q4_K_M.gguf"];
        assert_eq!(chosen("a/b", Wanted::Model, &mixed).unwrap(), ["config.json", "model.safetensors"]);
        let name = "a/b".parse().unwrap();
        assert!(plan(&name, Wanted::Model, &set(&["x-Q8_0.gguf"])).unwrap().by_default);
        let broken = ["x-Q4_K_M-00001-of-00003.gguf", "x-Q4_K_M-00002-of-00003.gguf"];
        let error = chosen("a/b:q4_k_m", Wanted::Model, &broken).unwrap_err();
        assert!(error.contains("x-Q4_K_M-00003-of-00003.gguf"), "{error}");
    }

    #[test]
    fn repositories_that_cannot_be_run_say_what_they_have() {
        for (paths, word) in [
            (&["config.json", "pytorch_model.bin"][..], ".bin"),
            (&["config.json", "cpu/model.onnx", "cpu/model.onnx.data"], "ONNX"),
            (&["adapter_config.json", "adapter_model.safetensors"], "adapter"),
            (&["config.json", "model-00001-of-00002.safetensors"], "index"),
            (&["model.safetensors"], "config.json"),
            (&["README.md"], "no weights"),
            (&[], "no weights"),
        ] {
            let error = chosen("a/b", Wanted::Model, paths).unwrap_err();
            assert!(error.contains(word) && error.contains("a/b") && error.contains("hint: "), "{error}");
        }
        let error = chosen("a/b:q4_k_m", Wanted::Model, &["config.json", "model.safetensors"]).unwrap_err();
        assert!(error.contains("no GGUF files"), "{error}");
    }

    #[test]
    fn an_index_names_files_beside_it() {
        let of = |text: &str| {
            shards("a/b", text.as_bytes()).map(|files| files.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let index = r#"{"weight_map":{"y":"m-2.safetensors","x":"m-1.safetensors","z":"m-2.safetensors"}}"#;
        assert_eq!(of(index).unwrap(), ["m-1.safetensors", "m-2.safetensors"]);
        for (bad, word) in [
            ("{", "JSON"),
            ("{}", "weight_map"),
            (r#"{"weight_map":{}}"#, "weight_map"),
            (r#"{"weight_map":{"x":1}}"#, "weight_map.x"),
            (r#"{"weight_map":{"x":"../../y"}}"#, "weight_map.x"),
            (r#"{"weight_map":{"x":"..\\y"}}"#, "refused"),
            (r#"{"weight_map":{"x":"CON"}}"#, "device"),
            (r#"{"weight_map":{"x":""}}"#, "empty"),
        ] {
            let error = of(bad).unwrap_err().to_string();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }
}
