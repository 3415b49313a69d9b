// Benchmark of the arithmetic rate: multiply-adds in registers, in single precision. A step is 8 times 4 multiply-adds.
//
// Shapes: out [threads]. Grid: as many workgroups as keep the device busy.

struct Params {
    steps: u32,
    factor: f32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let x = vec4<f32>(params.factor, params.factor + 0.1, params.factor + 0.2, f32(t) * 0.001);
    // for i in CHAINS
    var y$(i) = x + $(i).0;
    // end
    for (var step = 0u; step < params.steps; step++) {
        // for i in CHAINS
        y$(i) = fma(y$(i), x, x);
        // end
    }
    var sum = x;
    // for i in CHAINS
    sum += y$(i);
    // end
    out[group.x * 256u + t] = dot(sum, x);
}
