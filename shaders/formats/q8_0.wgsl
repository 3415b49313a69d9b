// Q8_0: d * q. Quants: 8 bytes for eight weights. Scales: a half for 32 weights.

@group(0) @binding(2) var<storage, read> weight: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;

fn four(q: u32) -> vec4<f32> {
    return vec4<f32>(bitcast<vec4<i32>>(vec4<u32>(q) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
}

fn weights(at: u32) -> Eight {
    let block = at / 4u;
    let d = half_of(scales[block / 2u], block % 2u);
    let q = weight[at];
    return Eight(d * four(q.x), d * four(q.y));
}
