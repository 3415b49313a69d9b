// y[r][n] = inverse_rms(x[r]) * sum over k of w[n][k] * gained(x[r][k]), then the epilogue
//
// For many rows: a workgroup computes TILE_ROWS = 32 rows by TILE_OUTPUTS = 64 outputs over tiles of 32 k in workgroup
// memory; a thread holds 4 rows by 4 outputs in registers. The sources in rows/ define the rows of a tile.
//
// Shapes: x [rows, 4 * stride], weight piece [outputs, 8 * k8]; outputs is a multiple of 4.
// Grid: (outputs / 64, rows / 32).

struct Params {
    rows: u32,    // end of the rows
    cols: u32,
    k8: u32,      // groups of eight weights in a row
    stride: u32,  // of x, in vec4
    outputs: u32, // of this piece
    first: u32,   // first output of this piece
    eps: f32,
    rows_at: u32, // first row; of routes, start of the tiles
    epilogue: Epilogue,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;

const THREADS: u32 = 128u;
const DEPTH: u32 = 8u; // vec4 of a tile along k
const PITCH: u32 = 9u; // odd, so that neighbouring threads access different banks

var<workgroup> xs: array<vec4<f32>, TILE_ROWS * PITCH>;
// Output n of the tile is stored at (n % 4) * 16 + n / 4, so that 16 threads that read one vec4 each read adjacent ones.
var<workgroup> ws: array<vec4<f32>, TILE_OUTPUTS * PITCH>;
var<workgroup> squares: array<f32, TILE_ROWS * DEPTH>;

fn scale(row: u32) -> f32 {
    var sum = 0.0;
    if (NORMED) {
        for (var i = 0u; i < DEPTH; i++) {
            sum += squares[row * DEPTH + i];
        }
    }
    return inverse_rms(sum);
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let n0 = group.x * TILE_OUTPUTS;
    if (!has_work(group.y)) {
        return;
    }
    let first = weight_row(group.y) + n0;
    let column = t % 16u;
    let line = t / 16u * 4u;

    var y0 = vec4<f32>();
    var y1 = vec4<f32>();
    var y2 = vec4<f32>();
    var y3 = vec4<f32>();
    var powers = vec2<f32>();
    for (var k8 = 0u; k8 < params.k8; k8 += DEPTH / 2u) {
        for (var j = 0u; j < 2u; j++) {
            let i = t + j * THREADS;
            let k = 2u * k8 + i % DEPTH;
            var v = vec4<f32>();
            if (has_row(group.y, i / DEPTH) && k < 2u * params.k8) {
                v = x[row_from(group.y, i / DEPTH) * params.stride + k];
                powers[j] += dot(v, v);
                v = gained(v, k);
            }
            xs[i / DEPTH * PITCH + i % DEPTH] = v;
        }
        for (var j = 0u; j < 2u; j++) {
            let i = t + j * THREADS;
            let n = i / 4u;
            let k = k8 + i % 4u;
            var w = Eight();
            if (n0 + n < params.outputs && k < params.k8) {
                w = weights((first + n) * params.k8 + k);
            }
            let at = (n % 4u * 16u + n / 4u) * PITCH + i % 4u * 2u;
            ws[at] = w.a;
            ws[at + 1u] = w.b;
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
            y0 += vec4<f32>(dot(x0, w0), dot(x0, w1), dot(x0, w2), dot(x0, w3));
            y1 += vec4<f32>(dot(x1, w0), dot(x1, w1), dot(x1, w2), dot(x1, w3));
            y2 += vec4<f32>(dot(x2, w0), dot(x2, w1), dot(x2, w2), dot(x2, w3));
            y3 += vec4<f32>(dot(x3, w0), dot(x3, w1), dot(x3, w2), dot(x3, w3));
        }
        workgroupBarrier();
    }
    if (NORMED) {
        squares[t] = powers.x;
        squares[t + THREADS] = powers.y;
    }
    workgroupBarrier();

    let n = n0 + column * 4u;
    if (n >= params.outputs) {
        return;
    }
    if (has_row(group.y, line)) {
        epilogue(row_to(group.y, line), first_output() + n, y0 * scale(line));
    }
    if (has_row(group.y, line + 1u)) {
        epilogue(row_to(group.y, line + 1u), first_output() + n, y1 * scale(line + 1u));
    }
    if (has_row(group.y, line + 2u)) {
        epilogue(row_to(group.y, line + 2u), first_output() + n, y2 * scale(line + 2u));
    }
    if (has_row(group.y, line + 3u)) {
        epilogue(row_to(group.y, line + 3u), first_output() + n, y3 * scale(line + 3u));
    }
}
