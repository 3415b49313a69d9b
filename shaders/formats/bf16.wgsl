// Weights as the upper halves of singles: 16 bytes are eight weights. Exact.

@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;

fn two(q: u32) -> vec2<f32> {
    return vec2<f32>(bitcast<f32>(q << 16u), bitcast<f32>(q & 0xffff0000u));
}

fn weights(at: u32) -> Eight {
    let q = weight[at];
    return Eight(vec4<f32>(two(q.x), two(q.y)), vec4<f32>(two(q.z), two(q.w)));
}
