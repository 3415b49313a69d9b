//! Texts that are computed at once on a GPU have the logits, bit for bit, that each has alone, with the default precision.

use crate::machines::{data, gpu};
use phi3_model::{Checkpoint, Decoder, DecoderOptions, Model, Outputs, RopeSet, RowInput, Segment};
use phi3_tensor::gpu::{Gpu, Options, Select, Tier};
use phi3_tensor::{KvType, Phase};
use std::ops::Range;

/// Tokens of the prompts.
const PROMPTS: [usize; 6] = [40, 23, 7, 31, 12, 1];

/// New tokens of each text.
const NEW: usize = 6;

/// Pages of each text.
const PAGES: u32 = 4;

/// A text, and the logits of its last prompt token and of its new tokens.
struct Text {
    tokens: Vec<u32>,
    prompt: usize,
    computed: usize,
    pages: Vec<u32>,
    logits: Vec<f32>,
}

impl Text {
    fn all(vocab: usize) -> Vec<Text> {
        let text = |(i, &prompt): (usize, &usize)| Text {
            tokens: (0..prompt).map(|token| ((token * 7 + i * 11 + 3) % vocab) as u32).collect(),
            prompt,
            computed: 0,
            pages: (0..PAGES).map(|page| page * PROMPTS.len() as u32 + i as u32).collect(),
            logits: Vec::new(),
        };
        PROMPTS.iter().enumerate().map(text).collect()
    }

    fn is_complete(&self) -> bool {
        self.computed == self.prompt + NEW
    }

    /// Phase and positions of its next rows, with a prompt in chunks.
    fn rows(&self, chunk: usize) -> (Phase, Range<usize>) {
        let phase = if self.computed < self.prompt { Phase::Prompt } else { Phase::Decode };
        (phase, self.computed..self.tokens.len().min(self.computed + chunk))
    }
}

/// One pass of the next rows of texts.
fn pass(model: &mut Decoder<Gpu>, texts: &mut [&mut Text], chunk: usize) {
    let inputs: Vec<Vec<RowInput>> = texts
        .iter()
        .map(|text| text.tokens[text.rows(chunk).1].iter().map(|token| RowInput::Input(token.into())).collect())
        .collect();
    let segments: Vec<Segment<'_>> = texts
        .iter()
        .zip(&inputs)
        .map(|(text, inputs)| {
            let (phase, rows) = text.rows(chunk);
            let outputs = if rows.end == text.tokens.len() { Outputs::Last } else { Outputs::None };
            Segment { inputs, phase, position: rows.start, pages: &text.pages, rope: RopeSet::Short, outputs }
        })
        .collect();
    model.forward(&segments, None).unwrap();
    let count = segments.iter().filter(|segment| segment.outputs == Outputs::Last).count();
    drop(segments);
    let logits = model.logits(0..count).unwrap().wait().unwrap();
    let mut logits = logits.chunks_exact(model.spec().vocab_size);
    for text in texts {
        text.computed = text.rows(chunk).1.end;
        if text.computed == text.tokens.len() {
            let logits = logits.next().unwrap();
            text.logits.extend(logits);
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            text.tokens.push(best as u32);
        }
    }
}

#[test]
fn texts_at_once_have_the_bits_of_each_alone() {
    if gpu().is_none() {
        return;
    }
    for tier in Tier::ALL {
        for name in
            ["checkpoints/phi-3-medium-4k", "family/checkpoints/phi-3-small-blocks", "family/checkpoints/phi-tiny-moe"]
        {
            let select = std::env::var("PHI3_ADAPTER").map_or(Select::Any, Select::Name);
            let options = Options { software: true, tier: Some(tier), ..Options::default() };
            let backend = match Gpu::open(&select, &options) {
                Ok(backend) => backend,
                Err(error) => {
                    println!("skipped: {error}");
                    continue;
                }
            };
            let checkpoint = Checkpoint::open(&data("oracle").join(name)).unwrap();
            let options = DecoderOptions { kv: KvType::F16, ..DecoderOptions::default() };
            let mut model = Decoder::load(backend, &checkpoint, options, &mut |_| {}).unwrap();
            let vocab = model.spec().vocab_size;

            let mut alone = Text::all(vocab);
            for text in &mut alone {
                while !text.is_complete() {
                    pass(&mut model, &mut [&mut *text], usize::MAX / 2);
                }
            }
            // each begins a pass after the one before, with its prompt in chunks
            let mut together = Text::all(vocab);
            for step in 1.. {
                let begun = together.iter_mut().take(step).filter(|text| !text.is_complete());
                let mut running: Vec<&mut Text> = begun.collect();
                if running.is_empty() {
                    break;
                }
                pass(&mut model, &mut running, 9);
            }
            for (alone, together) in alone.iter().zip(&together) {
                assert_eq!(alone.tokens, together.tokens, "{name} on {}", model.device());
                assert_eq!(alone.logits, together.logits, "{name} on {}", model.device());
                assert!(alone.logits.iter().all(|logit| logit.is_finite()));
            }
        }
    }
}
