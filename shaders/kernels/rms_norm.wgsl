// out = x * gain / sqrt(mean(x^2) + eps)   (arXiv:1910.07467)
//
// Shapes: x and out [rows, 4 * stride], gain [4 * stride]; all are zero from cols on, so that out is as well.
// Grid: one workgroup per row, folded.

struct Params {
    rows: u32,
    cols: u32,
    stride: u32, // of x and of out, in vec4
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> gain: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

const THREADS: u32 = 256u;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, thread: Thread) {
    let t = thread.t;
    let row = folded(group);
    if (row >= params.rows) {
        return;
    }
    let start = row * params.stride;
    var sum = 0.0;
    for (var k = t; k < params.stride; k += THREADS) {
        let v = x[start + k];
        sum += dot(v, v);
    }
    let inverse = inverseSqrt(all_sum(thread, sum) / f32(params.cols) + params.eps);
    for (var k = t; k < params.stride; k += THREADS) {
        out[start + k] = x[start + k] * inverse * gain[k];
    }
}
