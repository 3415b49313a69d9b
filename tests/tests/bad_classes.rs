use crate::machines::{checkpoints, on};
use phi3_model::{Checkpoint, RopePolicy};
use phi3_runner::Device;
use phi3_runner::verify::logits;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time for one damaged checkpoint.
const LIMIT: Duration = Duration::from_secs(10);

/// Fields with free text, or notes of a training run. Any value is valid.
const FREE: [&str; 3] = ["_name_or_path", "transformers_version", "auto_map"];

/// Folder, `config.json` and the bytes of the only weight file of a checkpoint.
type Files = (PathBuf, Map<String, Value>, Vec<u8>);

/// A checkpoint of each class.
fn classes() -> BTreeMap<String, Files> {
    let mut classes = BTreeMap::new();
    for folder in checkpoints() {
        let weights = folder.join("model.safetensors");
        let Ok(bytes) = std::fs::read(weights) else { continue };
        let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
        let config: Map<String, Value> = serde_json::from_str(&text).unwrap();
        let class = config["model_type"].as_str().unwrap().to_owned();
        // the smallest of a class: there are thousands of cases
        let smaller = classes.get(&class).is_none_or(|(_, _, other): &Files| bytes.len() < other.len());
        if smaller {
            classes.insert(class, (folder, config, bytes));
        }
    }
    let names: Vec<&String> = classes.keys().collect();
    let wanted = ["llama", "mistral", "phi", "phi3", "phi3_v", "phi3small", "phi4-siglip", "phi4mm", "phimoe"];
    assert!(wanted.iter().all(|class| classes.contains_key(*class)), "{names:?}");
    classes
}

/// Loads a checkpoint and computes the logits of a few tokens.
fn run(config: &str, weights: &[u8]) -> Result<(), String> {
    let checkpoint = Checkpoint::from_memory("folder", config, weights.to_vec()).map_err(|error| error.to_string())?;
    let mut loaded = on(Device::Cpu).load(&checkpoint, &mut |_| {}).map_err(|error| error.to_string())?;
    logits(&mut *loaded.model, &[1, 2, 3], usize::MAX, RopePolicy::Exact, None).map_err(|error| error.to_string())?;
    Ok(())
}

/// Values in place of a field's own.
fn wrong_values(own: &Value) -> Vec<Value> {
    let mut values = vec![Value::Null, json!("text"), json!([1, 2]), json!({"a": 1}), json!(-1), json!(0), json!(1.5)];
    values.extend([json!(3), json!(4_294_967_295u64), json!(9e18), json!(1e300), json!(true)]);
    values.retain(|value| value != own);
    values
}

/// The fault of a message about a damaged file: a line break, or no hint.
fn unclear(message: &str) -> bool {
    message.contains('\n') || !message.contains("hint: ")
}

#[test]
fn wrong_fields_of_every_class_are_refused_or_run() {
    let mut wrong = Vec::new();
    for (class, (_, config, weights)) in classes() {
        let (mut cases, mut refused) = (0, 0);
        let mut check = |what: String, config: &Map<String, Value>| {
            let start = Instant::now();
            let result = run(&Value::Object(config.clone()).to_string(), &weights);
            cases += 1;
            if start.elapsed() > LIMIT {
                wrong.push(format!("{class}: {what}: took {:?}", start.elapsed()));
            }
            if let Err(message) = result {
                refused += 1;
                if unclear(&message) {
                    wrong.push(format!("{class}: {what}: {message}"));
                }
            }
        };
        for (field, own) in config.iter().filter(|(field, _)| !FREE.contains(&field.as_str())) {
            for value in wrong_values(own) {
                let mut damaged = config.clone();
                damaged.insert(field.clone(), value.clone());
                check(format!("{field} = {value}"), &damaged);
            }
            let mut damaged = config.clone();
            damaged.remove(field);
            check(format!("no {field}"), &damaged);
            let Value::Object(inner) = own else { continue };
            for (name, own) in inner {
                for value in wrong_values(own) {
                    let mut damaged = config.clone();
                    damaged[field][name] = value.clone();
                    check(format!("{field}.{name} = {value}"), &damaged);
                }
                let mut damaged = config.clone();
                damaged[field].as_object_mut().unwrap().remove(name);
                check(format!("no {field}.{name}"), &damaged);
            }
        }
        println!("{class}: {cases} cases, {refused} refused");
        assert!(refused > 50, "{class}: {refused} of {cases}");
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// A safetensors file in its parts.
struct File {
    header: Map<String, Value>,
    data: Vec<u8>,
}

impl File {
    fn read(bytes: &[u8]) -> Self {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        Self { header, data: bytes[8 + length..].to_vec() }
    }

    fn bytes(&self) -> Vec<u8> {
        let header = Value::Object(self.header.clone()).to_string();
        let padding = " ".repeat(header.len().next_multiple_of(8) - header.len());
        let length = (header.len() + padding.len()) as u64;
        [&length.to_le_bytes(), header.as_bytes(), padding.as_bytes(), &self.data].concat()
    }

    fn range(&self, name: &str) -> std::ops::Range<usize> {
        let offsets = self.header[name]["data_offsets"].as_array().unwrap();
        offsets[0].as_u64().unwrap() as usize..offsets[1].as_u64().unwrap() as usize
    }
}

/// A name without its numbers: tensors of one kind share it.
fn kind(name: &str) -> String {
    let digits = |part: &str| part.parse::<u32>().is_ok();
    name.split('.').map(|part| if digits(part) { "#" } else { part }).collect::<Vec<_>>().join(".")
}

#[test]
fn damaged_tensors_of_every_class_are_named() {
    let mut wrong = Vec::new();
    for (class, (folder, config, weights)) in classes() {
        let config = Value::Object(config).to_string();
        let file = File::read(&weights);
        let mut kinds = BTreeMap::new();
        for name in file.header.keys().filter(|name| *name != "__metadata__") {
            kinds.entry(kind(name)).or_insert_with(|| name.clone());
        }
        let unused = unused(&folder);
        let (mut cases, mut named) = (0, 0);
        for name in kinds.into_values().filter(|name| !unused.iter().any(|part| name.contains(part))) {
            let mut damaged = Vec::new();
            let mut change = |what: &str, f: &dyn Fn(&mut File)| {
                let mut file = File { header: file.header.clone(), data: file.data.clone() };
                f(&mut file);
                damaged.push((what.to_owned(), file.bytes()));
            };
            change("missing", &|file| _ = file.header.remove(&name));
            change("of integers", &|file| {
                let size = file.range(&name).len();
                let elements: u64 =
                    file.header[&name]["shape"].as_array().unwrap().iter().filter_map(Value::as_u64).product();
                let dtype = if size as u64 / elements.max(1) == 4 { "I32" } else { "I16" };
                file.header[&name]["dtype"] = json!(dtype);
            });
            change("of one dimension more", &|file| {
                let shape = file.header[&name]["shape"].as_array_mut().unwrap();
                shape.insert(0, json!(1));
            });
            change("transposed or halved", &|file| {
                let shape = file.header[&name]["shape"].as_array_mut().unwrap();
                match shape.len() {
                    1 => shape[0] = json!(shape[0].as_u64().unwrap() / 2),
                    _ => shape.reverse(),
                }
                let range = file.range(&name);
                if file.header[&name]["shape"].as_array().unwrap().len() == 1 {
                    file.header[&name]["data_offsets"] = json!([range.start, range.start + range.len() / 2]);
                }
            });
            let unwrapped = name.replace(".base_layer", "");
            for (what, bytes) in damaged {
                cases += 1;
                let result = run(&config, &bytes);
                let square = what.starts_with("transposed") && is_square(&file, &name);
                match result {
                    Ok(()) if square => named += 1,
                    Ok(()) => wrong.push(format!("{class}: {name} {what}: runs")),
                    Err(message) if unclear(&message) => wrong.push(format!("{class}: {name} {what}: {message}")),
                    // a message has the name of the file, or that without the parts of wrappers
                    Err(message) if message.contains(&name) || message.contains(&unwrapped) => named += 1,
                    Err(message) => println!("{class}: {name} {what}: {message}"),
                }
            }
        }
        println!("{class}: {cases} cases, {named} name the tensor");
        assert!(named * 20 >= cases * 19, "{class}: {named} of {cases}");
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

fn is_square(file: &File, name: &str) -> bool {
    let shape = file.header[name]["shape"].as_array().unwrap();
    shape.iter().all(|size| size == &shape[0]) || shape.iter().rev().eq(shape.iter())
}

/// Parts of the names of tensors that the text of a checkpoint does not need.
fn unused(folder: &Path) -> Vec<&'static str> {
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let mut parts = vec!["rotary_emb", "lora_", "vision_embed_tokens.wte", "embed_tokens_extend", "post_layernorm"];
    match name.as_str() {
        // the last layer of four and the pooling head
        "phi-4-reasoning-vision" => parts.extend(["layers.3.", "vision_model.head."]),
        name if name.contains("vision") => parts.push("layers.2."),
        _ => {}
    }
    parts
}

#[test]
fn values_that_are_no_numbers_are_found_in_every_class() {
    let mut wrong = Vec::new();
    for (class, (folder, config, weights)) in classes() {
        let config = Value::Object(config).to_string();
        let file = File::read(&weights);
        let unused = unused(&folder);
        let names: Vec<&String> =
            file.header.keys().filter(|name| kind(name).ends_with("layers.#.input_layernorm.weight")).collect();
        for name in names.into_iter().filter(|name| !unused.iter().any(|part| name.contains(part))) {
            let mut damaged = File { header: file.header.clone(), data: file.data.clone() };
            let range = damaged.range(name);
            // NaN in f32, f16 and bf16
            damaged.data[range].fill(0xFF);
            match run(&config, &damaged.bytes()) {
                Ok(()) => wrong.push(format!("{class}: {name}: runs")),
                Err(message) if unclear(&message) => wrong.push(format!("{class}: {name}: {message}")),
                Err(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}
