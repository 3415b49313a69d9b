// y

alias Outputs = vec4<f32>;

fn activated(y: vec4<f32>) -> Outputs {
    return y;
}
