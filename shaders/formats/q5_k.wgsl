// Q5_K: d * scale * q - m * offset, of 32 weights each. Quants, for 128 weights: 16 words of low halves, then 4 words of
// fifth bits. Scales, for 256 weights: halves d and m; the low halves of 8 scales; of 8 offsets; the upper pairs of bits of
// the scales, then of the offsets.

@group(0) @binding(2) var<storage, read> weight: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<vec4<u32>>;

fn weights(at: u32) -> Eight {
    let group = at % 32u / 4u;
    let codes = scales[at / 32u];
    let low = (codes.yz >> vec2<u32>(group * 4u)) & vec2<u32>(15u);
    let high = (codes.ww >> vec2<u32>(group * 2u, group * 2u + 16u)) & vec2<u32>(3u);
    let s = unpack2x16float(codes.x) * vec2<f32>(low | (high << vec2<u32>(4u)));
    let start = at / 16u * 20u;
    let q = weight[start + at % 16u];
    let fifth = weight[start + 16u + at % 16u / 4u] >> (at % 4u * 8u);
    return Eight(
        s.x * vec4<f32>(nibbles(q) | (bits(fifth) << vec4<u32>(4u))) - s.y,
        s.x * vec4<f32>(nibbles(q >> 16u) | (bits(fifth >> 4u) << vec4<u32>(4u))) - s.y,
    );
}
