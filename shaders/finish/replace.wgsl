// out = y

struct Finish {
    stride: u32, // of out, in vec4
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

fn finish(row: u32, n: u32, y: vec4<f32>) {
    out[row * params.finish.stride + n / 4u] = y;
}
