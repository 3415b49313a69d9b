// y / 2 * (1 + tanh(z)) with z = sqrt(2 / pi) * (y + 0.044715 y^3), which is y * sigmoid(2z) (GELU, arXiv:1606.08415)

alias Outputs = vec4<f32>;

fn activated(y: vec4<f32>) -> Outputs {
    return y / (1.0 + exp(-1.5957691216 * (y + 0.044715 * y * y * y)));
}
