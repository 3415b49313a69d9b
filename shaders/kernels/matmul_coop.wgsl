// y[r][n] = row_scales[r] * sum over k of w[n][k] * x[r][k], then the epilogue
//
// For many rows, on matrix units: four subgroups compute TILE_ROWS rows by TILE_OUTPUTS outputs, a quarter each, in
// HIGH by HIGH matrices of SIDE by SIDE f32 sums. Weights are converted to halves in workgroup memory, DEPTH of k at a time.
// Activations are the halves of halves.wgsl, loaded from storage memory. With EXACT = 1 both are sums of two halves; the
// product of the two low halves is left out, an error below the rounding of single precision.
//
// Shapes: x [rows padded to a tile, stride] and, `low` halves later, its rounding errors; weight piece [outputs, 8 * k8];
// stride is a multiple of DEPTH, outputs of 4. Grid: (outputs / TILE_OUTPUTS, rows / TILE_ROWS).

enable f16;
enable wgpu_cooperative_matrix;

struct Params {
    rows: u32,
    cols: u32,
    k8: u32,      // groups of eight weights in a row
    stride: u32,  // of x, in halves
    outputs: u32, // of this piece
    first: u32,   // first output of this piece
    low: u32,
    rows_at: u32, // first row of the outputs
    epilogue: Epilogue,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f16>;
@group(0) @binding(10) var<storage, read> row_scales: array<f32>;

const GROUPS: u32 = DEPTH / 8u;
const PITCH: u32 = DEPTH + 8u; // padded, so that the rows of a matrix start in different banks
const LARGEST: vec4<f32> = vec4<f32>(65504.0);

var<workgroup> ws: array<f16, (1u + EXACT) * TILE_OUTPUTS * PITCH>;
var<workgroup> ys: array<f32, 4u * SIDE * SIDE>;

fn stage(at: u32, values: vec4<f32>) {
    let w = clamp(values, -LARGEST, LARGEST);
    var rounded = w;
    // for exact in EXACT
    // rounded by packing, because compilers may remove a conversion to f16 and back
    rounded = vec4<f32>(unpack2x16float(pack2x16float(w.xy)), unpack2x16float(pack2x16float(w.zw)));
    let low = vec4<f16>(w - rounded);
    let below = TILE_OUTPUTS * PITCH + at;
    ws[below] = low.x;
    ws[below + 1u] = low.y;
    ws[below + 2u] = low.z;
    ws[below + 3u] = low.w;
    // end
    let high = vec4<f16>(rounded);
    ws[at] = high.x;
    ws[at + 1u] = high.y;
    ws[at + 2u] = high.z;
    ws[at + 3u] = high.w;
}

// Applies the epilogue to matrix (i, j) of all subgroups, whose sums are in ys.
fn give(t: u32, row0: u32, n0: u32, i: u32, j: u32) {
    const FOURS: u32 = SIDE / 4u;
    for (var at = t; at < SIDE * SIDE; at += THREADS) {
        let subgroup = at / (SIDE * FOURS);
        let row = row0 + subgroup % 2u * (TILE_ROWS / 2u) + i * SIDE + at / FOURS % SIDE;
        let n = n0 + subgroup / 2u * (TILE_OUTPUTS / 2u) + j * SIDE + at % FOURS * 4u;
        if (row < params.rows && n < params.outputs) {
            let y = vec4<f32>(ys[4u * at], ys[4u * at + 1u], ys[4u * at + 2u], ys[4u * at + 3u]);
            epilogue(params.rows_at + row, params.first + n, y * row_scales[row]);
        }
    }
}

@compute @workgroup_size($(THREADS))
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let n0 = group.x * TILE_OUTPUTS;
    let row0 = group.y * TILE_ROWS;
    let line = row0 + subgroup % 2u * (TILE_ROWS / 2u);
    let column = subgroup / 2u * (TILE_OUTPUTS / 2u);

    // for i in HIGH
    // for j in HIGH
    var y$(i)$(j) = coop_mat$(SIDE)x$(SIDE)<f32, C>();
    // end
    // end
    for (var k0 = 0u; k0 < params.stride; k0 += DEPTH) {
        for (var i = t; i < TILE_OUTPUTS * GROUPS; i += THREADS) {
            let n = i / GROUPS;
            let k = k0 / 8u + i % GROUPS;
            var w = Eight();
            if (n0 + n < params.outputs && k < params.k8) {
                w = weights((n0 + n) * params.k8 + k);
            }
            let at = n * PITCH + i % GROUPS * 8u;
            stage(at, w.a);
            stage(at + 4u, w.b);
        }
        workgroupBarrier();
        // for k in STEPS
        {
            let from_w = column * PITCH + $(k)u * SIDE;
            let from_x = line * params.stride + k0 + $(k)u * SIDE;
            // for j in HIGH
            let w$(j) = coopLoad<coop_mat$(SIDE)x$(SIDE)<f16, B>>(&ws[from_w + $(j)u * SIDE * PITCH], PITCH);
            // end
            // for i in HIGH
            let x$(i) = coopLoadT<coop_mat$(SIDE)x$(SIDE)<f16, A>>(&x[from_x + $(i)u * SIDE * params.stride], params.stride);
            // for j in HIGH
            y$(i)$(j) = coopMultiplyAdd(x$(i), w$(j), y$(i)$(j));
            // end
            // end
            // for exact in EXACT
            // for i in HIGH
            let low_x$(i) = coopLoadT<coop_mat$(SIDE)x$(SIDE)<f16, A>>(
                &x[params.low + from_x + $(i)u * SIDE * params.stride],
                params.stride,
            );
            // for j in HIGH
            y$(i)$(j) = coopMultiplyAdd(low_x$(i), w$(j), y$(i)$(j));
            // end
            // end
            // for j in HIGH
            let low_w$(j) = coopLoad<coop_mat$(SIDE)x$(SIDE)<f16, B>>(
                &ws[TILE_OUTPUTS * PITCH + from_w + $(j)u * SIDE * PITCH],
                PITCH,
            );
            // for i in HIGH
            y$(i)$(j) = coopMultiplyAdd(x$(i), low_w$(j), y$(i)$(j));
            // end
            // end
            // end
        }
        // end
        workgroupBarrier();
    }

    let at = subgroup * SIDE * SIDE;
    // for i in HIGH
    // for j in HIGH
    // coopStoreT takes a `let` value only, as matrix
    let sums$(i)$(j) = y$(i)$(j);
    coopStoreT(sums$(i)$(j), &ys[at], $(SIDE)u);
    workgroupBarrier();
    give(t, row0, n0, $(i)u, $(j)u);
    workgroupBarrier();
    // end
    // end
}
