use crate::machines::gpu;
use phi3_model::{Checkpoint, Decoder, DecoderOptions, ModelSpec, RopePolicy, TensorSpec, tensors};
use phi3_runner::verify::{greedy, logits};
use phi3_tensor::cpu::{Activations, Cpu, Options};
use phi3_tensor::parity::Random;
use phi3_tensor::reference::Reference;
use phi3_tensor::{Backend, DType};
use std::io::Write;
use std::path::Path;

/// Sizes that are not multiples of vectors, tiles or pages.
struct Shape {
    dtype: DType,
    hidden: usize,
    intermediate: usize,
    heads: usize,
    kv_heads: usize,
    vocab: usize,
    window: Option<usize>,
    partial: Option<f64>,
    tied: bool,
}

const SHAPES: [Shape; 4] = [
    Shape {
        dtype: DType::F32,
        hidden: 30,
        intermediate: 35,
        heads: 3,
        kv_heads: 1,
        vocab: 101,
        window: Some(5),
        partial: None,
        tied: false,
    },
    Shape {
        dtype: DType::F16,
        hidden: 42,
        intermediate: 51,
        heads: 7,
        kv_heads: 7,
        vocab: 67,
        window: None,
        partial: Some(0.7),
        tied: true,
    },
    Shape {
        dtype: DType::Bf16,
        hidden: 66,
        intermediate: 129,
        heads: 3,
        kv_heads: 3,
        vocab: 259,
        window: Some(21),
        partial: Some(0.64),
        tied: false,
    },
    Shape {
        dtype: DType::Bf16,
        hidden: 104,
        intermediate: 77,
        heads: 4,
        kv_heads: 2,
        vocab: 33,
        window: Some(1),
        partial: None,
        tied: true,
    },
];

/// Writes a checkpoint with random weights; the data begins at an odd offset.
fn write(shape: &Shape, folder: &Path) {
    let config = serde_json::json!({
        "model_type": "phi3", "hidden_size": shape.hidden, "intermediate_size": shape.intermediate,
        "num_hidden_layers": 2, "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocab, "sliding_window": shape.window, "partial_rotary_factor": shape.partial,
        "tie_word_embeddings": shape.tied, "rms_norm_eps": 3e-3, "max_position_embeddings": 512,
    });
    let spec = ModelSpec::parse("config.json".as_ref(), config.to_string().as_bytes()).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut random = Random(shape.vocab as u64);
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for TensorSpec { name, shape: dims, .. } in tensors(&spec) {
        let (rows, cols) = (dims[..dims.len() - 1].iter().product(), dims[dims.len() - 1]);
        let weight = random.weight(&name, shape.dtype, rows, cols, 2.0 / (cols as f32).sqrt());
        let start = data.len();
        data.extend(weight.to_bytes());
        let dtype = shape.dtype.name().to_uppercase();
        header.insert(name, serde_json::json!({ "dtype": dtype, "shape": dims, "data_offsets": [start, data.len()] }));
    }
    let mut header = serde_json::Value::Object(header).to_string();
    header.push_str(if header.len().is_multiple_of(2) { " " } else { "" });
    let mut file = std::fs::File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.write_all(&data).unwrap();
}

fn results<B: Backend>(backend: B, checkpoint: &Checkpoint, ids: &[u32], chunk: usize) -> (Vec<f32>, Vec<u32>) {
    let mut model = Decoder::load(backend, checkpoint, DecoderOptions::default(), &mut |_| {}).unwrap();
    let all = logits(&mut model, ids, chunk, RopePolicy::Exact, None).unwrap();
    (all, greedy(&mut model, &ids[..9], 30, chunk).unwrap().0)
}

fn assert_close(want: &[f32], got: &[f32]) {
    let largest = want.iter().zip(got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let size = want.iter().map(|v| v.abs()).fold(0.0, f32::max);
    assert!(want.len() == got.len() && largest <= 2e-5 * (1.0 + size), "{largest} of {size}");
}

/// Every backend agrees with the decoder on plain f64 loops, for odd shapes.
#[test]
fn odd_shapes_agree_with_the_reference() {
    for shape in &SHAPES {
        let folder = tempfile::tempdir().unwrap();
        write(shape, folder.path());
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let ids: Vec<u32> = (0..61).map(|i| (i * 17 + 3) % shape.vocab as u32).collect();
        let (want, want_ids) = results(Reference::default(), &checkpoint, &ids, usize::MAX);
        let exact = Options { activations: Activations::F32, ..Options::default() };
        for chunk in [usize::MAX, 7] {
            let (got, ids_got) = results(Cpu::new(exact).unwrap(), &checkpoint, &ids, chunk);
            assert_close(&want, &got);
            assert_eq!(want_ids, ids_got);
            if gpu().is_some() {
                let options = phi3_tensor::gpu::Options { software: true, exact: true, ..Default::default() };
                let backend = phi3_tensor::gpu::Gpu::open(&phi3_tensor::gpu::Select::Any, &options).unwrap();
                let (got, ids_got) = results(backend, &checkpoint, &ids, chunk);
                assert_close(&want, &got);
                assert_eq!(want_ids, ids_got);
            }
        }
    }
}
