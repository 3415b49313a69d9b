// out[r][h] = attention over all positions, combined from the partial results of ending/part.wgsl (arXiv:2311.01282)
//
// Shapes: parts [rows][heads][splits][head4 + 1] vec4, out [rows, out_stride]. Grid: (heads, rows).

struct Params {
    heads: u32,
    head_dim: u32,
    head4: u32,
    splits: u32,
    out_stride: u32, // in f32
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> parts: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    if (t >= params.head4) {
        return;
    }
    let pitch = params.head4 + 1u;
    let start = (group.y * params.heads + group.x) * params.splits * pitch;
    var most = parts[start + params.head4].x;
    for (var i = 1u; i < params.splits; i++) {
        most = max(most, parts[start + i * pitch + params.head4].x);
    }
    var sum = vec4<f32>();
    var total = 0.0;
    for (var i = 0u; i < params.splits; i++) {
        let of_split = parts[start + i * pitch + params.head4];
        let share = exp(of_split.x - most);
        sum += share * parts[start + i * pitch + t];
        total += share * of_split.y;
    }
    let v = sum / total;
    for (var i = 0u; i < 4u; i++) {
        if (4u * t + i < params.head_dim) {
            out[group.y * params.out_stride + group.x * params.head_dim + 4u * t + i] = v[i];
        }
    }
}
