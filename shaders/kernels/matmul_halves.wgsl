// y[r][n] = row_scales[r] * sum over k of w[n][k] * x[r][k], then the epilogue
//
// For many rows: as matmul.wgsl, but weights and activations are halves. halves.wgsl converts the activations. Four products
// at a time are summed in half precision, all else in single precision.
//
// Shapes: x [rows, stride], weight piece [outputs, 8 * k8]; stride is a multiple of 8, outputs of 4.
// Grid: (outputs / 64, rows / 32).

enable f16;

struct Params {
    rows: u32,
    cols: u32,
    k8: u32,      // groups of eight weights in a row
    stride: u32,  // of x, in halves
    outputs: u32, // of this piece
    first: u32,   // first output of this piece
    low: u32,     // unused
    rows_at: u32, // first row of the outputs
    epilogue: Epilogue,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f16>>;
@group(0) @binding(10) var<storage, read> row_scales: array<f32>;

const THREADS: u32 = 128u;
const DEPTH: u32 = 8u; // vec4 of a tile along k
const PITCH: u32 = 9u; // odd, so that neighbouring threads access different banks
const LARGEST: vec4<f32> = vec4<f32>(1023.0); // of a weight: the sum of four products with activations below 8 fits f16

var<workgroup> xs: array<vec4<f16>, TILE_ROWS * PITCH>;
// Output n of the tile is stored at (n % 4) * 16 + n / 4, so that 16 threads that read one vec4 each read adjacent ones.
var<workgroup> ws: array<vec4<f16>, TILE_OUTPUTS * PITCH>;

fn give(row: u32, n: u32, y: vec4<f32>) {
    if (row < params.rows && n < params.outputs) {
        epilogue(params.rows_at + row, params.first + n, y * row_scales[row]);
    }
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let n0 = group.x * TILE_OUTPUTS;
    let row0 = group.y * TILE_ROWS;
    let column = t % 16u;
    let line = t / 16u * 4u;

    var y0 = vec4<f32>();
    var y1 = vec4<f32>();
    var y2 = vec4<f32>();
    var y3 = vec4<f32>();
    for (var k8 = 0u; k8 < params.k8; k8 += DEPTH / 2u) {
        for (var i = t; i < TILE_ROWS * DEPTH; i += THREADS) {
            let row = row0 + i / DEPTH;
            let k = 2u * k8 + i % DEPTH;
            var v = vec4<f16>();
            if (row < params.rows && k < 2u * params.k8) {
                v = x[row * params.stride / 4u + k];
            }
            xs[i / DEPTH * PITCH + i % DEPTH] = v;
        }
        for (var i = t; i < TILE_OUTPUTS * 4u; i += THREADS) {
            let n = i / 4u;
            let k = k8 + i % 4u;
            var w = Eight();
            if (n0 + n < params.outputs && k < params.k8) {
                w = weights((n0 + n) * params.k8 + k);
            }
            let at = (n % 4u * 16u + n / 4u) * PITCH + i % 4u * 2u;
            ws[at] = vec4<f16>(clamp(w.a, -LARGEST, LARGEST));
            ws[at + 1u] = vec4<f16>(clamp(w.b, -LARGEST, LARGEST));
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let w0 = ws[column * PITCH + k];
            let w1 = ws[(column + 16u) * PITCH + k];
            let w2 = ws[(column + 32u) * PITCH + k];
            let w3 = ws[(column + 48u) * PITCH + k];
            let x0 = xs[line * PITCH + k];
            let x1 = xs[(line + 1u) * PITCH + k];
            let x2 = xs[(line + 2u) * PITCH + k];
            let x3 = xs[(line + 3u) * PITCH + k];
            y0 += vec4<f32>(vec4<f16>(dot(x0, w0), dot(x0, w1), dot(x0, w2), dot(x0, w3)));
            y1 += vec4<f32>(vec4<f16>(dot(x1, w0), dot(x1, w1), dot(x1, w2), dot(x1, w3)));
            y2 += vec4<f32>(vec4<f16>(dot(x2, w0), dot(x2, w1), dot(x2, w2), dot(x2, w3)));
            y3 += vec4<f32>(vec4<f16>(dot(x3, w0), dot(x3, w1), dot(x3, w2), dot(x3, w3)));
        }
        workgroupBarrier();
    }

    let n = n0 + column * 4u;
    let row = row0 + line;
    give(row, n, y0);
    give(row + 1u, n, y1);
    give(row + 2u, n, y2);
    give(row + 3u, n, y3);
}
