//! Transposition of sixteen rows of a weight of half precision.

use super::field::PANEL;
use super::plain::Weights;
use std::arch::x86_64::*;
use std::ops::Range;

/// Bytes of 32 halves.
const LINE: usize = 64;

/// Elements `k .. k + 32` of `rows`, sixteen at most: register p holds elements 2p and 2p + 1 of every row. Missing rows and
/// elements are zeros.
///
/// # Safety
///
/// The features of this function are available; the weight has these rows, of two bytes an element.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn rows_of_half(w: Weights<'_>, rows: Range<usize>, k: usize) -> [__m512i; 16] {
    let bytes = w.0.cols * 2;
    let (from, count) = (k * 2, rows.len().min(PANEL));
    let mut lines = [_mm512_setzero_si512(); PANEL];
    for (line, row) in lines.iter_mut().zip(rows.take(count)) {
        let row = w.0.row(row);
        // SAFETY: the mask has a bit for each element that is left in the row; masked elements are not read.
        *line = unsafe {
            let present = (bytes - from.min(bytes)).min(LINE) / 2;
            let mask = ((1u64 << present) - 1) as u32;
            _mm512_maskz_loadu_epi16(mask, row.as_ptr().wrapping_add(from).cast())
        };
    }
    transposed(lines)
}

/// Transposes registers: lane i of register j moves to lane j of register i.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]
fn transposed(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut a = rows;
    for i in 0..8 {
        a[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // of four rows, the columns 4c + j of group c are in register j
    let mut b = a;
    for i in 0..4 {
        for j in 0..2 {
            b[4 * i + 2 * j] = _mm512_unpacklo_epi64(a[4 * i + j], a[4 * i + j + 2]);
            b[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(a[4 * i + j], a[4 * i + j + 2]);
        }
    }
    let mut out = b;
    for j in 0..4 {
        // groups 0 and 2, then 1 and 3, of rows 0 to 7 and 8 to 15
        let low = _mm512_shuffle_i32x4::<0x88>(b[j], b[4 + j]);
        let odd = _mm512_shuffle_i32x4::<0xdd>(b[j], b[4 + j]);
        let low_8 = _mm512_shuffle_i32x4::<0x88>(b[8 + j], b[12 + j]);
        let odd_8 = _mm512_shuffle_i32x4::<0xdd>(b[8 + j], b[12 + j]);
        out[j] = _mm512_shuffle_i32x4::<0x88>(low, low_8);
        out[8 + j] = _mm512_shuffle_i32x4::<0xdd>(low, low_8);
        out[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd, odd_8);
        out[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd, odd_8);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bytes, DType, Weight};

    #[test]
    fn elements_stand_where_they_should() {
        if !crate::cpu::Isa::Avx512.available() {
            println!("skipped: this processor has no AVX-512");
            return;
        }
        let (rows, cols) = (21, 43);
        let bytes: Vec<u8> = (0..rows * cols).flat_map(|i| (i as u16).to_le_bytes()).collect();
        let weight = Weight::new("w", DType::Bf16, rows, cols, Bytes::from(bytes)).unwrap();
        let w = Weights(&weight);
        for (taken, k) in [(0..16, 0), (16..21, 32), (3..19, 32), (5..6, 0)] {
            // SAFETY: AVX-512 is available (checked above), and the rows are those of the weight.
            let pairs = unsafe { rows_of_half(w, taken.clone(), k) };
            for (p, pair) in pairs.into_iter().enumerate() {
                // SAFETY: both types are 512 bits, of which any pattern is valid.
                let lanes: [u32; 16] = unsafe { std::mem::transmute(pair) };
                for (r, lane) in lanes.into_iter().enumerate() {
                    let element = |k: usize| if r < taken.len() && k < cols { (taken.start + r) * cols + k } else { 0 };
                    let expected = (element(k + 2 * p + 1) as u32) << 16 | element(k + 2 * p) as u32;
                    assert_eq!(lane, expected, "row {r}, pair {p} of {taken:?} from {k}");
                }
            }
        }
    }
}
