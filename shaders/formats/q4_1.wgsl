// Q4_1: d * q + m. Quants: a word for eight weights. Scales: halves d and m for 32 weights.

@group(0) @binding(2) var<storage, read> weight: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn weights(at: u32) -> Eight {
    let s = unpack2x16float(scales[at / 4u]);
    let q = weight[at];
    return Eight(s.x * vec4<f32>(nibbles(q)) + s.y, s.x * vec4<f32>(nibbles(q >> 16u)) + s.y);
}
