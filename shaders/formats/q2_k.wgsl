// Q2_K: d * scale * q - m * offset, of 16 weights each. Quants: half a word for eight weights. Scales, for 256 weights:
// halves d and m, then 16 bytes, each with a scale in its low half and an offset in its high half.

@group(0) @binding(2) var<storage, read> weight: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn weights(at: u32) -> Eight {
    let start = at / 32u * 5u;
    let group = at % 32u / 2u;
    let code = scales[start + 1u + group / 4u] >> (group % 4u * 8u);
    let s = unpack2x16float(scales[start]) * vec2<f32>(f32(code & 15u), f32((code >> 4u) & 15u));
    let q = weight[at / 2u] >> (at % 2u * 16u);
    return Eight(s.x * vec4<f32>(pairs(q)) - s.y, s.x * vec4<f32>(pairs(q >> 8u)) - s.y);
}
