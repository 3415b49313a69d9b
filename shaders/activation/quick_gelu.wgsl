// y * sigmoid(1.702 y) (CLIP)

alias Outputs = vec4<f32>;

fn activated(y: vec4<f32>) -> Outputs {
    return y / (1.0 + exp(-1.702 * y));
}
