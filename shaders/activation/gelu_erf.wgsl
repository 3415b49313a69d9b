// y / 2 * (1 + erf(y / sqrt(2))) (GELU, arXiv:1606.08415); erf to 1.5e-7 by Abramowitz and Stegun, 7.1.26

alias Outputs = vec4<f32>;

fn activated(y: vec4<f32>) -> Outputs {
    let x = abs(y) * 0.70710678;
    let t = 1.0 / (1.0 + 0.3275911 * x);
    let tail = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t * exp(-x * x);
    // a negative y takes 1 - erf(x) = tail directly, without cancellation
    return 0.5 * y * select(2.0 - tail, tail, y < vec4<f32>());
}
