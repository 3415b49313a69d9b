// RMSNorm in front of a projection (arXiv:1910.07467). The kernel multiplies by the gain as it loads, sums the squares
// in the same loop, and scales the finished sums: w . norm(x) = inverse_rms * sum(w * gain * x).

const NORMED: bool = true;

@group(0) @binding(4) var<storage, read> gain: array<vec4<f32>>;

fn gained(x: vec4<f32>, at: u32) -> vec4<f32> {
    return x * gain[at];
}

fn inverse_rms(squares: f32) -> f32 {
    return inverseSqrt(squares / f32(params.cols) + params.eps);
}
