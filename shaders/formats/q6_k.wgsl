// Q6_K: d * scale * (q - 32), of 16 weights each. Quants, for 64 weights: 8 words of low halves, then 4 words of upper pairs
// of bits. Scales, for two blocks of 256 weights: 16 signed bytes each, then a half d each.

@group(0) @binding(2) var<storage, read> weight: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn weights(at: u32) -> Eight {
    let block = at / 32u;
    let group = at % 32u / 2u;
    let pair = block / 2u * 9u;
    let scale = signed_byte(scales[pair + block % 2u * 4u + group / 4u], group % 4u);
    let d = half_of(scales[pair + 8u], block % 2u) * f32(scale);

    let start = at / 8u * 12u;
    let q = weight[start + at % 8u];
    let high = weight[start + 8u + at % 8u / 2u] >> (at % 2u * 16u);
    return Eight(
        d * (vec4<f32>(nibbles(q) | (pairs(high) << vec4<u32>(4u))) - 32.0),
        d * (vec4<f32>(nibbles(q >> 16u) | (pairs(high >> 8u) << vec4<u32>(4u))) - 32.0),
    );
}
