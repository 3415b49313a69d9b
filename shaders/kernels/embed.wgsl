// out[r] = scale * table[token[r]]; token SAMPLED + i stands for the token of slot i, which was sampled on the device
//
// Shapes: table piece [count, 8 * k8], out [rows, 4 * stride]. Rows whose token is in another piece are not written.
// Grid: one workgroup per row, folded.

struct Params {
    rows: u32,
    k8: u32,     // groups of eight weights in a row
    first: u32,  // first token of this piece
    count: u32,  // tokens of this piece
    stride: u32, // of out, in vec4
    scale: f32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read> batch: array<u32>;
@group(0) @binding(9) var<storage, read> sampled: array<u32>;

const THREADS: u32 = 64u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let row = folded(group);
    if (row >= params.rows) {
        return;
    }
    var token = batch[4u * row];
    if (token >= SAMPLED) {
        token = sampled[token - SAMPLED];
    }
    token -= params.first;
    if (token >= params.count) {
        return;
    }
    for (var k = t; k < params.k8; k += THREADS) {
        let w = weights(token * params.k8 + k);
        out[row * params.stride + 2u * k] = params.scale * w.a;
        out[row * params.stride + 2u * k + 1u] = params.scale * w.b;
    }
}
