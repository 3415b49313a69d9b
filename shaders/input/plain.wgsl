// Input of a projection without a norm.

const NORMED: bool = false;

fn gained(x: vec4<f32>, at: u32) -> vec4<f32> {
    return x;
}

fn inverse_rms(squares: f32) -> f32 {
    return 1.0;
}
