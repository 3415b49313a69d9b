// y[r][n] = inverse_rms(x[r]) * sum over k of w[n][k] * gained(x[r][k]), then the epilogue
//
// The threads of a workgroup share the sum over k, for TILE_OUTPUTS = 4 outputs of TILE_ROWS rows at once, so that every weight is
// read once per TILE_ROWS rows. The order of a row's sum does not depend on TILE_ROWS.
//
// The sources in reduce/ add the threads' sums. The sources in rows/ define the rows of a tile.
//
// Shapes: x [rows, 4 * stride], weight piece [outputs, 8 * k8]; outputs is a multiple of 4.
// Grid: (outputs / 4, folded into x and y; rows / TILE_ROWS in z).

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

const THREADS: u32 = 64u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, thread: Thread) {
    let t = thread.t;
    let n = folded(group) * TILE_OUTPUTS;
    if (n >= params.outputs || !has_work(group.z)) {
        return;
    }

    let first = weight_row(group.z) + n;
    var sums: array<vec4<f32>, TILE_ROWS>;
    var powers: array<f32, TILE_ROWS>;
    for (var k = t; k < params.k8; k += THREADS) {
        let w0 = weights(first * params.k8 + k);
        let w1 = weights((first + 1u) * params.k8 + k);
        let w2 = weights((first + 2u) * params.k8 + k);
        let w3 = weights((first + 3u) * params.k8 + k);
        for (var r = 0u; r < TILE_ROWS; r++) {
            let at = row_from(group.z, r) * params.stride + 2u * k;
            let xa = x[at];
            let xb = x[at + 1u];
            powers[r] += dot(xa, xa) + dot(xb, xb);
            let a = gained(xa, 2u * k);
            let b = gained(xb, 2u * k + 1u);
            sums[r] += vec4<f32>(
                dot(w0.a, a) + dot(w0.b, b),
                dot(w1.a, a) + dot(w1.b, b),
                dot(w2.a, a) + dot(w2.b, b),
                dot(w3.a, a) + dot(w3.b, b),
            );
        }
    }

    let sum = row_sums(thread, sums, powers);
    if (t < TILE_ROWS && has_row(group.z, t)) {
        epilogue(row_to(group.z, t), first_output() + n, sum.y * inverse_rms(sum.squares));
    }
}
