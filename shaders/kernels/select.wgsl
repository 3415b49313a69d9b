// out[i] = x[outputs[i]]
//
// Shapes: x and out [rows, 4 * stride]. Grid: one workgroup per row of out, folded.

struct Params {
    rows: u32,
    stride: u32,     // of x and of out, in vec4
    outputs_at: u32, // start of the row numbers in the batch metadata
    pad0: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read> batch: array<u32>;

const THREADS: u32 = 64u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = folded(group);
    if (row >= params.rows) {
        return;
    }
    let chosen = batch[params.outputs_at + row];
    for (var k = t; k < params.stride; k += THREADS) {
        out[row * params.stride + k] = x[chosen * params.stride + k];
    }
}
