//! Input of a vision tower, its features, and the inputs of a decoder's pass.

use super::{PictureSpec, VisionSpec};
use crate::{Error, Result};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, OnceLock};

/// Input of a vision tower: a preprocessed picture.
#[derive(Clone, Copy, Debug)]
pub struct TowerInput<'a> {
    /// Normalized values. Crops are `[1 + rows * cols, 3, size, size]`: the global view, then the crops row by row. A whole
    /// picture is `[rows * cols, patch_size * patch_size * 3]`: patches row by row, each of them pixels row by row, each pixel
    /// three channels.
    pub values: &'a [f32],
    /// Rows and columns of crops, or of patches.
    pub grid: (usize, usize),
}

impl TowerInput<'_> {
    pub(super) fn check(&self, spec: &VisionSpec) -> Result<()> {
        let (rows, cols) = self.grid;
        let (needed, limit) = match spec.picture {
            PictureSpec::Crops { size } => {
                let pixels = 3 * size * size;
                let needed = rows.checked_mul(cols).and_then(|crops| (crops + 1).checked_mul(pixels));
                (needed, format!("the tower takes {pixels} values for each crop and for the global view"))
            }
            PictureSpec::Whole { max_patches, .. } => {
                let patches = rows.checked_mul(cols).filter(|patches| *patches <= max_patches);
                let values = spec.patch_values();
                let needed = patches.and_then(|patches| patches.checked_mul(values));
                (needed, format!("the tower takes {values} values for each patch, and at most {max_patches} patches"))
            }
        };
        if rows > 0 && cols > 0 && needed == Some(self.values.len()) {
            return Ok(());
        }
        Err(Error::Request {
            what: "values of a picture",
            found: format!("{} for a grid of {rows} x {cols}", self.values.len()),
            limit,
            hint: "preprocess the picture for this model",
        })
    }
}

/// Identity of the picture that features were computed from: equal if grid and values are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureId([u64; 2]);

impl FeatureId {
    /// The id of an input: a hash of grid and values, comparable within the process only. The keys of the hash are random, so
    /// that collisions cannot be constructed from outside.
    pub fn of(input: &TowerInput<'_>) -> Self {
        static KEYS: OnceLock<[RandomState; 2]> = OnceLock::new();
        let keys = KEYS.get_or_init(|| [RandomState::new(), RandomState::new()]);
        Self([&keys[0], &keys[1]].map(|key| {
            let mut hasher = key.build_hasher();
            hasher.write_usize(input.grid.0);
            hasher.write_usize(input.grid.1);
            input.values.iter().for_each(|value| hasher.write_u32(value.to_bits()));
            hasher.finish()
        }))
    }
}

/// Features of a picture: a row for each of its tokens.
pub struct Features {
    id: FeatureId,
    width: usize,
    values: Vec<f32>,
}

impl Features {
    pub(crate) fn new(id: FeatureId, width: usize, values: Vec<f32>) -> Self {
        Self { id, width, values }
    }

    /// Identity of the picture.
    pub fn id(&self) -> FeatureId {
        self.id
    }

    /// Number of tokens of the picture.
    pub fn tokens(&self) -> usize {
        self.values.len() / self.width
    }

    /// Width of a row: the decoder's `hidden_size`.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All rows, `[tokens, width]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The rows as inputs of a decoder, in order.
    pub fn inputs(self: &Arc<Self>) -> impl Iterator<Item = Input> {
        (0..self.tokens()).map(|row| Input::Feature { features: self.clone(), row })
    }
}

impl std::fmt::Debug for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Features({:?}, {} tokens)", self.id, self.tokens())
    }
}

/// Input of one row of a pass.
#[derive(Clone, Debug)]
pub enum Input {
    /// The embedding of a token.
    Token(u32),
    /// A row of a picture's features.
    Feature {
        /// The features of the picture.
        features: Arc<Features>,
        /// Index of the row.
        row: usize,
    },
}

impl Input {
    /// The token; `None` for a row of features.
    pub fn token(&self) -> Option<u32> {
        match self {
            Input::Token(token) => Some(*token),
            Input::Feature { .. } => None,
        }
    }
}

impl From<u32> for Input {
    fn from(token: u32) -> Self {
        Input::Token(token)
    }
}

impl From<&u32> for Input {
    fn from(token: &u32) -> Self {
        Input::Token(*token)
    }
}

impl From<&Input> for Input {
    fn from(input: &Input) -> Self {
        input.clone()
    }
}

impl PartialEq for Input {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Input::Token(a), Input::Token(b)) => a == b,
            (Input::Feature { features: a, row: i }, Input::Feature { features: b, row: j }) => a.id == b.id && i == j,
            _ => false,
        }
    }
}

impl PartialEq<u32> for Input {
    fn eq(&self, other: &u32) -> bool {
        self.token() == Some(*other)
    }
}
