//! Errors of a sampler.

/// Errors of a sampler.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// An option is out of its range.
    #[error("{option}: expected {expected}, found {found}; hint: it comes from the request or generation_config.json")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its range.
        expected: &'static str,
        /// Its value.
        found: f32,
    },
    /// The order of the samplers names an unknown one, or one of them twice.
    #[error("samplers: expected {expected}, found {found:?}; hint: names are separated by semicolons")]
    Order {
        /// The known names, or a rule.
        expected: String,
        /// The name.
        found: String,
    },
    /// A logit bias is for a token that the model does not have.
    #[error("logit_bias: expected a token below {vocabulary}, found {token}; hint: tokenize a text to see its tokens")]
    BiasedToken {
        /// The number of logits.
        vocabulary: usize,
        /// The token.
        token: u32,
    },
    /// Every token is banned by a bias of minus infinity.
    #[error("logit_bias: expected at least one token that is not banned, found none; hint: give fewer biases of -inf")]
    AllBanned,
    /// No token that is not banned is in the mask.
    #[error("mask: expected at least one token that is not banned, found none; hint: give fewer biases of -inf")]
    AllMasked,
    /// A logit is NaN or infinite.
    #[error(
        "the logit of token {token} is {value}: the model's weights are damaged, or its numbers overflow; hint: check the checkpoint"
    )]
    NotFinite {
        /// The first token with such a logit.
        token: usize,
        /// The logit.
        value: f32,
    },
    /// No logits were given.
    #[error("there are no logits to choose from; hint: give at least one token")]
    NoLogits,
}
