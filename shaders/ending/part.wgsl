// Partial result of attention, over a split of the positions, for merge.wgsl: [rows][heads][splits][head4 + 1] vec4. The last
// vec4 holds `most`, which was subtracted from the scores, and the sum of exp(score - most).

@group(0) @binding(5) var<storage, read_write> split_parts: array<vec4<f32>>;

fn end_with(group: vec3<u32>, lane: u32, sum: vec4<f32>, most: f32, total: f32) {
    let at = ((group.y * params.heads + group.x) * params.splits + group.z) * (params.head4 + 1u);
    split_parts[at + lane] = sum;
    if (lane == 0u) {
        split_parts[at + params.head4] = vec4<f32>(most, total, 0.0, 0.0);
    }
}
