//! The functions of the fuzz targets: from the bytes of a file to logits and text, as in normal use.
//!
//! Each target returns whether the input was accepted: a pass was computed, or a tokenizer or a template was read. The engine's
//! tests also compile this file, to run the corpus.

use phi3_model::gguf::{Metadata, Vocabulary};
use phi3_model::{Checkpoint, Decoder, DecoderOptions, GenerationConfig, Input, Outputs, SequenceRows, Session};
use phi3_runner::text::{ChatTemplate, Message, Tokenizer};
use phi3_tensor::cpu::{Cpu, Options};
use std::path::Path;

/// Maximum number of activations of a row; larger models are skipped because they are slow.
const WIDEST: usize = 1 << 20;

const TEXT: &str = "Hello,  wörld 🦙\n<|user|> 12345</s>\u{e000}";

/// A GGUF file: tensors, a pass over three tokens, the tokenizer and the chat template.
pub fn gguf(data: &[u8]) -> bool {
    let Ok(checkpoint) = Checkpoint::from_gguf_memory("fuzz.gguf", data.to_vec()) else { return false };
    if let Some(metadata) = checkpoint.metadata() {
        metadata.keys().for_each(|key| drop(metadata.display(key)));
    }
    if let Some(vocabulary) = checkpoint.vocabulary() {
        of_vocabulary(vocabulary);
    }
    run(&checkpoint)
}

/// `config.json`, an index and weights; each but the last is preceded by its length (u32, little-endian). With an empty index,
/// the weights are a single file; otherwise two shards, the first preceded by its length.
pub fn safetensors(data: &[u8]) -> bool {
    let Some((config, rest)) = part(data) else { return false };
    let Some((index, rest)) = part(rest) else { return false };
    let checkpoint = if index.is_empty() {
        let Ok(config) = std::str::from_utf8(config) else { return false };
        Checkpoint::from_memory("fuzz", config, rest.to_vec())
    } else {
        let (first, second) = part(rest).unwrap_or((rest, &[]));
        let folder = tempfile::tempdir().expect("a folder for shards");
        for (name, bytes) in [
            ("config.json", config),
            ("model.safetensors.index.json", index),
            ("model-00001-of-00002.safetensors", first),
            ("model-00002-of-00002.safetensors", second),
        ] {
            std::fs::write(folder.path().join(name), bytes).expect("space for shards");
        }
        Checkpoint::open(folder.path())
    };
    let Ok(checkpoint) = checkpoint else { return false };
    let _ = GenerationConfig::parse(Path::new("generation_config.json"), config, checkpoint.spec(), &mut Vec::new());
    run(&checkpoint)
}

/// Tokenizers and chat templates. The input is a GGUF file, of which only the metadata is used, the text of a `tokenizer.json`
/// or `tokenizer_config.json`, or else the text of a template.
pub fn tokenizer(data: &[u8]) -> bool {
    if data.starts_with(b"GGUF") {
        let Ok(metadata) = Metadata::from_memory("fuzz.gguf", data.to_vec()) else { return false };
        let Ok(vocabulary) = Vocabulary::read(&metadata) else { return false };
        return of_vocabulary(&vocabulary);
    }
    let text = std::str::from_utf8(data).ok();
    if !data.starts_with(b"{\"") {
        let template = text.and_then(|text| ChatTemplate::from_source("fuzz", text, "<s>", "</s>").ok());
        return template.is_some_and(|template| render(&template));
    }
    let tokenizer = Tokenizer::from_bytes("tokenizer.json", data);
    if let Ok(tokenizer) = &tokenizer {
        there_and_back(tokenizer);
    }
    let template = text.and_then(|text| ChatTemplate::from_config("tokenizer_config.json", text).ok());
    template.is_some_and(|template| render(&template)) || tokenizer.is_ok()
}

/// Splits off a length and that many bytes; also returns the rest.
fn part(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// Looks up every weight and computes a pass.
fn run(checkpoint: &Checkpoint) -> bool {
    let _ = (checkpoint.bytes(), checkpoint.tensors().count(), checkpoint.first_not_finite());
    let config = checkpoint.spec();
    let widths = [config.hidden_size, 2 * config.widest_mlp(), config.heads.q_dim(), config.vocab_size];
    if widths.into_iter().max() > Some(WIDEST) {
        return false;
    }
    let cpu = Cpu::new(Options { threads: Some(1), ..Options::default() }).expect("one thread");
    let options = DecoderOptions { max_rows: 4, ..DecoderOptions::default() };
    let Ok(mut model) = Decoder::load(cpu, checkpoint, options, &mut |_| {}) else { return false };
    let inputs = [0, 1, 2].map(|token| Input::Token(token % config.vocab_size as u32));
    let mut session = Session::new(&mut model);
    let mut sequence = session.sequence();
    let mut logits = Vec::new();
    let mut parts = [SequenceRows { sequence: &mut sequence, inputs: &inputs, outputs: Outputs::All }];
    let done = session.forward(&mut parts, &mut logits, None).is_ok();
    assert!(!done || logits.len() == 3 * config.vocab_size);
    done
}

fn of_vocabulary(vocabulary: &Vocabulary) -> bool {
    let tokenizer = Tokenizer::from_gguf(vocabulary);
    if let Ok(tokenizer) = &tokenizer {
        there_and_back(tokenizer);
    }
    if let Ok(template) = ChatTemplate::from_gguf(vocabulary) {
        render(&template);
    }
    tokenizer.is_ok()
}

fn there_and_back(tokenizer: &Tokenizer) {
    let mut ids = tokenizer.encode(TEXT, true).unwrap_or_default();
    let _ = tokenizer.encode("", true);
    ids.extend(0..tokenizer.vocab_size().min(40) as u32 + 2);
    for skip_special in [false, true] {
        let whole = tokenizer.decode(&ids, skip_special);
        let mut stream = tokenizer.stream(skip_special);
        let pieces: Result<String, _> = ids.iter().map(|&id| stream.push(id)).collect();
        let pieces = pieces.and_then(|pieces| Ok(pieces + &stream.finish()?));
        if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
            assert_eq!(pieces, whole, "a stream gives another text");
        }
    }
}

fn render(template: &ChatTemplate) -> bool {
    let messages = [Message::system("Be kind."), Message::user(TEXT), Message::assistant("Yes."), Message::user("")];
    let whole = template.render(&messages, true).is_ok();
    template.render(&messages[1..2], false).is_ok() || whole
}

/// Installs a panic hook that does not abort. Panics of the tokenizers library on bad files are converted to errors by the
/// engine and must not end a run. Other panics reach libFuzzer, which aborts.
pub fn let_guarded_panics_pass() {
    let verbose = std::env::var_os("RUST_BACKTRACE").is_some();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.to_string();
        if verbose || !text.contains("/registry/src/") {
            eprintln!("{text}\n{}", std::backtrace::Backtrace::capture());
        }
    }));
}
