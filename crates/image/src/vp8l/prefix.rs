//! Prefix codes of a VP8L stream (RFC 9649, 3.7.2).

use super::bits::Bits;
use super::damaged;
use crate::{Error, Format, Result};

/// Longest code in bits.
const LONGEST: usize = 15;

/// Length in bits of the longest code that one table lookup decodes.
const LOOK: u32 = 8;

/// Most bytes of all codes of a stream. Encoders write some thousand codes, a hostile file may write 327680.
const MOST_BYTES: usize = 1 << 26;

/// Order in which the lengths of the code of code lengths are stored.
const LENGTH_ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// A canonical prefix code.
pub(super) struct Code {
    /// Table by the next bits: symbol · 16 + length; length 0 is a longer code.
    look: Vec<u16>,
    /// Number of codes of every length.
    counts: [u16; LONGEST + 1],
    /// Symbols by length, then by value.
    symbols: Vec<u16>,
}

impl Code {
    /// A code of one symbol, which takes no bits.
    fn single(symbol: u16) -> Self {
        Self { look: Vec::new(), counts: [0; LONGEST + 1], symbols: vec![symbol] }
    }

    /// The code of the symbols whose length is not 0.
    fn new(lengths: &[u8]) -> Result<Self> {
        let mut counts = [0u16; LONGEST + 1];
        for &length in lengths {
            counts[usize::from(length)] += 1;
        }
        counts[0] = 0;
        let mut symbols = Vec::with_capacity(counts.iter().map(|&count| usize::from(count)).sum());
        for length in 1..=LONGEST {
            let of_length = lengths.iter().enumerate().filter(|(_, found)| usize::from(**found) == length);
            symbols.extend(of_length.map(|(symbol, _)| symbol as u16));
        }
        if let [symbol] = symbols[..] {
            return Ok(Self::single(symbol));
        }
        let filled = |(length, &count): (usize, &u16)| u32::from(count) << (LONGEST - length);
        if counts.iter().enumerate().map(filled).sum::<u32>() != 1 << LONGEST {
            return Err(damaged("a complete prefix code", format!("lengths of {} symbols", symbols.len())));
        }
        let look = look_up(&counts, &symbols);
        Ok(Self { look, counts, symbols })
    }

    /// Reads a code for symbols below `alphabet`.
    fn read(bits: &mut Bits<'_>, alphabet: usize) -> Result<Self> {
        let mut lengths = vec![0; alphabet];
        if bits.flag()? {
            let two = bits.flag()?;
            let first_bits = if bits.flag()? { 8 } else { 1 };
            let mut symbols = vec![bits.read(first_bits)? as usize];
            if two {
                symbols.push(bits.read(8)? as usize);
            }
            for symbol in symbols {
                let length = lengths.get_mut(symbol);
                *length.ok_or_else(|| damaged("a symbol of the alphabet", symbol.to_string()))? = 1;
            }
            return Self::new(&lengths);
        }
        let mut of_lengths = [0; LENGTH_ORDER.len()];
        let stored = 4 + bits.read(4)? as usize;
        for &place in LENGTH_ORDER.iter().take(stored) {
            of_lengths[place] = bits.read(3)? as u8;
        }
        let code = Self::new(&of_lengths)?;
        let mut left = alphabet;
        if bits.flag()? {
            let count = 2 + 2 * bits.read(3)?;
            left = 2 + bits.read(count)? as usize;
            if left > alphabet {
                return Err(damaged("no more code lengths than symbols", left.to_string()));
            }
        }
        let (mut at, mut previous) = (0, 8);
        while at < alphabet && left > 0 {
            left -= 1;
            let (length, count) = match code.symbol(bits)? {
                length @ 0..=15 => (length as u8, 1),
                16 => (previous, 3 + bits.read(2)?),
                17 => (0, 3 + bits.read(3)?),
                _ => (0, 11 + bits.read(7)?),
            };
            let end = at + count as usize;
            let run =
                lengths.get_mut(at..end).ok_or_else(|| damaged("lengths within the alphabet", end.to_string()))?;
            run.fill(length);
            at = end;
            previous = if length == 0 { previous } else { length };
        }
        Self::new(&lengths)
    }

    /// Reads a symbol.
    #[inline]
    pub(super) fn symbol(&self, bits: &mut Bits<'_>) -> Result<u16> {
        if let [symbol] = self.symbols[..] {
            return Ok(symbol);
        }
        let next = bits.peek();
        let found = self.look[next & (self.look.len() - 1)];
        if found & 15 != 0 {
            bits.skip(u32::from(found & 15))?;
            return Ok(found >> 4);
        }
        self.long_symbol(bits, next)
    }

    /// Reads a symbol bit by bit: the codes of a length are consecutive numbers, and so are their symbols.
    #[cold]
    fn long_symbol(&self, bits: &mut Bits<'_>, next: usize) -> Result<u16> {
        let (mut code, mut first, mut index) = (0usize, 0usize, 0usize);
        for length in 1..=LONGEST {
            code = code << 1 | next >> (length - 1) & 1;
            let count = usize::from(self.counts[length]);
            if let Some(place) = code.checked_sub(first).filter(|place| *place < count) {
                bits.skip(length as u32)?;
                return self.symbols.get(index + place).copied().ok_or_else(|| damaged("a symbol", "none".into()));
            }
            index += count;
            first = (first + count) << 1;
        }
        Err(damaged("a prefix code", format!("the bits {next:015b}")))
    }

    fn bytes(&self) -> usize {
        (self.look.len() + self.symbols.len()) * 2 + size_of::<Self>()
    }
}

/// The table of [`Code::look`]; in its index the first bit of a code is the lowest.
fn look_up(counts: &[u16; LONGEST + 1], symbols: &[u16]) -> Vec<u16> {
    let longest = counts.iter().rposition(|&count| count > 0).unwrap_or(0) as u32;
    let width = longest.min(LOOK);
    let mut look = vec![0; 1 << width];
    let (mut code, mut rest) = (0u32, symbols.iter());
    for length in 1..=width {
        for &symbol in rest.by_ref().take(usize::from(counts[length as usize])) {
            let start = code.reverse_bits() >> (32 - length);
            for place in look.iter_mut().skip(start as usize).step_by(1 << length) {
                *place = symbol << 4 | length as u16;
            }
            code += 1;
        }
        code <<= 1;
    }
    look
}

/// The five codes of a group: green, lengths and cache; red; blue; alpha; distances.
pub(super) type Group = [Code; 5];

/// Reads `count` groups of codes; `cache` is the size of the colour cache.
pub(super) fn read_groups(bits: &mut Bits<'_>, count: usize, cache: usize) -> Result<Vec<Group>> {
    let (mut groups, mut bytes) = (Vec::new(), 0);
    for _ in 0..count {
        let mut code = |alphabet| Code::read(bits, alphabet);
        let group = [code(256 + 24 + cache)?, code(256)?, code(256)?, code(256)?, code(40)?];
        bytes += group.iter().map(Code::bytes).sum::<usize>();
        if bytes > MOST_BYTES {
            let found = format!("more than {MOST_BYTES} bytes of prefix codes");
            return Err(Error::Unsupported { format: Format::WebP, found });
        }
        groups.push(group);
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_short_and_long() {
        // lengths 1 to 14, and 15 twice
        let lengths: Vec<u8> = (1..=15).chain([15]).collect();
        let code = Code::new(&lengths).unwrap();
        for symbol in 0..16usize {
            // `symbol` ones, then a zero where there is room
            let bytes = ((1u32 << symbol.min(15)) - 1).to_le_bytes();
            let mut bits = Bits::new(&bytes);
            assert_eq!(usize::from(code.symbol(&mut bits).unwrap()), symbol);
            let left = (0..).take_while(|_| bits.flag().is_ok()).count();
            assert_eq!(left, 32 - (symbol + 1).min(15), "{symbol}");
        }
    }

    #[test]
    fn codes_that_are_not_complete() {
        for lengths in [
            &[1, 1, 1][..],
            &[2, 2, 2],
            &[1, 2],
            &[0, 0],
            &[],
            &[1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 15],
        ] {
            assert!(matches!(Code::new(lengths), Err(Error::Damaged { .. })), "{lengths:?}");
        }
        assert_eq!(Code::new(&[0, 0, 9]).unwrap().symbol(&mut Bits::new(&[])).unwrap(), 2);
    }

    #[test]
    fn more_codes_than_there_is_memory_for() {
        // twice a code of the symbols 0 and 1, twelve bits each
        let bytes = [0x13, 0x30, 0x01].repeat(1 << 20);
        assert_eq!(read_groups(&mut Bits::new(&bytes), 1000, 0).unwrap().len(), 1000);
        assert!(matches!(read_groups(&mut Bits::new(&bytes), 400_000, 0), Err(Error::Unsupported { .. })));
    }
}
