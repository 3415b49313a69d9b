// Q3_K: d * (scale - 32) * (q - 4), of 16 weights each. Quants, for 128 weights: 8 words of low pairs of bits, then 4
// words of third bits. Scales, for two blocks of 256 weights: three words each (the low halves of 16 scales, then their
// upper pairs of bits), then a half d each.

@group(0) @binding(2) var<storage, read> weight: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn weights(at: u32) -> Eight {
    let block = at / 32u;
    let group = at % 32u / 2u;
    let pair = block / 2u * 7u;
    let codes = pair + block % 2u * 3u;
    let low = (scales[codes + group / 8u] >> (group % 8u * 4u)) & 15u;
    let high = (scales[codes + 2u] >> (group * 2u)) & 3u;
    let d = half_of(scales[pair + 6u], block % 2u) * (f32(low | (high << 4u)) - 32.0);

    let start = at / 16u * 12u;
    let q = weight[start + at % 16u / 2u] >> (at % 2u * 16u);
    let third = weight[start + 8u + at % 16u / 4u] >> (at % 4u * 8u);
    return Eight(
        d * (vec4<f32>(pairs(q) | (bits(third) << vec4<u32>(2u))) - 4.0),
        d * (vec4<f32>(pairs(q >> 8u) | (bits(third >> 4u) << vec4<u32>(2u))) - 4.0),
    );
}
