// out[i] = x[i]: benchmark of memory bandwidth
//
// Shapes: x and out [count] vec4. Grid: `stride` threads in x; each copies every stride-th vec4.

struct Params {
    count: u32,  // vec4
    stride: u32, // threads
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<u32>>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    for (var i = group.x * 256u + t; i < params.count; i += params.stride) {
        out[i] = x[i];
    }
}
