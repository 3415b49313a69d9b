//! Random numbers as a function of a seed, a purpose and the index of a new token.

/// Increment of SplitMix64's counter.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// Purpose of a random number. Numbers of different purposes are independent of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// Choice of the token.
    Token,
    /// Whether XTC is applied.
    Xtc,
    /// Choice of the token by mirostat.
    Mirostat,
}

/// 64 random bits for the new token of this index, which counts from 0. Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators" (2014): a counter and a mixing function.
pub(super) fn draw(seed: u64, stream: Stream, index: usize) -> u64 {
    let key = match stream {
        Stream::Token => seed,
        Stream::Xtc => mix(seed ^ 0x3C6E_F372_FE94_F82A),
        Stream::Mirostat => mix(seed ^ 0xA54F_F53A_5F1D_36F1),
    };
    mix(key.wrapping_add(GAMMA.wrapping_mul((index as u64).wrapping_add(1))))
}

/// [`draw`] as a number in [0, 1).
pub(super) fn unit(seed: u64, stream: Stream, index: usize) -> f64 {
    (draw(seed, stream, index) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

fn mix(counter: u64) -> u64 {
    let z = (counter ^ (counter >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_are_the_published_ones() {
        let numbers = [0, 1].map(|index| draw(1_234_567, Stream::Token, index));
        assert_eq!(numbers, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn streams_differ() {
        for index in 0..100 {
            let numbers = [Stream::Token, Stream::Xtc, Stream::Mirostat].map(|stream| draw(7, stream, index));
            assert!(numbers[0] != numbers[1] && numbers[1] != numbers[2] && numbers[0] != numbers[2]);
        }
    }
}
