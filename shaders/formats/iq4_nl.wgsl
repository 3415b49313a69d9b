// IQ4_NL: d * levels[q]. Quants: a word for eight weights. Scales: a half for 32 weights.

@group(0) @binding(2) var<storage, read> weight: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn weights(at: u32) -> Eight {
    let block = at / 4u;
    let d = half_of(scales[block / 2u], block % 2u);
    let q = weight[at];
    return Eight(d * levels(nibbles(q)), d * levels(nibbles(q >> 16u)));
}
