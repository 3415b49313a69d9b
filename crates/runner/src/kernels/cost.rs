//! Cost of an operation at a variant's sizes.

use phi3_model::{LayerSpec, Mlp, ModelSpec, Part, Slot};
use phi3_tensor::{Activation, DType, Heads, KvType, Mask};

/// An operation of the decoder; those with a weight have its published name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Rows of the embedding.
    Embed,
    /// A norm by itself.
    Norm,
    /// Norm, fused projection, rotary embedding, and writing keys and values into the KV cache.
    Qkv,
    /// Attention.
    Attention,
    /// Output projection of attention, and residual.
    O,
    /// Norm, up projection (for a gated activation, gate and up) and activation.
    GateUp,
    /// Down projection, and residual.
    Down,
    /// Last norm and logits.
    Head,
    /// On-device sampling: the most likely token.
    Argmax,
    /// On-device sampling: a random token.
    Sample,
}

impl Op {
    /// Every operation, in the order of a pass.
    pub const ALL: [Op; 10] =
        [Op::Embed, Op::Norm, Op::Qkv, Op::Attention, Op::O, Op::GateUp, Op::Down, Op::Head, Op::Argmax, Op::Sample];

    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Op::Embed => "embed",
            Op::Norm => "norm",
            Op::Qkv => "qkv_proj",
            Op::Attention => "attention",
            Op::O => "o_proj",
            Op::GateUp => "gate_up_proj",
            Op::Down => "down_proj",
            Op::Head => "lm_head",
            Op::Argmax => "argmax",
            Op::Sample => "sample",
        }
    }

    /// Returns the weight matrix of the operation, in a layer or outside the layers.
    pub fn slot(self, layer: usize) -> Option<Slot> {
        match self {
            Op::Embed => Some(Slot::Embedding),
            Op::Qkv => Some(Slot::Layer(layer, Part::Qkv)),
            Op::O => Some(Slot::Layer(layer, Part::AttentionOut)),
            Op::GateUp => Some(Slot::Layer(layer, Part::Up)),
            Op::Down => Some(Slot::Layer(layer, Part::Down)),
            Op::Head => Some(Slot::Head),
            Op::Norm | Op::Attention | Op::Argmax | Op::Sample => None,
        }
    }

    /// Returns whether a model has the operation. A feed-forward of experts has neither [`Op::GateUp`] nor [`Op::Down`].
    pub fn is_of(self, spec: &ModelSpec) -> bool {
        match self.slot(0) {
            Some(Slot::Layer(layer, part)) => spec.layers.get(layer).is_some_and(|layer| layer.has(part)),
            _ => true,
        }
    }

    /// Returns whether the operation reads a weight matrix.
    pub fn has_weights(self) -> bool {
        self.slot(0).is_some()
    }

    /// Returns whether the operation samples tokens, which not every backend supports.
    pub fn is_sampling(self) -> bool {
        matches!(self, Op::Argmax | Op::Sample)
    }

    /// Returns whether the operation supports `rows` rows: on-device sampling takes one row.
    pub fn takes(self, rows: usize) -> bool {
        rows == 1 || !self.is_sampling()
    }
}

/// Sizes of a model and length of a sequence.
#[derive(Clone, Debug)]
pub struct ModelShape {
    /// Sizes of the model.
    pub spec: ModelSpec,
    /// Positions of a sequence; the rows are the last of them.
    pub context: usize,
    /// Type of the cached keys and values.
    pub kv: KvType,
}

/// Least cost of an operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Cost {
    /// Shape of the weight or of the main input.
    pub shape: String,
    /// Bytes that must be read and written.
    pub bytes: f64,
    /// Multiplications and additions.
    pub flops: f64,
}

impl ModelShape {
    /// The layer whose shapes and mask are measured: the first.
    fn layer(&self) -> Option<&LayerSpec> {
        self.spec.layers.first()
    }

    /// Mask of attention.
    pub(super) fn mask(&self) -> Mask {
        self.layer().map_or(Mask::Causal, |layer| layer.mask)
    }

    /// Activation of the feed-forward.
    pub(super) fn activation(&self) -> Activation {
        match self.layer().map(|layer| layer.mlp) {
            Some(Mlp::Dense { activation, .. } | Mlp::Experts { activation, .. }) => activation,
            None => Activation::Identity,
        }
    }

    /// Type of the main input of an operation without weights.
    pub(super) fn kind(&self, op: Op) -> &'static str {
        if op == Op::Attention { self.kv.name() } else { "f32" }
    }

    /// Positions of the sequence of a pass of `rows` rows.
    pub(super) fn positions(&self, rows: usize) -> usize {
        self.context.max(rows)
    }

    /// Rows and columns of an operation's weight.
    pub(super) fn matrix(&self, op: Op) -> (usize, usize) {
        match op.slot(0).map(|slot| slot.tensor(&self.spec).shape) {
            Some(shape) => (shape[0], shape[1]),
            None => (1, self.width(op)),
        }
    }

    /// Width of the rows that an operation reads.
    pub(super) fn width(&self, op: Op) -> usize {
        let ModelSpec { hidden_size, heads, vocab_size, .. } = self.spec;
        match op {
            Op::Embed | Op::Norm | Op::Qkv | Op::GateUp | Op::Head => hidden_size,
            Op::Attention | Op::O => heads.q_dim(),
            Op::Down => self.spec.widest_mlp(),
            Op::Argmax | Op::Sample => vocab_size,
        }
    }

    /// Width of the rows that an operation writes.
    pub(super) fn width_out(&self, op: Op) -> usize {
        let ModelSpec { hidden_size, heads, vocab_size, .. } = self.spec;
        match op {
            Op::Embed | Op::Norm | Op::O | Op::Down => hidden_size,
            Op::Qkv | Op::Attention => heads.q_dim(),
            Op::GateUp => self.spec.widest_mlp(),
            Op::Head | Op::Argmax | Op::Sample => vocab_size,
        }
    }

    /// Bytes of a position's keys and values in one layer.
    pub(super) fn position_bytes(&self) -> f64 {
        let each = match self.kv {
            KvType::F32 => 4.0,
            KvType::F16 => 2.0,
            KvType::Q8_0 => 1.0 + 4.0 / KvType::BLOCK as f64,
        };
        2.0 * self.spec.heads.kv_dim() as f64 * each
    }

    /// Cost of an operation for `rows` rows.
    pub fn work(&self, op: Op, dtype: Option<DType>, rows: usize) -> Cost {
        const F32: f64 = 4.0;
        let heads = self.spec.heads;
        let ((n, k), count) = (self.matrix(op), rows as f64);
        let (input, output) = (count * self.width(op) as f64 * F32, count * self.width_out(op) as f64 * F32);
        let weights = dtype.and_then(|dtype| dtype.bytes(k)).unwrap_or(0) as f64 * n as f64;
        let gain = self.spec.hidden_size as f64 * F32;
        let product = 2.0 * count * n as f64 * k as f64;
        let matrix = format!("[{n}, {k}]");
        let (shape, bytes, flops) = match op {
            Op::Embed => (matrix, count * weights / n as f64 + output, 0.0),
            // squares and their sum, scale and weight
            Op::Norm => (format!("[{k}]"), input + gain + output, 4.0 * count * k as f64),
            Op::Qkv => (matrix, weights + input + gain + output + count * self.position_bytes(), product),
            Op::O | Op::Down => (matrix, weights + input + 2.0 * output, product),
            Op::GateUp | Op::Head => (matrix, weights + input + gain + output, product),
            Op::Attention => {
                let (seen, pairs) = self.seen(rows);
                let heads =
                    format!("{}/{} heads of {}, {} positions", heads.heads, heads.kv_heads, heads.head_dim, seen);
                (heads, seen as f64 * self.position_bytes() + input + output, 4.0 * pairs * k as f64)
            }
            Op::Argmax | Op::Sample => (format!("[{k}]"), input, 0.0),
        };
        Cost { shape, bytes, flops }
    }

    /// Number of positions that the rows of a pass see together, and number of pairs of a row and a position that it sees. If the
    /// mask differs between heads, the means over the heads.
    fn seen(&self, rows: usize) -> (usize, f64) {
        let positions = self.positions(rows);
        let first = positions - rows;
        match self.mask() {
            mask @ (Mask::Causal | Mask::Window(_)) => {
                let window = mask.window().unwrap_or(usize::MAX);
                let pairs = (first + 1..=positions).map(|seen| seen.min(window) as f64).sum();
                (positions.min(window.saturating_add(rows - 1)), pairs)
            }
            // the rows are the last of their segment
            Mask::Full => (positions, (rows * positions) as f64),
            Mask::Blocks(blocks) => {
                let Heads { heads, kv_heads, .. } = self.spec.heads;
                // positions of a block before `end`
                let of = |block: usize, end: usize| end.min((block + 1) * blocks.block) - block * blocks.block;
                let (mut read, mut pairs) = (0, 0);
                for block in 0..positions.div_ceil(blocks.block) {
                    let mut is_read = vec![false; kv_heads];
                    for head in 0..heads {
                        for row in first.max(block * blocks.block)..positions {
                            if blocks.sees(head, row / blocks.block, block) {
                                pairs += of(block, row + 1);
                                is_read[head * kv_heads / heads] = true;
                            }
                        }
                    }
                    read += of(block, positions) * is_read.iter().filter(|read| **read).count();
                }
                (read / kv_heads, pairs as f64 / heads as f64)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(context: usize, kv: KvType) -> ModelShape {
        ModelShape { spec: phi3_model::variant("phi-3-mini-4k").unwrap(), context, kv }
    }

    #[test]
    fn work_is_what_phi_3_mini_has_to_do() {
        let shape = shape(1024, KvType::F16);
        let down = shape.work(Op::Down, Some(DType::Bf16), 1);
        assert_eq!(down.shape, "[3072, 8192]");
        assert_eq!((down.bytes, down.flops), ((3072 * 8192 * 2 + 8192 * 4 + 2 * 3072 * 4) as f64, 50_331_648.0));
        let attention = shape.work(Op::Attention, None, 2);
        assert_eq!(attention.shape, "32/32 heads of 96, 1024 positions");
        assert_eq!(attention.flops, 4.0 * (1023.0 + 1024.0) * 3072.0);
        assert_eq!(attention.bytes, 1024.0 * 2.0 * 3072.0 * 2.0 + 2.0 * 2.0 * 3072.0 * 4.0);
    }

    #[test]
    fn a_window_hides_positions_and_a_pass_is_no_longer_than_its_sequence() {
        assert_eq!(shape(4096, KvType::F32).seen(1), (2047, 2047.0));
        assert_eq!(shape(4096, KvType::F32).seen(3), (2049, 3.0 * 2047.0));
        assert_eq!(shape(2, KvType::F32).seen(3), (3, 6.0));
    }

    fn of(variant: &str, context: usize) -> ModelShape {
        ModelShape { spec: phi3_model::variant(variant).unwrap(), context, kv: KvType::F16 }
    }

    #[test]
    fn experts_have_no_dense_feed_forward() {
        for variant in phi3_model::variants() {
            let shape = of(&variant, 1024);
            let (has, without): (Vec<Op>, Vec<Op>) = Op::ALL.into_iter().partition(|op| op.is_of(&shape.spec));
            let wanted: &[Op] = if variant.ends_with("-moe") { &[Op::GateUp, Op::Down] } else { &[] };
            assert_eq!(without, wanted, "{variant}");
            for op in has {
                let work = shape.work(op, Some(DType::Bf16), 3);
                assert!(work.bytes > 0.0 && work.bytes.is_finite() && work.flops.is_finite(), "{variant} {op:?}");
            }
        }
    }

    #[test]
    fn blocks_that_no_head_of_a_group_sees_are_not_read() {
        // 1024 positions are 16 local blocks: all are seen
        assert_eq!(of("phi-3-small-8k", 1024).seen(1), (1024, 1024.0));
        // a head sees 16 local blocks of the 64, and an eighth of the others; a group of four heads reads half of the others
        let (read, pairs) = of("phi-3-small-8k", 4096).seen(1);
        assert_eq!((read, pairs), (1024 + 3072 / 2, 1024.0 + 3072.0 / 8.0));
    }
}
