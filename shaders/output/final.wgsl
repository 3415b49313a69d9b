// The result of attention over all positions.

@group(0) @binding(5) var<storage, read_write> out: array<f32>;

fn write_output(group: vec3<u32>, lane: u32, sum: vec4<f32>, running_max: f32, running_sum: f32) {
    let v = sum / running_sum;
    for (var i = 0u; i < 4u; i++) {
        if (4u * lane + i < params.head_dim) {
            out[group.y * params.out_stride + group.x * params.head_dim + 4u * lane + i] = v[i];
        }
    }
}
