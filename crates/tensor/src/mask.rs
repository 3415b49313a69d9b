//! Which positions attention sees.

/// Which positions of its sequence a row sees; never a later one than its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mask {
    /// All up to its own.
    #[default]
    Causal,
    /// So many, its own included: at position i, positions j with `i - window < j <= i`.
    Window(usize),
}

impl Mask {
    /// A window where there is one.
    pub fn windowed(window: Option<usize>) -> Self {
        window.map_or(Mask::Causal, Mask::Window)
    }

    /// The largest number of positions that a row sees, its own included, where that is limited.
    pub fn window(self) -> Option<usize> {
        match self {
            Mask::Causal => None,
            Mask::Window(window) => Some(window),
        }
    }

    /// Whether query head `head` of the row at position `query` sees position `key`.
    pub fn sees(self, _head: usize, query: usize, key: usize) -> bool {
        key <= query && self.window().is_none_or(|window| query - key < window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_see_what_their_mask_says() {
        let seen = |mask: Mask, query| (0..9).filter(|&key| mask.sees(0, query, key)).collect::<Vec<_>>();
        assert_eq!(seen(Mask::Causal, 3), [0, 1, 2, 3]);
        assert_eq!(seen(Mask::Window(1), 3), [3]);
        assert_eq!(seen(Mask::Window(3), 7), [5, 6, 7]);
        assert_eq!(seen(Mask::Window(30), 2), [0, 1, 2]);
    }
}
