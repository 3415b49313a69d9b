//! How a machine chooses tokens.

/// How a token is chosen from logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// The token of the largest logit, the first of equals.
    Likeliest,
    /// A token by chance: temperature, top-k, top-p and min-p, each on what the one before left, then the first token whose
    /// probability, added to those before it, passes `draw / 2^32`.
    ///
    /// A machine computes the weights `exp((logit - largest) / temperature)` in single precision, and sums them exactly; of
    /// tokens of equal weights top-p drops the later ones. So its token is the one that exact arithmetic gives for a draw, a
    /// top-p and a min-p that differ from these by rounding.
    Drawn {
        /// Logits are divided by this; more than 0.
        temperature: f32,
        /// Only this many of the largest logits, and those as large as the last of them; 0 for all.
        top_k: u32,
        /// The least likely tokens are dropped as long as their probabilities add up to at most 1 - this; 1 keeps all.
        top_p: f32,
        /// Only tokens with at least this share of the likeliest token's probability; 0 for all.
        min_p: f32,
        /// The random number, of 32 bits.
        draw: u32,
    },
}
