// Keys and values in half precision.

@group(0) @binding(6) var<storage, read> keys: array<vec2<u32>>;
@group(0) @binding(7) var<storage, read> values: array<vec2<u32>>;

fn four(q: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(q.x), unpack2x16float(q.y));
}

fn key(head: u32, i: u32) -> vec4<f32> {
    return four(keys[head + i]);
}

fn value(head: u32, i: u32) -> vec4<f32> {
    return four(values[head + i]);
}
