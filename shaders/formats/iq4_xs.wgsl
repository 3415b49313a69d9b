// IQ4_XS: d * (scale - 32) * levels[q], of 32 weights each. Quants: a word for eight weights. Scales, for 256 weights: a
// half d, the upper pairs of bits of 8 scales, then their low halves.

@group(0) @binding(2) var<storage, read> weight: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<vec2<u32>>;

fn weights(at: u32) -> Eight {
    let group = at % 32u / 4u;
    let codes = scales[at / 32u];
    let scale = ((codes.y >> (group * 4u)) & 15u) | (((codes.x >> (16u + group * 2u)) & 3u) << 4u);
    let d = unpack2x16float(codes.x).x * (f32(scale) - 32.0);
    let q = weight[at];
    return Eight(d * levels(nibbles(q)), d * levels(nibbles(q >> 16u)));
}
