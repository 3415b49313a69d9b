//! A model whose tokens are hashes of everything that their rows read.

use crate::scheduler::*;
use phi3_model::RowInput;
use phi3_model::{Input, ModelSpec, PageId, Rope, RopePolicy, RopeSet};
use phi3_tensor::{Batch, PAGE};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

pub(super) const VOCABULARY: u64 = 60;

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn fold(values: impl Iterator<Item = u64>) -> u64 {
    values.fold(1, |sum, value| mix(sum ^ value).wrapping_add(sum.rotate_left(7)))
}

/// Keys and values of a position.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct Cell {
    position: usize,
    value: u64,
}

fn cell(position: usize, token: u32, set: RopeSet, context: impl Iterator<Item = u64>) -> Cell {
    let own = fold([position as u64, u64::from(token), u64::from(set == RopeSet::Long)].into_iter());
    Cell { position, value: mix(own ^ fold(context)) }
}

fn sample(seen: impl Iterator<Item = u64>) -> u32 {
    (fold(seen) % VOCABULARY) as u32
}

/// Seconds of a pass.
pub(super) fn cost(decodes: usize, rows: usize) -> Duration {
    Duration::from_micros(70_000 + 300 * decodes as u64 + 11_000 * rows as u64)
}

/// A device that executes passes when they are submitted.
pub(super) struct FakeDevice {
    window: Option<usize>,
    memory: HashMap<PageId, [Cell; PAGE]>,
    slots: HashMap<usize, u32>,
    /// Whether a pass was not executed: what is read may be wrong from then on.
    pub(super) has_failed: bool,
}

pub(super) type Tokens = Vec<(RequestId, Vec<u32>)>;

impl FakeDevice {
    pub(super) fn new(window: Option<usize>) -> Self {
        Self { window, memory: HashMap::new(), slots: HashMap::new(), has_failed: false }
    }

    pub(super) fn execute(&mut self, pass: &Pass) -> Tokens {
        check(pass);
        let copied: Vec<_> = pass.copies.iter().map(|(from, to)| (*to, self.page(*from))).collect();
        self.memory.extend(copied);
        let mut tokens = Tokens::new();
        for segment in &pass.segments {
            let mut sampled = None;
            for (row, input) in segment.rows.iter().enumerate() {
                sampled = Some(self.row(segment, segment.position + row, input));
            }
            if segment.token_index.is_some() {
                let token = sampled.unwrap();
                self.slots.insert(segment.slot.index(), token);
                tokens.push((segment.request, vec![token]));
            }
        }
        tokens
    }

    fn row(&mut self, segment: &Segment, position: usize, input: &RowInput) -> u32 {
        let token = match input {
            RowInput::Input(input) => input.token().unwrap(),
            RowInput::Sampled(slot) => self.slots.get(&(*slot as usize)).copied().unwrap_or(0),
        };
        let first = self.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let mut seen: Vec<u64> = (first..position)
            .map(|at| {
                let cell = self.page(segment.pages[at / PAGE])[at % PAGE];
                assert!(self.has_failed || cell.position == at, "{segment:?} reads {cell:?} at {at}");
                cell.value
            })
            .collect();
        let own = cell(position, token, segment.rope, seen.iter().copied());
        let page = segment.pages[position / PAGE];
        self.memory.entry(page).or_default()[position % PAGE] = own;
        seen.push(own.value);
        sample(seen.into_iter())
    }

    fn page(&self, page: PageId) -> [Cell; PAGE] {
        assert_ne!(page, Batch::NO_PAGE, "a released page is read");
        self.memory.get(&page).copied().unwrap_or_default()
    }
}

/// The rules of a pass.
fn check(pass: &Pass) {
    let targets: HashSet<_> = pass.copies.iter().map(|(_, to)| to).collect();
    assert_eq!(targets.len(), pass.copies.len());
    assert!(pass.copies.iter().all(|(from, _)| !targets.contains(from)));
    assert!(pass.segments.is_sorted_by_key(|segment| segment.phase));
    assert!(!pass.segments.is_empty());
    let requests: HashSet<_> = pass.segments.iter().map(|segment| segment.request).collect();
    let slots: HashSet<_> = pass.segments.iter().map(|segment| segment.slot).collect();
    assert!(requests.len() == pass.segments.len() && slots.len() == requests.len());
    let mut readers: HashMap<PageId, usize> = HashMap::new();
    pass.segments.iter().flat_map(|s| &s.pages).for_each(|page| *readers.entry(*page).or_default() += 1);
    for segment in &pass.segments {
        let end = segment.position + segment.rows.len();
        assert!(!segment.rows.is_empty());
        assert_eq!(segment.pages.len(), end.div_ceil(PAGE));
        for page in &segment.pages[segment.position / PAGE..] {
            assert_eq!(readers[page], 1, "page {page} is written and has another reader");
        }
    }
}

/// The answer of a request that is alone.
pub(super) fn answer(request: &NewRequest, options: &SchedulerOptions) -> Vec<u32> {
    let mut inputs: Vec<u32> = request.inputs.iter().filter_map(Input::token).collect();
    let prompt = inputs.len();
    let limit = request.max_tokens.min(options.max_position_embeddings + 1 - prompt);
    let mut cells: Vec<Cell> = Vec::new();
    let mut set = RopeSet::Short;
    for _ in 0..limit {
        let next = options.rope.choose(request.rope, inputs.len(), prompt + limit - 1);
        if next != set {
            (set, cells) = (next, Vec::new());
        }
        let seen = |cells: &[Cell], end: usize| -> Vec<u64> {
            let first = options.window.map_or(0, |window| end.saturating_sub(window));
            cells[first..].iter().map(|cell| cell.value).collect()
        };
        while let Some(token) = inputs.get(cells.len()) {
            let context = seen(&cells, cells.len() + 1);
            cells.push(cell(cells.len(), *token, set, context.into_iter()));
        }
        let token = sample(seen(&cells, inputs.len()).into_iter());
        inputs.push(token);
        if request.stop_tokens.contains(&token) {
            break;
        }
    }
    inputs.split_off(prompt)
}

/// LongRoPE with this border.
pub(super) fn long_rope(border: usize) -> Rope {
    let json = format!(
        r#"{{"model_type": "phi3", "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
            "num_attention_heads": 4, "vocab_size": 384, "max_position_embeddings": 4096,
            "original_max_position_embeddings": {border}, "rope_scaling": {{"type": "longrope",
            "short_factor": {:?}, "long_factor": {:?}}}}}"#,
        [1.0; 8], [2.0; 8]
    );
    ModelSpec::parse("config.json".as_ref(), json.as_bytes()).unwrap().rope
}

pub(super) fn options() -> SchedulerOptions {
    SchedulerOptions {
        max_rows: 128,
        max_running: 8,
        pipeline_depth: 1,
        max_queued_requests: 1000,
        max_queued_tokens: 100_000,
        stall_factor: 2.0,
        phases_differ: true,
        max_wait: Duration::from_secs(2),
        rope: long_rope(1024),
        window: None,
        max_position_embeddings: 1024,
    }
}

pub(super) fn request(inputs: impl IntoIterator<Item = u32>, max_tokens: usize) -> NewRequest {
    NewRequest {
        inputs: inputs.into_iter().map(Input::Token).collect(),
        max_tokens,
        stop_tokens: [].into(),
        rope: RopePolicy::Exact,
        salt: None,
        key: "".into(),
        pipelined: true,
        outputs: phi3_model::Outputs::Last,
        chunk: None,
    }
}
