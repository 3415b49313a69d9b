// Shared by the kernels that choose tokens: the bits of a logit as a number that grows with it. The constant NO_TOKEN stands
// before this text.

const NOT_FINITE: u32 = 0xffffffffu;

// Both zeros are the same; above all others is what is not finite. No finite number gives 0.
fn order(bits: u32) -> u32 {
    if ((bits & 0x7f800000u) == 0x7f800000u) {
        return NOT_FINITE;
    }
    if (bits == 0x80000000u) {
        return 0x80000000u;
    }
    return select(bits ^ 0x80000000u, ~bits, bits > 0x80000000u);
}
