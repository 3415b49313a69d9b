// silu(gate) * up, where the weight's rows alternate: gate 0, up 0, gate 1, up 1, ... (SwiGLU, arXiv:2002.05202)

alias Outputs = vec2<f32>;

fn activated(y: vec4<f32>) -> Outputs {
    let gate = y.xz;
    return gate / (1.0 + exp(-gate)) * y.yw;
}
