//! Bits of a VP8L stream, the lowest of a byte first.

use super::damaged;
use crate::Result;

/// A reader of bits.
pub(super) struct Bits<'a> {
    rest: &'a [u8],
    length: usize,
    /// Bits that were taken from `rest` and not yet read, the next one lowest.
    ahead: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, length: bytes.len(), ahead: 0, count: 0 }
    }

    /// Takes bytes until at least 56 bits are ahead, or the stream ends.
    fn fill(&mut self) {
        if let Some(next) = self.rest.first_chunk::<8>() {
            let bytes = (63 - self.count) / 8;
            let taken = u64::from_le_bytes(*next) & ((1 << (bytes * 8)) - 1);
            self.ahead |= taken << self.count;
            self.count += bytes * 8;
            self.rest = &self.rest[bytes as usize..];
            return;
        }
        while let (true, Some((&byte, rest))) = (self.count < 56, self.rest.split_first()) {
            self.ahead |= u64::from(byte) << self.count;
            self.count += 8;
            self.rest = rest;
        }
    }

    /// The next 15 bits, zeros after the end; the position stays.
    pub(super) fn peek(&mut self) -> usize {
        if self.count < 15 {
            self.fill();
        }
        (self.ahead & 0x7fff) as usize
    }

    /// Skips `count` peeked bits, at most 15.
    pub(super) fn skip(&mut self, count: u32) -> Result<()> {
        let ended = || damaged("the rest of the picture", format!("the end of its chunk after {} bytes", self.length));
        self.count = self.count.checked_sub(count).ok_or_else(ended)?;
        self.ahead >>= count;
        Ok(())
    }

    /// Reads a number of at most 24 bits.
    pub(super) fn read(&mut self, count: u32) -> Result<u32> {
        if self.count < count {
            self.fill();
        }
        let number = (self.ahead & ((1 << count) - 1)) as u32;
        self.skip(count)?;
        Ok(number)
    }

    /// Reads one bit.
    pub(super) fn flag(&mut self) -> Result<bool> {
        Ok(self.read(1)? == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length() {
        let bytes: Vec<u8> = (0..41u32).map(|at| (at * 167 + 13) as u8).collect();
        let bit = |at: usize| u32::from(bytes[at / 8] >> (at % 8) & 1);
        for length in 1..=24 {
            let (mut bits, mut at) = (Bits::new(&bytes), 0);
            while at + length <= bytes.len() * 8 {
                let expected = (0..length).fold(0, |sum, place| sum | bit(at + place) << place);
                assert_eq!(bits.peek() as u32 & 0x7fff, expected_peek(&bytes, at), "{length} at {at}");
                assert_eq!(bits.read(length as u32).unwrap(), expected, "{length} at {at}");
                at += length;
            }
            assert!(bits.read(length as u32).is_err(), "{length}");
        }
    }

    fn expected_peek(bytes: &[u8], at: usize) -> u32 {
        let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| u32::from(byte >> (at % 8) & 1));
        (0..15).fold(0, |sum, place| sum | bit(at + place) << place)
    }
}
