// out = silu(gate) * up, where the weight's rows alternate: gate 0, up 0, gate 1, up 1, ... (SwiGLU, arXiv:2002.05202)

struct Finish {
    stride: u32, // of out, in vec2
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(5) var<storage, read_write> out: array<vec2<f32>>;

fn finish(row: u32, n: u32, y: vec4<f32>) {
    let gate = y.xz;
    out[row * params.finish.stride + n / 4u] = gate / (1.0 + exp(-gate)) * y.yw;
}
