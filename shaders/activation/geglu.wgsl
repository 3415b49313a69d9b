// quick_gelu(gate) * (up + 1) (gegelu of Phi-3-small), where the weight's rows alternate: gate 0, up 0, gate 1, up 1, ...
// The gate is clamped to at most `limit`, up to -limit ..= limit; infinities are not clamped.

alias Outputs = vec2<f32>;

const INFINITE: vec2<f32> = vec2<f32>(3.4e38);

fn activated(y: vec4<f32>) -> Outputs {
    let limit = vec2<f32>(params.epilogue.limit);
    let gate = select(min(y.xz, limit), y.xz, abs(y.xz) > INFINITE);
    let up = select(clamp(y.yw, -limit, limit), y.yw, abs(y.yw) > INFINITE);
    return gate / (1.0 + exp(-1.702 * gate)) * (up + 1.0);
}
