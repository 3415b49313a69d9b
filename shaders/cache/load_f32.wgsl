// Keys and values in single precision.

@group(0) @binding(6) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> values: array<vec4<f32>>;

fn key(head: u32, i: u32) -> vec4<f32> {
    return keys[head + i];
}

fn value(head: u32, i: u32) -> vec4<f32> {
    return values[head + i];
}
