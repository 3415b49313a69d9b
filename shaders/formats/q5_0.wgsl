// Q5_0: d * (q - 16). Quants, for 128 weights: 16 words of low halves, then 4 words of fifth bits. Scales: a half for 32
// weights.

@group(0) @binding(2) var<storage, read> weight: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn weights(at: u32) -> Eight {
    let block = at / 4u;
    let d = half_of(scales[block / 2u], block % 2u);
    let start = at / 16u * 20u;
    let q = weight[start + at % 16u];
    let fifth = weight[start + 16u + block % 4u] >> (at % 4u * 8u);
    return Eight(
        d * (vec4<f32>(nibbles(q) | (bits(fifth) << vec4<u32>(4u))) - 16.0),
        d * (vec4<f32>(nibbles(q >> 16u) | (bits(fifth >> 4u) << vec4<u32>(4u))) - 16.0),
    );
}
