//! Cases of attention: types of cache, masks, chunks and decoded tokens.

use crate::comparison::{Case, Comparison, Random, allowed, kv_step, largest, magnitude, mean};
use crate::{Backend, Batch, BlockSparse, DType, Heads, KvType, Mask, Norm, PAGE, Result, Role};

/// Narrow and wide heads, some not a multiple of a vector or of a block of a quantized cache.
pub(crate) const HEADS: [Heads; 6] = [
    Heads { heads: 3, kv_heads: 3, head_dim: 8, rotary_dim: 8 },
    Heads { heads: 6, kv_heads: 2, head_dim: 10, rotary_dim: 6 },
    Heads { heads: 4, kv_heads: 1, head_dim: 96, rotary_dim: 96 },
    Heads { heads: 2, kv_heads: 2, head_dim: 128, rotary_dim: 96 },
    Heads { heads: 5, kv_heads: 5, head_dim: 14, rotary_dim: 14 },
    Heads { heads: 3, kv_heads: 3, head_dim: 16, rotary_dim: 0 },
];

/// Attention with weights in single precision; [`project_qkv`](crate::ops::project_qkv::cases) walks the other types.
pub(crate) fn compare<B: Backend>(comparison: &mut Comparison<'_, B>) -> Result<()> {
    caches(comparison)?;
    blocks(comparison)
}

/// Attention over the types of cache that round.
///
/// Keys and values differ from those of the reference by rounding in f32. A number about half way between two values of the type
/// may therefore become either: a difference may be as large as a step of the type, but only few are.
fn caches<B: Backend>(comparison: &mut Comparison<'_, B>) -> Result<()> {
    let narrow = Heads { heads: 4, kv_heads: 2, head_dim: 34, rotary_dim: 34 };
    for kv in [KvType::F16, KvType::Q8_0] {
        for heads in HEADS.into_iter().chain([narrow]) {
            for (mask, chunk) in [(Mask::Causal, 7), (Mask::Window(33), usize::MAX), (Mask::Full, usize::MAX)] {
                let plan = Plan { dtype: DType::F32, heads, kv, mask, chunk };
                let case = format!("attention {kv} {heads:?} {mask:?} chunk {chunk}");
                let (want, got) = comparison.both(&case, &plan)?;
                let exact = 4.0 * allowed(heads.head_dim + 77, magnitude(&want));
                let step = 4.0 * kv_step(kv) * magnitude(&want);
                comparison.outcome(case.clone(), largest(&want, &got), exact + step);
                comparison.outcome(format!("{case}: mean"), mean(&want, &got), exact + step / 100.0);
            }
        }
    }
    Ok(())
}

/// Attention over blocks, of a page, of less and of more, for heads in groups.
fn blocks<B: Backend>(comparison: &mut Comparison<'_, B>) -> Result<()> {
    let grouped = Heads { heads: 6, kv_heads: 2, head_dim: 20, rotary_dim: 12 };
    let alone = Heads { heads: 3, kv_heads: 3, head_dim: 34, rotary_dim: 34 };
    for (heads, block, local, stride, head_step) in
        [(grouped, 16, 1, 3, 1), (grouped, 8, 2, 4, 1), (alone, 32, 1, 2, 0), (alone, 3, 4, 5, 2)]
    {
        let mask = Mask::Blocks(BlockSparse { block, local, stride, head_step });
        for (kv, chunk) in [(KvType::F32, usize::MAX), (KvType::F32, 7), (KvType::F16, 9)] {
            let plan = Plan { dtype: DType::F32, heads, kv, mask, chunk };
            let case = format!("attention {kv} {heads:?} {mask:?} chunk {chunk}");
            comparison.case(case, &plan, |size| 4.0 * (allowed(heads.head_dim + 77, size) + kv_step(kv) * size))?;
        }
    }
    Ok(())
}

/// Three sequences over two layers, with attention after each projection to queries, keys and values.
pub(crate) struct Plan {
    pub(crate) dtype: DType,
    pub(crate) heads: Heads,
    pub(crate) kv: KvType,
    pub(crate) mask: Mask,
    pub(crate) chunk: usize,
}

impl Case for Plan {
    /// Three sequences of 3, 45 and 77 tokens, by chunks, then two decoded tokens each; page ids are scattered.
    fn run<B: Backend>(&self, b: &mut B) -> Result<Vec<f32>> {
        let Self { dtype, heads, kv, mask, chunk } = *self;
        let mut random = Random(heads.head_dim as u64);
        let (hidden, layers, vocab) = (52usize.next_multiple_of(dtype.block().0), 2, 61);
        let table = b.matrix(&random.weight("table", dtype, vocab, hidden, 2.0), Role::Plain)?;
        let norm = b.vector("norm", &random.vector(hidden, 1.5))?;
        // the second layer has a bias, no norm, and values of another type
        let values_at = heads.q_dim() + heads.kv_dim();
        let whole = b.matrix(&random.weight("qkv", dtype, heads.qkv_dim(), hidden, 0.3), Role::Qkv(heads))?;
        let part = random.weight("qk", dtype, values_at, hidden, 0.3).with_bias(random.vector(values_at, 0.5))?;
        let queries_and_keys = b.matrix(&part, Role::QkvPart(heads, 0))?;
        let part = random.weight("v", DType::F16, heads.kv_dim(), hidden, 0.3);
        let values = b.matrix(&part.with_bias(random.vector(heads.kv_dim(), 0.5))?, Role::QkvPart(heads, values_at))?;
        let lengths = [3usize, 45, 77];
        let total: usize = lengths.iter().sum();
        let mut x = b.rows("x", total, hidden)?;
        let mut q = b.rows("q", total, heads.q_dim())?;
        let mut out = b.rows("out", total, heads.q_dim())?;
        let mut cache = b.cache(layers, heads, kv)?;

        let mut held = [0usize; 3];
        let mut pages: [Vec<u32>; 3] = Default::default();
        let mut next_page = 0;
        let mut all = Vec::new();
        loop {
            let mut batch = Batch::default();
            for s in 0..3 {
                let want = if held[s] < lengths[s] { chunk.min(lengths[s] - held[s]) } else { 1 };
                let position = held[s];
                held[s] += want;
                for position in position..held[s] {
                    for i in 0..heads.rotary_dim / 2 {
                        let angle = position as f64 / 50f64.powf(2.0 * i as f64 / heads.rotary_dim as f64);
                        batch.rope_mut().extend([(angle.cos() * 1.19) as f32, (angle.sin() * 1.19) as f32]);
                    }
                }
                let tokens: Vec<u32> = (0..want).map(|_| (random.bits() % vocab as u64) as u32).collect();
                while pages[s].len() * PAGE < held[s] {
                    pages[s].push(next_page * 7 % 23);
                    next_page += 1;
                }
                let mut pages = pages[s].clone();
                if let Some(window) = mask.window() {
                    // a page before the window of the segment's first row is never read
                    pages[..(position + 1).saturating_sub(window) / PAGE].fill(Batch::NO_PAGE);
                }
                batch.push(&tokens, position, &pages)?;
            }
            b.reserve(&mut cache, 23)?;
            b.begin(&batch)?;
            b.embed(&table, 1.0, &mut x)?;
            // the last two rows come from the host
            let first = batch.rows() - 2;
            b.write(&mut x, first, &random.vector(2 * hidden, 2.0))?;
            let norm = Norm::Rms { weight: &norm, eps: 1e-3 };
            let scale = 0.7 / (heads.head_dim as f32).sqrt();
            let weights: [&[&B::Matrix]; 2] = [&[&whole], &[&queries_and_keys, &values]];
            for (layer, weights) in weights.into_iter().enumerate() {
                b.project_qkv(&x, (layer == 0).then_some(norm), weights, &mut q, &mut cache, layer)?;
                b.attention(&q, &cache, layer, mask, scale, &mut out)?;
                let at = all.len();
                all.resize(at + batch.rows() * heads.q_dim(), 0.0);
                b.read(&out, &mut all[at..])?;
            }
            if (0..3).all(|s| held[s] >= lengths[s] + 2) {
                return Ok(all);
            }
        }
    }
}
