// Q4_K: d * scale * q - m * offset, of 32 weights each. Quants: a word for eight weights. Scales, for 256 weights: halves d
// and m; the low halves of 8 scales; of 8 offsets; the upper pairs of bits of the scales, then of the offsets.

@group(0) @binding(2) var<storage, read> weight: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<vec4<u32>>;

fn weights(at: u32) -> Eight {
    let group = at % 32u / 4u;
    let codes = scales[at / 32u];
    let low = (codes.yz >> vec2<u32>(group * 4u)) & vec2<u32>(15u);
    let high = (codes.ww >> vec2<u32>(group * 2u, group * 2u + 16u)) & vec2<u32>(3u);
    let s = unpack2x16float(codes.x) * vec2<f32>(low | (high << vec2<u32>(4u)));
    let q = weight[at];
    return Eight(s.x * vec4<f32>(nibbles(q)) - s.y, s.x * vec4<f32>(nibbles(q >> 16u)) - s.y);
}
