//! The quantised types as the integer kernel reads them: elements as bytes, scales as f32, of a panel's rows.
//!
//! A type is a list of fields (in [`panel`](super::repack)) and an implementation of [`QuantBlock`] here.

use super::int_simd::IntSimd;
use super::repack::{self, PANEL, place};
use crate::quant::IQ4_VALUES;

/// A quantised type in panels.
///
/// A row's element is `scale * (code - ZERO_POINT) + min`, with a scale (and a minimum) for a unit of 32 elements, or for each
/// half of one.
///
/// # Safety
///
/// `block` points at a panel's block of the type, `part` is below `PANEL / L::ROWS`, `unit` below `UNITS`.
pub(super) unsafe trait QuantBlock: 'static {
    /// Bytes of a panel's block.
    const BYTES: usize;
    /// Units of 32 elements in a block.
    const UNITS: usize;
    /// Whether codes are signed; they went through [`IntSimd::biased`] then. QuantBlock without a sign are below 64.
    const SIGNED: bool = false;
    /// What codes stand too high.
    const ZERO_POINT: i32 = 0;
    /// Whether each half of a unit has a scale of its own.
    const SIXTEENS: bool = false;
    /// Whether there are minima.
    const MINIMA: bool = false;

    /// Scale and minimum of a whole block.
    unsafe fn head<L: IntSimd>(block: *const u8, part: usize) -> [L::F; 2];
    /// The eight quads of a unit, of the rows of `part`.
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, unit: usize) -> [L::I; 8];
    /// Scale and minimum of half `half` of a unit; of all of it where halves share.
    unsafe fn scale<L: IntSimd>(head: [L::F; 2], block: *const u8, part: usize, unit: usize, half: usize) -> [L::F; 2];
}

/// Where `part` of field `i` begins, of `width` bytes for each row.
#[inline(always)]
unsafe fn field<L: IntSimd>(
    block: *const u8,
    fields: &[repack::Field],
    i: usize,
    part: usize,
    width: usize,
) -> *const u8 {
    // SAFETY: a field lies in the block.
    unsafe { block.add(place(fields, i) + part * L::ROWS * width) }
}

/// Quad j of a field of quads.
#[inline(always)]
unsafe fn quad<L: IntSimd>(quads: *const u8, j: usize) -> L::I {
    // SAFETY: the caller's.
    unsafe { L::load(quads.add(4 * PANEL * j)) }
}

/// Byte j of a field of bytes, from every row.
#[inline(always)]
unsafe fn byte<L: IntSimd>(bytes: *const u8, j: usize) -> L::I {
    // SAFETY: the caller's.
    unsafe { L::bytes(bytes.add(PANEL * j)) }
}

/// Four quads whose low halves are a unit's first sixteen elements and whose high halves the others.
#[inline(always)]
unsafe fn nibbles<L: IntSimd>(quads: *const u8) -> [L::I; 8] {
    // SAFETY: the caller's.
    unsafe {
        let q = [quad::<L>(quads, 0), quad::<L>(quads, 1), quad::<L>(quads, 2), quad::<L>(quads, 3)];
        let (low, high) = (|v| L::and(v, 15), |v| L::and(L::shr(v, 4), 15));
        [low(q[0]), low(q[1]), low(q[2]), low(q[3]), high(q[0]), high(q[1]), high(q[2]), high(q[3])]
    }
}

/// Eight quads from the bits `shift ..` of eight.
#[inline(always)]
unsafe fn bits<L: IntSimd>(quads: *const u8, shift: usize, mask: u8) -> [L::I; 8] {
    // SAFETY: the caller's.
    unsafe {
        let mut out = [L::splat(0); 8];
        for (j, out) in out.iter_mut().enumerate() {
            *out = L::and(L::shr(quad::<L>(quads, j), shift), mask);
        }
        out
    }
}

/// `low` with the bits of `high` above, from `shift` on.
#[inline(always)]
unsafe fn above<L: IntSimd>(low: [L::I; 8], high: [L::I; 8], shift: usize) -> [L::I; 8] {
    // SAFETY: the caller's.
    unsafe {
        let mut out = low;
        for (out, high) in out.iter_mut().zip(high) {
            *out = L::or(*out, L::shl(high, shift));
        }
        out
    }
}

#[inline(always)]
unsafe fn from_table<L: IntSimd>(mut nibbles: [L::I; 8]) -> [L::I; 8] {
    // SAFETY: the caller's.
    unsafe {
        for quad in &mut nibbles {
            *quad = L::biased(L::lookup(*quad, &IQ4_VALUES));
        }
    }
    nibbles
}

/// A block's scale, and a minimum where field 1 is one.
#[inline(always)]
unsafe fn halves<L: IntSimd>(block: *const u8, part: usize, min: bool) -> [L::F; 2] {
    // SAFETY: the caller's.
    unsafe {
        let d = L::halves(block.add(part * L::ROWS * 2));
        [d, if min { L::halves(block.add(2 * PANEL + part * L::ROWS * 2)) } else { L::splat_f32(0.0) }]
    }
}

/// A block's scale and the negative of its minimum, which K types subtract.
#[inline(always)]
unsafe fn halves_negative<L: IntSimd>(block: *const u8, part: usize) -> [L::F; 2] {
    // SAFETY: the caller's.
    unsafe {
        let [d, min] = halves::<L>(block, part, true);
        [d, L::mul(min, L::splat_f32(-1.0))]
    }
}

/// Blocks of one unit, whose head is its scale.
macro_rules! simple {
    ($(#[$doc:meta])* $name:ident, $fields:expr, { $($consts:item)* }, |$L:ident, $block:ident, $part:ident| $codes:expr) => {
        $(#[$doc])*
        pub(super) struct $name;

        // SAFETY: reads the fields of a panel's block.
        unsafe impl QuantBlock for $name {
            const BYTES: usize = place($fields, $fields.len());
            const UNITS: usize = 1;
            $($consts)*

            #[inline(always)]
            unsafe fn head<L: IntSimd>(block: *const u8, part: usize) -> [L::F; 2] {
                // SAFETY: the caller's.
                unsafe { halves::<L>(block, part, Self::MINIMA) }
            }

            #[inline(always)]
            unsafe fn quants<$L: IntSimd>($block: *const u8, $part: usize, _unit: usize) -> [$L::I; 8] {
                // SAFETY: the caller's.
                unsafe { $codes }
            }

            #[inline(always)]
            unsafe fn scale<L: IntSimd>(head: [L::F; 2], _: *const u8, _: usize, _: usize, _: usize) -> [L::F; 2] {
                head
            }
        }
    };
}

simple!(
    Q8_0,
    repack::Q8_0,
    {
        const SIGNED: bool = true;
    },
    |L, block, part| {
        let quads = field::<L>(block, repack::Q8_0, 1, part, 4);
        let mut out = [L::splat(0); 8];
        for (j, out) in out.iter_mut().enumerate() {
            *out = L::biased(quad::<L>(quads, j));
        }
        out
    }
);

simple!(
    Q4_0,
    repack::Q4_0,
    {
        const ZERO_POINT: i32 = 8;
    },
    |L, block, part| nibbles::<L>(field::<L>(block, repack::Q4_0, 1, part, 4))
);

simple!(
    Q4_1,
    repack::Q4_1,
    {
        const MINIMA: bool = true;
    },
    |L, block, part| nibbles::<L>(field::<L>(block, repack::Q4_1, 2, part, 4))
);

simple!(
    Q5_0,
    repack::Q5_0,
    {
        const ZERO_POINT: i32 = 16;
    },
    |L, block, part| {
        let low = nibbles::<L>(field::<L>(block, repack::Q5_0, 2, part, 4));
        fifths::<L>(low, field::<L>(block, repack::Q5_0, 1, part, 4))
    }
);

simple!(
    Q5_1,
    repack::Q5_1,
    {
        const MINIMA: bool = true;
    },
    |L, block, part| {
        let low = nibbles::<L>(field::<L>(block, repack::Q5_1, 3, part, 4));
        fifths::<L>(low, field::<L>(block, repack::Q5_1, 2, part, 4))
    }
);

simple!(
    Iq4Nl,
    repack::IQ4_NL,
    {
        const SIGNED: bool = true;
    },
    |L, block, part| from_table::<L>(nibbles::<L>(field::<L>(block, repack::IQ4_NL, 1, part, 4)))
);

/// Fifth bits, of which bit q of each byte belongs to quad q.
#[inline(always)]
unsafe fn fifths<L: IntSimd>(low: [L::I; 8], field: *const u8) -> [L::I; 8] {
    // SAFETY: the caller's.
    unsafe {
        let high = L::load(field);
        let mut bits = [high; 8];
        for (q, bits) in bits.iter_mut().enumerate() {
            *bits = L::and(L::shr(high, q), 1);
        }
        above::<L>(low, bits, 4)
    }
}

/// Scale `j` and minimum `j` of twelve bytes; see `scale_min` of the type's decoder.
#[inline(always)]
unsafe fn scale_min<L: IntSimd>(head: [L::F; 2], packed: *const u8, j: usize) -> [L::F; 2] {
    // SAFETY: twelve bytes of every row.
    unsafe {
        let (scale, min) = if j < 4 {
            (L::and(byte::<L>(packed, j), 63), L::and(byte::<L>(packed, j + 4), 63))
        } else {
            let (low, scale, min) = (byte::<L>(packed, j + 4), byte::<L>(packed, j - 4), byte::<L>(packed, j));
            let top = |v| L::shl(L::and(L::shr(v, 6), 3), 4);
            (L::or(L::and(low, 15), top(scale)), L::or(L::and(L::shr(low, 4), 15), top(min)))
        };
        [L::mul(head[0], L::to_f32(scale)), L::mul(head[1], L::to_f32(min))]
    }
}

pub(super) struct Q4K;

// SAFETY: reads the fields of a panel's block.
unsafe impl QuantBlock for Q4K {
    const BYTES: usize = place(repack::Q4_K, repack::Q4_K.len());
    const UNITS: usize = 8;
    const MINIMA: bool = true;

    #[inline(always)]
    unsafe fn head<L: IntSimd>(block: *const u8, part: usize) -> [L::F; 2] {
        // SAFETY: the caller's.
        unsafe { halves_negative::<L>(block, part) }
    }

    #[inline(always)]
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, unit: usize) -> [L::I; 8] {
        // SAFETY: the caller's.
        unsafe {
            let quads = field::<L>(block, repack::Q4_K, 3, part, 4).add(4 * PANEL * 8 * (unit / 2));
            bits::<L>(quads, 4 * (unit % 2), 15)
        }
    }

    #[inline(always)]
    unsafe fn scale<L: IntSimd>(head: [L::F; 2], block: *const u8, part: usize, unit: usize, _: usize) -> [L::F; 2] {
        // SAFETY: the caller's.
        unsafe { scale_min::<L>(head, field::<L>(block, repack::Q4_K, 2, part, 1), unit) }
    }
}

pub(super) struct Q5K;

// SAFETY: reads the fields of a panel's block.
unsafe impl QuantBlock for Q5K {
    const BYTES: usize = place(repack::Q5_K, repack::Q5_K.len());
    const UNITS: usize = 8;
    const MINIMA: bool = true;

    #[inline(always)]
    unsafe fn head<L: IntSimd>(block: *const u8, part: usize) -> [L::F; 2] {
        // SAFETY: the caller's.
        unsafe { halves_negative::<L>(block, part) }
    }

    #[inline(always)]
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, unit: usize) -> [L::I; 8] {
        // SAFETY: the caller's.
        unsafe {
            let quads = field::<L>(block, repack::Q5_K, 4, part, 4).add(4 * PANEL * 8 * (unit / 2));
            let fifth = bits::<L>(field::<L>(block, repack::Q5_K, 3, part, 4), unit, 1);
            above::<L>(bits::<L>(quads, 4 * (unit % 2), 15), fifth, 4)
        }
    }

    #[inline(always)]
    unsafe fn scale<L: IntSimd>(head: [L::F; 2], block: *const u8, part: usize, unit: usize, _: usize) -> [L::F; 2] {
        // SAFETY: the caller's.
        unsafe { scale_min::<L>(head, field::<L>(block, repack::Q5_K, 2, part, 1), unit) }
    }
}

pub(super) struct Q6K;

// SAFETY: reads the fields of a panel's block.
unsafe impl QuantBlock for Q6K {
    const BYTES: usize = place(repack::Q6_K, repack::Q6_K.len());
    const UNITS: usize = 8;
    const ZERO_POINT: i32 = 32;
    const SIXTEENS: bool = true;

    #[inline(always)]
    unsafe fn head<L: IntSimd>(block: *const u8, part: usize) -> [L::F; 2] {
        // SAFETY: the caller's.
        unsafe { halves::<L>(block, part, false) }
    }

    #[inline(always)]
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, unit: usize) -> [L::I; 8] {
        // SAFETY: the caller's.
        unsafe {
            let (upper, pair) = (unit / 4, unit % 4);
            let low = field::<L>(block, repack::Q6_K, 2, part, 4).add(4 * PANEL * (16 * upper + 8 * (pair % 2)));
            let high = field::<L>(block, repack::Q6_K, 3, part, 4).add(4 * PANEL * 8 * upper);
            above::<L>(bits::<L>(low, 4 * (pair / 2), 15), bits::<L>(high, 2 * pair, 3), 4)
        }
    }

    #[inline(always)]
    unsafe fn scale<L: IntSimd>(head: [L::F; 2], block: *const u8, part: usize, unit: usize, half: usize) -> [L::F; 2] {
        // SAFETY: the caller's.
        unsafe {
            let scales = field::<L>(block, repack::Q6_K, 1, part, 1);
            [L::mul(head[0], L::to_f32(L::signed_bytes(scales.add(PANEL * (2 * unit + half))))), head[1]]
        }
    }
}

pub(super) struct Q2K;

// SAFETY: reads the fields of a panel's block.
unsafe impl QuantBlock for Q2K {
    const BYTES: usize = place(repack::Q2_K, repack::Q2_K.len());
    const UNITS: usize = 8;
    const SIXTEENS: bool = true;
    const MINIMA: bool = true;

    #[inline(always)]
    unsafe fn head<L: IntSimd>(block: *const u8, part: usize) -> [L::F; 2] {
        // SAFETY: the caller's.
        unsafe { halves_negative::<L>(block, part) }
    }

    #[inline(always)]
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, unit: usize) -> [L::I; 8] {
        // SAFETY: the caller's.
        unsafe {
            let quads = field::<L>(block, repack::Q2_K, 3, part, 4).add(4 * PANEL * 8 * (unit / 4));
            bits::<L>(quads, 2 * (unit % 4), 3)
        }
    }

    #[inline(always)]
    unsafe fn scale<L: IntSimd>(head: [L::F; 2], block: *const u8, part: usize, unit: usize, half: usize) -> [L::F; 2] {
        // SAFETY: the caller's.
        unsafe {
            let packed = byte::<L>(field::<L>(block, repack::Q2_K, 2, part, 1), 2 * unit + half);
            let (scale, min) = (L::and(packed, 15), L::and(L::shr(packed, 4), 15));
            [L::mul(head[0], L::to_f32(scale)), L::mul(head[1], L::to_f32(min))]
        }
    }
}

pub(super) struct Q3K;

// SAFETY: reads the fields of a panel's block.
unsafe impl QuantBlock for Q3K {
    const BYTES: usize = place(repack::Q3_K, repack::Q3_K.len());
    const UNITS: usize = 8;
    const ZERO_POINT: i32 = 4;
    const SIXTEENS: bool = true;

    #[inline(always)]
    unsafe fn head<L: IntSimd>(block: *const u8, part: usize) -> [L::F; 2] {
        // SAFETY: the caller's.
        unsafe { halves::<L>(block, part, false) }
    }

    #[inline(always)]
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, unit: usize) -> [L::I; 8] {
        // SAFETY: the caller's.
        unsafe {
            let quads = field::<L>(block, repack::Q3_K, 3, part, 4).add(4 * PANEL * 8 * (unit / 4));
            let third = bits::<L>(field::<L>(block, repack::Q3_K, 2, part, 4), unit, 1);
            above::<L>(bits::<L>(quads, 2 * (unit % 4), 3), third, 2)
        }
    }

    #[inline(always)]
    unsafe fn scale<L: IntSimd>(head: [L::F; 2], block: *const u8, part: usize, unit: usize, half: usize) -> [L::F; 2] {
        // SAFETY: the caller's.
        unsafe {
            let (packed, group) = (field::<L>(block, repack::Q3_K, 1, part, 1), 2 * unit + half);
            let low = L::and(L::shr(byte::<L>(packed, group % 8), 4 * (group / 8)), 15);
            let high = L::and(L::shr(byte::<L>(packed, 8 + group % 4), 2 * (group / 4)), 3);
            let scale = L::add(L::or(low, L::shl(high, 4)), L::splat(-32));
            [L::mul(head[0], L::to_f32(scale)), head[1]]
        }
    }
}

pub(super) struct Iq4Xs;

// SAFETY: reads the fields of a panel's block.
unsafe impl QuantBlock for Iq4Xs {
    const BYTES: usize = place(repack::IQ4_XS, repack::IQ4_XS.len());
    const UNITS: usize = 8;
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn head<L: IntSimd>(block: *const u8, part: usize) -> [L::F; 2] {
        // SAFETY: the caller's.
        unsafe { halves::<L>(block, part, false) }
    }

    #[inline(always)]
    unsafe fn quants<L: IntSimd>(block: *const u8, part: usize, unit: usize) -> [L::I; 8] {
        // SAFETY: the caller's.
        unsafe {
            from_table::<L>(nibbles::<L>(field::<L>(block, repack::IQ4_XS, 2, part, 4).add(4 * PANEL * 4 * unit)))
        }
    }

    #[inline(always)]
    unsafe fn scale<L: IntSimd>(head: [L::F; 2], block: *const u8, part: usize, unit: usize, _: usize) -> [L::F; 2] {
        // SAFETY: the caller's.
        unsafe {
            let packed = field::<L>(block, repack::IQ4_XS, 1, part, 1);
            let high = L::and(L::shr(byte::<L>(packed, unit / 4), 2 * (unit % 4)), 3);
            let low = L::and(L::shr(byte::<L>(packed, 2 + unit / 2), 4 * (unit % 2)), 15);
            let scale = L::add(L::or(low, L::shl(high, 4)), L::splat(-32));
            [L::mul(head[0], L::to_f32(scale)), head[1]]
        }
    }
}
