//! Builders of model folders, safetensors files and GGUF files.

use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A tensor: type, shape (outermost dimension first), bytes.
#[derive(Clone)]
pub(crate) struct Tensor(pub(crate) &'static str, pub(crate) Vec<usize>, pub(crate) Vec<u8>);

/// Named tensors in file order.
pub(crate) type Tensors = Vec<(String, Tensor)>;

/// A temporary folder, removed when dropped.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// The demo model as a folder of files.
pub(crate) fn demo() -> TempDir {
    let folder = folder();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/model");
    for file in
        ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
    {
        fs::copy(source.join(file), folder.path().join(file)).expect("a copy");
    }
    folder
}

/// Applies `change` to a JSON file.
pub(crate) fn edit(file: impl AsRef<Path>, change: impl FnOnce(&mut Map<String, Value>)) {
    let mut value: Map<String, Value> = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    change(&mut value);
    fs::write(file, serde_json::to_vec(&value).unwrap()).unwrap();
}

/// The tensors of a safetensors file.
pub(crate) fn load(file: &Path) -> Tensors {
    let bytes = fs::read(file).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    let mut tensors: Vec<_> = tensors
        .map(|(name, entry)| {
            let range = number(&entry["data_offsets"][0])..number(&entry["data_offsets"][1]);
            let dtype = if entry["dtype"] == "F32" { "F32" } else { "BF16" };
            let shape = entry["shape"].as_array().unwrap().iter().map(number).collect();
            (name, Tensor(dtype, shape, bytes[8 + length..][range].to_vec()))
        })
        .collect();
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    tensors
}

/// Writes a safetensors file.
pub(crate) fn save(file: &Path, tensors: &Tensors) {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, Tensor(dtype, shape, bytes)) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
        data.extend(bytes);
    }
    let mut header = Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    fs::write(file, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()).unwrap();
}

/// A bf16 tensor converted to f32.
pub(crate) fn widened(tensor: &Tensor) -> Tensor {
    assert_eq!(tensor.0, "BF16");
    Tensor("F32", tensor.1.clone(), tensor.2.chunks_exact(2).flat_map(|pair| [0, 0, pair[0], pair[1]]).collect())
}

/// The tensor with its rows reversed, for other values of the same size.
pub(crate) fn reversed(tensor: &Tensor) -> Tensor {
    let row = tensor.2.len() / tensor.1[0];
    Tensor(tensor.0, tensor.1.clone(), tensor.2.chunks_exact(row).rev().flatten().copied().collect())
}

/// An xorshift random number generator; every run has the same weights.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// A small random model in f32: the fields of its `config.json`, and its tensors by their published names.
pub(crate) fn tiny(layers: usize, context: usize) -> (Value, Tensors) {
    const VOCABULARY: usize = 96;
    const WIDTH: usize = 32;
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let config = json!({
        "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_size": WIDTH, "intermediate_size": WIDTH,
        "num_hidden_layers": layers, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": VOCABULARY,
        "max_position_embeddings": context, "original_max_position_embeddings": context, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2,
    });
    let floats = |values: Vec<f32>| values.into_iter().flat_map(f32::to_le_bytes).collect();
    let mut tensors = Vec::new();
    let mut matrix = |name: &str, rows: usize, scale: f32| {
        let values = (0..rows * WIDTH).map(|_| scale * random.next()).collect();
        tensors.push((format!("{name}.weight"), Tensor("F32", vec![rows, WIDTH], floats(values))));
    };
    matrix("model.embed_tokens", VOCABULARY, 1.7);
    for i in 0..layers {
        for (part, rows) in [
            ("self_attn.qkv_proj", 3 * WIDTH),
            ("self_attn.o_proj", WIDTH),
            ("mlp.gate_up_proj", 2 * WIDTH),
            ("mlp.down_proj", WIDTH),
        ] {
            matrix(&format!("model.layers.{i}.{part}"), rows, 0.5);
        }
    }
    matrix("lm_head", VOCABULARY, 0.9);
    let norms = (0..layers).flat_map(|i| {
        ["input_layernorm", "post_attention_layernorm"].map(|part| format!("model.layers.{i}.{part}.weight"))
    });
    for name in norms.chain(["model.norm.weight".into()]) {
        tensors.push((name, Tensor("F32", vec![WIDTH], floats(vec![1.0; WIDTH]))));
    }
    (config, tensors)
}

/// Writes a model's folder.
pub(crate) fn save_model(folder: &Path, config: &Value, tensors: &Tensors) {
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    save(&folder.join("model.safetensors"), tensors);
}

/// A value of a GGUF file's metadata.
#[derive(Clone)]
pub(crate) enum Key {
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Floats(Vec<f32>),
    Integers(Vec<i32>),
}

pub(crate) type Keys = Vec<(String, Key)>;

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A GGUF type's number, elements per block and bytes per block.
fn type_of(name: &str) -> (u32, usize, usize) {
    match name {
        "F32" => (0, 1, 4),
        "BF16" => (30, 1, 2),
        "Q8_0" => (8, 32, 34),
        "IQ2_XXS" => (16, 256, 66),
        "Q4_0_4_4" => (31, 32, 18),
        "Q4_0_8_8" => (33, 32, 18),
        "TQ1_0" => (34, 256, 54),
        "IQ4_NL_4_4" => (36, 32, 18),
        "MXFP4" => (39, 32, 17),
        "NVFP4" => (40, 64, 36),
        "Q1_0" => (41, 128, 18),
        "99" => (99, 32, 18),
        _ => panic!("no type {name}"),
    }
}

/// A GGUF tensor of this type, filled with zero bytes.
pub(crate) fn blocks(name: &'static str, shape: &[usize]) -> Tensor {
    let (_, block, bytes) = type_of(name);
    let count: usize = shape.iter().product();
    Tensor(name, shape.to_vec(), vec![0; count / block * bytes])
}

/// Writes a GGUF file, version 3.
pub(crate) fn save_gguf(file: &Path, keys: &Keys, tensors: &Tensors) {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((keys.len() as u64).to_le_bytes());
    for (name, value) in keys {
        text(&mut out, name);
        value.write(&mut out);
    }
    let mut offset = 0;
    for (name, Tensor(dtype, shape, bytes)) in tensors {
        text(&mut out, name);
        out.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|&dimension| out.extend((dimension as u64).to_le_bytes()));
        out.extend(type_of(dtype).0.to_le_bytes());
        out.extend((offset as u64).to_le_bytes());
        offset += bytes.len().next_multiple_of(32);
    }
    for (_, Tensor(_, _, bytes)) in tensors {
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(bytes);
    }
    fs::write(file, out).unwrap();
}

impl Key {
    fn write(&self, out: &mut Vec<u8>) {
        let array = |out: &mut Vec<u8>, kind: u32, len: usize| {
            out.extend([9u32.to_le_bytes(), kind.to_le_bytes()].concat());
            out.extend((len as u64).to_le_bytes());
        };
        match self {
            Self::U32(n) => out.extend([4u32.to_le_bytes(), n.to_le_bytes()].concat()),
            Self::I32(n) => out.extend([5u32.to_le_bytes(), n.to_le_bytes()].concat()),
            Self::F32(x) => out.extend([6u32.to_le_bytes(), x.to_le_bytes()].concat()),
            Self::Bool(b) => out.extend([7, 0, 0, 0, u8::from(*b)]),
            Self::Text(value) => {
                out.extend(8u32.to_le_bytes());
                text(out, value);
            }
            Self::Texts(list) => {
                array(out, 8, list.len());
                list.iter().for_each(|value| text(out, value));
            }
            Self::Floats(list) => {
                array(out, 6, list.len());
                list.iter().for_each(|x| out.extend(x.to_le_bytes()));
            }
            Self::Integers(list) => {
                array(out, 5, list.len());
                list.iter().for_each(|n| out.extend(n.to_le_bytes()));
            }
        }
    }
}

/// The name of a published tensor in files of llama.cpp's converter.
pub(crate) fn gguf_name(published: &str) -> String {
    let names = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("self_attn.qkv_proj", "attn_qkv"),
        ("self_attn.o_proj", "attn_output"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    names.iter().fold(published.to_owned(), |name, (published, gguf)| name.replace(published, gguf))
}

/// The GGUF keys of a model of [`tiny`], with a vocabulary of three special tokens and fillers.
pub(crate) fn keys(config: &Value) -> Keys {
    let number = |field: &str| Key::U32(config[field].as_u64().unwrap() as u32);
    let vocabulary = config["vocab_size"].as_u64().unwrap() as usize;
    let mut tokens = vec!["<unk>".to_owned(), "<s>".into(), "</s>".into()];
    tokens.extend((3..vocabulary).map(|i| format!("t{i}")));
    let types = (0..vocabulary).map(|i| if i < 3 { 3 } else { 1 }).collect();
    [
        ("general.architecture", Key::Text("phi3".into())),
        ("phi3.context_length", number("max_position_embeddings")),
        ("phi3.embedding_length", number("hidden_size")),
        ("phi3.feed_forward_length", number("intermediate_size")),
        ("phi3.block_count", number("num_hidden_layers")),
        ("phi3.attention.head_count", number("num_attention_heads")),
        ("phi3.attention.head_count_kv", number("num_key_value_heads")),
        ("phi3.attention.layer_norm_rms_epsilon", Key::F32(1e-5)),
        ("tokenizer.ggml.model", Key::Text("llama".into())),
        ("tokenizer.ggml.tokens", Key::Texts(tokens)),
        ("tokenizer.ggml.scores", Key::Floats((0..vocabulary).map(|i| -(i as f32)).collect())),
        ("tokenizer.ggml.token_type", Key::Integers(types)),
        ("tokenizer.ggml.bos_token_id", Key::U32(1)),
        ("tokenizer.ggml.eos_token_id", Key::U32(2)),
        ("tokenizer.ggml.add_bos_token", Key::Bool(false)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// Writes a model of [`tiny`] as a GGUF file in a folder.
pub(crate) fn tiny_gguf(folder: &TempDir, change: impl FnOnce(&mut Keys, &mut Tensors)) -> PathBuf {
    let (config, tensors) = tiny(2, 512);
    let mut keys = keys(&config);
    let mut tensors: Tensors = tensors.into_iter().map(|(name, tensor)| (gguf_name(&name), tensor)).collect();
    change(&mut keys, &mut tensors);
    let file = folder.path().join("m.gguf");
    save_gguf(&file, &keys, &tensors);
    file
}
