// A projection without a bias.

fn biased(n: u32, y: vec4<f32>) -> vec4<f32> {
    return y;
}
