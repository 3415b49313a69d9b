//! Repacked weights: panels of sixteen interleaved rows (llama.cpp's `repack`), so that an instruction works on several rows and
//! no sum runs across a register.
//!
//! A panel holds the blocks of its rows one after another. Of a block it holds each field for all sixteen rows: halves, bytes,
//! and words of four consecutive bytes. It has as many bytes as the rows.

use super::field::{Field, PANEL};
use super::memory::AlignedBuf;
use super::quants::QuantBlock;
use crate::quant::with_quant_type;
use crate::{DType, Result, Weight};
use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicUsize};

/// The fields of a type, in the order of a panel; none for a plain type.
fn fields(dtype: DType) -> &'static [Field] {
    with_quant_type!(dtype, Q => Q::FIELDS, else { _ => &[] })
}

/// The bits of [`Field::Bits`] in the order of a panel: bit 4q + i becomes bit q of byte i, a transposition of 8 x 4.
fn spread(bits: u32) -> u32 {
    (0..8).fold(0, |out, q| {
        let four = bits >> (4 * q) & 15;
        // one bit to each byte
        out | (four.wrapping_mul(0x0020_4081) & 0x0101_0101) << q
    })
}

/// The inverse of [`spread`].
fn gather(bytes: u32) -> u32 {
    (0..32).fold(0, |out, k| out | (bytes >> (8 * (k % 4) + k / 4) & 1) << k)
}

/// Interleaves rows `range` of a weight into `panel`. Missing rows are zeros.
pub(super) fn pack<'a>(dtype: DType, row: impl Fn(usize) -> &'a [u8], range: Range<usize>, panel: &mut [u8]) {
    let (block, fields) = (dtype.block().1, fields(dtype));
    let count = range.len().min(PANEL);
    let mut rows: [&[u8]; PANEL] = [&[]; PANEL];
    rows.iter_mut().zip(range).for_each(|(to, i)| *to = row(i));
    if count < PANEL {
        panel.fill(0);
    }
    for (b, panel) in panel.chunks_exact_mut(PANEL * block).enumerate() {
        let mut rest = panel;
        for &field in fields {
            let (part, after) = rest.split_at_mut(PANEL * field.len());
            rest = after;
            let of = |r: usize, at: usize, len: usize| &rows[r][b * block + at..][..len];
            match field {
                Field::Half(at) => {
                    for (r, to) in part.chunks_exact_mut(2).enumerate().take(count) {
                        to.copy_from_slice(of(r, at, 2));
                    }
                }
                Field::Bytes(at, n) => {
                    for r in 0..count {
                        for (to, &byte) in part[r..].iter_mut().step_by(PANEL).zip(of(r, at, n)) {
                            *to = byte;
                        }
                    }
                }
                Field::Words(at, n) => {
                    let part = part.as_chunks_mut::<4>().0;
                    for r in 0..count {
                        let words = of(r, at, 4 * n).as_chunks::<4>().0;
                        for (to, word) in part[r..].iter_mut().step_by(PANEL).zip(words) {
                            *to = *word;
                        }
                    }
                }
                Field::Bits(at) => {
                    for (r, to) in part.as_chunks_mut::<4>().0.iter_mut().enumerate().take(count) {
                        let bits = of(r, at, 4);
                        *to = spread(u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]])).to_le_bytes();
                    }
                }
            }
        }
    }
}

/// Row `r` of a panel in the layout of the file.
fn unpack(dtype: DType, panel: &[u8], r: usize, row: &mut [u8]) {
    let (block, fields) = (dtype.block().1, fields(dtype));
    for (row, panel) in row.chunks_exact_mut(block).zip(panel.chunks_exact(PANEL * block)) {
        let mut rest = panel;
        for &field in fields {
            let (part, after) = rest.split_at(PANEL * field.len());
            rest = after;
            match field {
                Field::Half(at) => row[at..at + 2].copy_from_slice(&part[2 * r..][..2]),
                Field::Bytes(at, n) => {
                    for (to, &byte) in row[at..at + n].iter_mut().zip(part[r..].iter().step_by(PANEL)) {
                        *to = byte;
                    }
                }
                Field::Words(at, n) => {
                    let words = part.as_chunks::<4>().0[r..].iter().step_by(PANEL);
                    for (to, word) in row[at..at + 4 * n].as_chunks_mut::<4>().0.iter_mut().zip(words) {
                        *to = *word;
                    }
                }
                Field::Bits(at) => {
                    let bits = part.as_chunks::<4>().0[r];
                    row[at..at + 4].copy_from_slice(&gather(u32::from_le_bytes(bits)).to_le_bytes());
                }
            }
        }
    }
}

/// The rows of the panels of a matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Order {
    /// Rows of the matrix.
    pub(super) rows: usize,
    /// Whether panels of gate rows alternate with panels of the up rows of the same outputs.
    pub(super) gated: bool,
}

impl Order {
    pub(super) fn panels(self) -> usize {
        if self.gated { 2 * (self.rows / 2).div_ceil(PANEL) } else { self.rows.div_ceil(PANEL) }
    }

    /// Rows of panel i.
    pub(super) fn of(self, i: usize) -> Range<usize> {
        let (half, first) = if self.gated { (self.rows / 2, i % 2 * (self.rows / 2)) } else { (self.rows, 0) };
        let at = PANEL * if self.gated { i / 2 } else { i };
        first + at..first + (at + PANEL).min(half)
    }

    /// The panel that holds row `row`, and its place there.
    fn find(self, row: usize) -> (usize, usize) {
        let half = self.rows / 2;
        match self.gated {
            true if row >= half => (2 * ((row - half) / PANEL) + 1, (row - half) % PANEL),
            true => (2 * (row / PANEL), row % PANEL),
            false => (row / PANEL, row % PANEL),
        }
    }
}

/// The state of a panel: not interleaved.
const EMPTY: u8 = 0;

/// A thread interleaves the panel.
const WRITTEN: u8 = 1;

/// The panel is interleaved.
const READY: u8 = 2;

/// A matrix in panels. Panels are filled in any order, by any thread, at the latest when they are used.
pub(super) struct Panels {
    source: Weight,
    order: Order,
    states: Vec<AtomicU8>,
    /// Panels that are not READY.
    missing: AtomicUsize,
    buf: AlignedBuf,
}

impl Panels {
    /// Empty panels of a matrix.
    pub(super) fn new(source: Weight, order: Order) -> Result<Self> {
        let len = order.panels().saturating_mul(PANEL).saturating_mul(source.row_bytes());
        let buf = AlignedBuf::new(len, || format!("{}, interleaved", source.name))?;
        let states: Vec<_> = (0..order.panels()).map(|_| AtomicU8::new(EMPTY)).collect();
        Ok(Self { source, order, missing: AtomicUsize::new(states.len()), states, buf })
    }

    /// Number of panels.
    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    /// Bytes of a panel.
    fn bytes(&self) -> usize {
        PANEL * self.source.row_bytes()
    }

    /// Interleaves panel i, unless a thread does or has. With the last panel the rows of the file are released.
    pub(super) fn fill(&self, i: usize) {
        if self.states[i].compare_exchange(EMPTY, WRITTEN, Relaxed, Relaxed).is_ok() {
            // SAFETY: panel i is inside the buffer, which has `bytes` for each state. The exchange succeeds once, so this thread
            // alone writes the panel, and none reads it before it is READY.
            let panel = unsafe { std::slice::from_raw_parts_mut(self.buf.first().add(i * self.bytes()), self.bytes()) };
            self.interleave(i, panel);
            self.states[i].store(READY, Release);
            if self.missing.fetch_sub(1, Relaxed) == 1 {
                self.source.release();
            }
        }
    }

    /// Drops the rows of the file: every panel is filled.
    pub(super) fn without_source(mut self) -> Self {
        self.source = self.source.without_rows();
        self
    }

    fn interleave(&self, i: usize, panel: &mut [u8]) {
        pack(self.source.dtype, |row| self.source.row(row), self.order.of(i), panel);
    }

    fn ready(&self, i: usize) -> Option<&[u8]> {
        let ready = self.states[i].load(Acquire) == READY;
        // SAFETY: as in `fill`; nobody writes a panel that is READY, and the load orders the reads after its writes.
        ready.then(|| unsafe { std::slice::from_raw_parts(self.buf.first().add(i * self.bytes()), self.bytes()) })
    }

    /// Panel i, filled where it is not yet; interleaved into `scratch` while another thread fills it.
    pub(super) fn panel<'a>(&'a self, i: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        self.fill(i);
        self.ready(i).unwrap_or_else(|| {
            scratch.resize(self.bytes(), 0);
            self.interleave(i, scratch);
            scratch
        })
    }

    /// Writes row `row` to `out`, in the layout of the file; `out` has the bytes of a row.
    pub(super) fn row(&self, row: usize, out: &mut [u8]) {
        let (panel, place) = self.order.find(row);
        match self.ready(panel) {
            Some(panel) => unpack(self.source.dtype, panel, place, out),
            None => out.copy_from_slice(self.source.row(row)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::field::place;
    use super::*;

    #[test]
    fn rows_come_back_as_they_were() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_quantized()) {
            let row = 3 * dtype.block().1;
            for (rows, gated) in [(16, false), (37, false), (1, false), (64, true), (42, true)] {
                let bytes: Vec<u8> = (0..rows * row).map(|_| random()).collect();
                let order = Order { rows, gated };
                let block = dtype.block();
                let weight = Weight::new("test", dtype, rows, row / block.1 * block.0, bytes.clone().into());
                let panels = Panels::new(weight.expect("a matrix"), order).expect("memory");
                // the first panel is not filled
                (1..panels.len()).for_each(|i| panels.fill(i));
                let mut seen = 0;
                for (i, expected) in bytes.chunks_exact(row).enumerate() {
                    let mut found = vec![0; row];
                    panels.row(i, &mut found);
                    assert_eq!(found, expected, "{dtype}, row {i} of {rows}, gated {gated}");
                    seen += 1;
                }
                assert_eq!(seen, rows);
                let held: usize = (0..order.panels()).map(|i| order.of(i).len()).sum();
                assert_eq!(held, rows);
            }
        }
    }

    #[test]
    fn fields_cover_a_block() {
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_quantized()) {
            let fields = fields(dtype);
            assert_eq!(place(fields, fields.len()), PANEL * dtype.block().1, "{dtype}");
        }
    }
}
