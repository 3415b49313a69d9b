// Sortable key of a logit: a whole number that grows with it, from its bits. The kernels that sample tokens share it. The
// constant NO_TOKEN stands before this text.

const NOT_FINITE: u32 = 0xffffffffu;

// Both zeros have the same key. Numbers that are not finite have the largest. No finite number has key 0.
fn float_key(bits: u32) -> u32 {
    if ((bits & 0x7f800000u) == 0x7f800000u) {
        return NOT_FINITE;
    }
    if (bits == 0x80000000u) {
        return 0x80000000u;
    }
    return select(bits ^ 0x80000000u, ~bits, bits > 0x80000000u);
}
