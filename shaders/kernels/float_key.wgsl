// Shared by the kernels that sample tokens: the record of a row, and the bits of a logit as an integer of the same order. The
// constant NO_TOKEN is declared before this source.

// Words of a record, by index.
const RECORD: u32 = 12u;
const ROW: u32 = 0u;         // row of the logits
const SLOT: u32 = 1u;        // where the token is kept on the device
const EXCLUDES: u32 = 2u;    // 1 if minus infinity excludes a token; 0 if it is a fault
const TOP_K: u32 = 3u;       // 0 keeps all
const TEMPERATURE: u32 = 4u; // f32
const DROP: u32 = 5u;        // 2^32 times the share that top-p may drop
const FLOOR: u32 = 6u;       // smallest weight that min-p keeps
const DRAW: u32 = 7u;
const MASK: u32 = 8u;        // index of the mask's first word, or NO_MASK
const EDITS: u32 = 9u;       // index of the first edit's first word
const EDIT_COUNT: u32 = 10u;
const GIVEN: u32 = 11u;      // the token, if it is not sampled; else NO_TOKEN

const NO_MASK: u32 = 0xffffffffu;
const NOT_FINITE: u32 = 0xffffffffu;

// Both zeros are equal. Plus infinity and NaNs give NOT_FINITE, which is above all others; minus infinity gives 0, which is below
// all others, if it excludes a token, else NOT_FINITE.
fn float_key(bits: u32, excludes: u32) -> u32 {
    if ((bits & 0x7f800000u) == 0x7f800000u) {
        return select(NOT_FINITE, 0u, bits == 0xff800000u && excludes == 1u);
    }
    if (bits == 0x80000000u) {
        return 0x80000000u;
    }
    return select(bits ^ 0x80000000u, ~bits, bits > 0x80000000u);
}
