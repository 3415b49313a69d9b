// Attention over some of the positions, for a kernel that merges them: [rows][heads][splits][head4 + 1], of which the last
// holds the largest score and the sum of chances.

@group(0) @binding(5) var<storage, read_write> split_parts: array<vec4<f32>>;

fn end_with(group: vec3<u32>, lane: u32, sum: vec4<f32>, most: f32, total: f32) {
    let at = ((group.y * params.heads + group.x) * params.splits + group.z) * (params.head4 + 1u);
    split_parts[at + lane] = sum;
    if (lane == 0u) {
        split_parts[at + params.head4] = vec4<f32>(most, total, 0.0, 0.0);
    }
}
