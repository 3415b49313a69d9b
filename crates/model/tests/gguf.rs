//! GGUF models on the CPU compared with the reference's goldens (tests/data/oracle/gguf/models).
//!
//! `PHI3_GGUF_MODELS` selects another folder with the same layout, such as the oracle's full set.

use phi3_model::{
    Checkpoint, Decoder, DecoderOptions, GenerationConfig, Outputs, PrefillOptions, RopePolicy, Sequence, Session,
};
use phi3_tensor::cpu::{Activations, Cpu, Options};
use safetensors::SafeTensors;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Maximum difference of a logit, with f32 activations.
const TOLERANCE: f32 = 2e-4;

/// Every model of the oracle.
fn models() -> Vec<PathBuf> {
    let adopted = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/oracle/gguf/models");
    let folder = std::env::var_os("PHI3_GGUF_MODELS").map_or(adopted, PathBuf::from);
    let list = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let mut files: Vec<PathBuf> =
        list(&folder).iter().filter(|path| path.is_dir()).flat_map(|path| list(path)).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "gguf"));
    files.sort();
    files
}

fn load(path: &Path) -> Decoder<Cpu> {
    let checkpoint = Checkpoint::open(path).unwrap_or_else(|e| panic!("{e}"));
    let cpu = Cpu::new(Options { activations: Activations::F32, ..Options::default() }).unwrap();
    Decoder::load(cpu, &checkpoint, DecoderOptions::default(), &mut |_| {}).unwrap_or_else(|e| panic!("{e}"))
}

fn pass(session: &mut Session<'_>, sequence: &mut Sequence, ids: &[u32], chunk: usize, outputs: Outputs) -> Vec<f32> {
    let settings = PrefillOptions { chunk, policy: RopePolicy::Exact, budget: ids.len(), outputs };
    let mut out = Vec::new();
    session.prefill(sequence, ids, settings, &mut out, None, &mut |_| ControlFlow::Continue(())).unwrap();
    out
}

fn largest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m })
}

struct Golden(Vec<u8>);

impl Golden {
    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    fn words<T>(&self, name: &str, word: fn([u8; 4]) -> T) -> Vec<T> {
        let tensors = self.tensors();
        let data = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).data();
        data.chunks_exact(4).map(|b| word([b[0], b[1], b[2], b[3]])).collect()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.words(name, f32::from_le_bytes)
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.words(name, u32::from_le_bytes)
    }
}

fn check(path: &Path) -> f32 {
    let golden = Golden(std::fs::read(path.with_extension("golden.safetensors")).unwrap());
    let names: Vec<String> = golden.tensors().names().into_iter().map(str::to_owned).collect();
    let mut model = load(path);
    let mut worst = 0.0f32;
    let prompts = names.iter().filter_map(|name| name.strip_prefix("prompt.")?.strip_suffix(".input_ids"));
    for prompt in prompts {
        let ids = golden.ids(&format!("prompt.{prompt}.input_ids"));
        let want = golden.floats(&format!("prompt.{prompt}.logits"));
        for chunk in [512, 7] {
            let mut session = Session::new(&mut model);
            let mut sequence = session.sequence();
            let got = pass(&mut session, &mut sequence, &ids, chunk, Outputs::All);
            let difference = largest(&got, &want);
            assert!(difference <= TOLERANCE, "{}: {prompt} by {chunk}: {difference:e}", path.display());
            worst = worst.max(difference);
        }
        if !names.contains(&format!("greedy.{prompt}.ids")) {
            continue;
        }
        let want = golden.ids(&format!("greedy.{prompt}.ids"));
        let rows = golden.floats(&format!("greedy.{prompt}.logits"));
        let mut session = Session::new(&mut model);
        let vocab = session.model().spec().vocab_size;
        let mut sequence = session.sequence();
        let mut text = ids.clone();
        for (i, want) in want.iter().enumerate() {
            let new = text[sequence.len()..].to_vec();
            let row = pass(&mut session, &mut sequence, &new, 7, Outputs::Last);
            let difference = largest(&row, &rows[i * vocab..][..vocab]);
            assert!(difference <= TOLERANCE, "{}: {prompt} step {i}: {difference:e}", path.display());
            worst = worst.max(difference);
            let best = (0..vocab).reduce(|best, i| if row[i] > row[best] { i } else { best }).unwrap();
            assert_eq!(best as u32, *want, "{}: {prompt} step {i}", path.display());
            text.push(best as u32);
        }
    }
    worst
}

#[test]
fn logits_and_greedy_ids_are_those_of_the_reference() {
    let files = models();
    assert!(files.len() >= 7, "{files:?}");
    for path in files {
        let worst = check(&path);
        println!("{}: {worst:.1e}", path.display());
    }
}

#[test]
fn the_metadata_makes_the_configuration() {
    let path = |name: &str| {
        let model = models().into_iter().find(|path| path.ends_with(name));
        model.unwrap_or_else(|| panic!("{name} is missing"))
    };
    let checkpoint = Checkpoint::open(&path("phi4-mini/Q4_K_M.gguf")).unwrap();
    let config = checkpoint.spec();
    assert_eq!((config.heads.head_dim, config.heads.rotary_dim), (64, 48));
    assert_eq!((config.heads.heads, config.heads.kv_heads), (4, 2));
    assert_eq!((config.vocab_size, config.max_position_embeddings), (448, 1024));
    assert!(config.tie_word_embeddings);
    let scaling = config.rope.scaling().unwrap();
    assert_eq!(scaling.original_max_position_embeddings, 32);
    assert_eq!(scaling.short_mscale, 2f32.sqrt());
    // <|endoftext|> and <|end|>, though only the first is the file's eos_token_id
    assert_eq!(config.eos_token_id, [383, 404]);
    assert_eq!(GenerationConfig::of(config).eos_token_id, [383, 404]);
    assert_eq!(checkpoint.metadata().unwrap().string("general.name").unwrap().as_deref(), Some("Phi 4 Mini"));

    let checkpoint = Checkpoint::open(&path("phi3-window/Q4_0.gguf")).unwrap();
    let config = checkpoint.spec();
    assert_eq!((config.window(), config.tie_word_embeddings), (Some(15), false));
    assert_eq!(config.rope.scaling(), None);
    assert_eq!(config.eos_token_id, [320, 327]);
    assert_eq!(checkpoint.vocabulary().unwrap().tokens.len(), 384);
}
