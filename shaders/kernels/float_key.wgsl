// Shared by the kernels that sample tokens: the bits of a logit as an integer of the same order. The constant NO_TOKEN is
// declared before this source.

const NOT_FINITE: u32 = 0xffffffffu;

// Both zeros are equal. Infinities and NaNs give NOT_FINITE, which is above all others. No number gives 0.
fn float_key(bits: u32) -> u32 {
    if ((bits & 0x7f800000u) == 0x7f800000u) {
        return NOT_FINITE;
    }
    if (bits == 0x80000000u) {
        return 0x80000000u;
    }
    return select(bits ^ 0x80000000u, ~bits, bits > 0x80000000u);
}
