// Weights in single precision: 32 bytes are eight weights.

@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;

fn weights(at: u32) -> Eight {
    return Eight(weight[2u * at], weight[2u * at + 1u]);
}
