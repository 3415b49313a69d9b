// out = (x - mean(x)) / sqrt(var(x) + eps) * gain + bias   (LayerNorm, arXiv:1607.06450)
//
// Shapes: x and out [rows, 4 * stride], gain and bias [4 * stride]; all are zero from cols on, so that out is as well.
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
@group(0) @binding(11) var<storage, read> bias: array<vec4<f32>>;

const THREADS: u32 = 256u;

// Vec4 number k of a row minus the mean; zero from cols on.
fn centred(at: u32, k: u32, mean: f32) -> vec4<f32> {
    let i = vec4<u32>(4u * k) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(), x[at] - mean, i < vec4<u32>(params.cols));
}

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
        sum += dot(x[start + k], vec4<f32>(1.0));
    }
    let mean = all_sum(thread, sum) / f32(params.cols);
    var squares = 0.0;
    for (var k = t; k < params.stride; k += THREADS) {
        let v = centred(start + k, k, mean);
        squares += dot(v, v);
    }
    let inverse = inverseSqrt(all_sum(thread, squares) / f32(params.cols) + params.eps);
    for (var k = t; k < params.stride; k += THREADS) {
        out[start + k] = centred(start + k, k, mean) * inverse * gain[k] + bias[k];
    }
}
