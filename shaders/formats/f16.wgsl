// Weights in half precision: 16 bytes are eight weights. Exact, and needs no f16 arithmetic.

@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;

fn weights(at: u32) -> Eight {
    let q = weight[at];
    return Eight(
        vec4<f32>(unpack2x16float(q.x), unpack2x16float(q.y)),
        vec4<f32>(unpack2x16float(q.z), unpack2x16float(q.w)),
    );
}
