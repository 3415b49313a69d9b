// out[r][h] = attention over all positions, combined from the partial results of output/partial.wgsl (arXiv:2311.01282)
//
// Shapes: partials [rows from first_row on][heads][kv_splits][head4 + 1] vec4, out [rows, out_stride]; the batch metadata holds
// the rows from rows_at on: [rows][row, 1]. Grid: (heads, rows).

struct Params {
    heads: u32,
    head_dim: u32,
    head4: u32,
    kv_splits: u32,
    out_stride: u32, // in f32
    rows_at: u32,
    first_row: u32,
    pad0: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> partials: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;
@group(0) @binding(8) var<storage, read> batch: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    if (t >= params.head4) {
        return;
    }
    let pitch = params.head4 + 1u;
    let row = batch[params.rows_at + 2u * group.y];
    let start = ((row - params.first_row) * params.heads + group.x) * params.kv_splits * pitch;
    var running_max = partials[start + params.head4].x;
    for (var i = 1u; i < params.kv_splits; i++) {
        running_max = max(running_max, partials[start + i * pitch + params.head4].x);
    }
    var sum = vec4<f32>();
    var running_sum = 0.0;
    for (var i = 0u; i < params.kv_splits; i++) {
        let of_split = partials[start + i * pitch + params.head4];
        let rescale = exp(of_split.x - running_max);
        sum += rescale * partials[start + i * pitch + t];
        running_sum += rescale * of_split.y;
    }
    let v = sum / running_sum;
    for (var i = 0u; i < 4u; i++) {
        if (4u * t + i < params.head_dim) {
            out[row * params.out_stride + group.x * params.head_dim + 4u * t + i] = v[i];
        }
    }
}
