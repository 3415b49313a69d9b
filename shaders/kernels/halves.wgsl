// out[r][k] = gained(x[r][k]) / s in half precision, where s is a power of two that keeps the row's magnitudes below 2^TOP;
// row_scales[r] = s * inverse_rms(x[r]). With EXACT = 1 the rounding errors follow as halves, `low` pairs later.
//
// Shapes: x [rows_at + rows, 4 * stride], out [rows, 2 * pairs] halves, zero past x. Grid: one workgroup per row, folded.

struct Params {
    rows: u32,
    cols: u32,
    stride: u32, // of x, in vec4
    pairs: u32,  // of out, in pairs of halves
    low: u32,    // offset of the rounding errors, in pairs of halves
    eps: f32,
    rows_at: u32, // first row of x
    pad0: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<u32>;
@group(0) @binding(10) var<storage, read_write> row_scales: array<f32>;

const THREADS: u32 = 128u;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, thread: Thread) {
    let row = folded(group);
    let at_x = (params.rows_at + row) * params.stride;
    var power = 0.0;
    var most = 0.0;
    if (row < params.rows) {
        for (var k = thread.t; k < params.stride; k += THREADS) {
            let v = x[at_x + k];
            power += dot(v, v);
            let size = abs(gained(v, k));
            most = max(most, max(max(size.x, size.y), max(size.z, size.w)));
        }
    }
    let rms = inverse_rms(all_sum(thread, power));
    most = all_max(thread, most);
    if (row >= params.rows) {
        return;
    }
    // division by a power of two is exact
    let exponent = clamp(i32(bitcast<u32>(most) >> 23u) - 126 - i32(TOP), -126, 126);
    let shrink = bitcast<f32>(u32(127 - exponent) << 23u);
    if (thread.t == 0u) {
        row_scales[row] = rms * bitcast<f32>(u32(127 + exponent) << 23u);
    }
    for (var k = thread.t; k < params.pairs / 2u; k += THREADS) {
        var v = vec4<f32>();
        if (k < params.stride) {
            v = shrink * gained(x[at_x + k], k);
        }
        let at = row * params.pairs + 2u * k;
        let a = packed_halves(v.xy);
        let b = packed_halves(v.zw);
        out[at] = a;
        out[at + 1u] = b;
        // for exact in EXACT
        out[params.low + at] = packed_halves(v.xy - unpack2x16float(a));
        out[params.low + at + 1u] = packed_halves(v.zw - unpack2x16float(b));
        // end
    }
}
