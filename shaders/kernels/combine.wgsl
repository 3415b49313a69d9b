// out[r] += sum over the TOP routes i of row r of weight[TOP * r + i] * y[TOP * r + i]
//
// Shapes: y [TOP * rows, 4 * stride], out [rows, 4 * stride], routes: the weights. Grid: one workgroup per row, folded.

struct Params {
    rows: u32,
    stride: u32, // of y and of out, in vec4
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(12) var<storage, read> routes: array<u32>;

const THREADS: u32 = 64u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = folded(group);
    if (row >= params.rows) {
        return;
    }
    for (var k = t; k < params.stride; k += THREADS) {
        var sum = out[row * params.stride + k];
        for (var i = 0u; i < TOP; i++) {
            let route = TOP * row + i;
            sum += bitcast<f32>(routes[route]) * y[route * params.stride + k];
        }
        out[row * params.stride + k] = sum;
    }
}
