// Partial result of attention, over a split of the positions, for combine_splits.wgsl:
// [rows from first_row on][heads][kv_splits][head4 + 1] vec4. The last vec4 holds `running_max`, which was subtracted from the scores, and the sum
// of exp(score - running_max).

@group(0) @binding(5) var<storage, read_write> partials: array<vec4<f32>>;

fn write_output(group: vec3<u32>, lane: u32, sum: vec4<f32>, running_max: f32, running_sum: f32) {
    let at = (((group.y - params.first_row) * params.heads + group.x) * params.kv_splits + group.z) * (params.head4 + 1u);
    partials[at + lane] = sum;
    if (lane == 0u) {
        partials[at + params.head4] = vec4<f32>(running_max, running_sum, 0.0, 0.0);
    }
}
