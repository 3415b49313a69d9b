// Keys and values as signed bytes; after the bytes of a head, a scale in single precision for every 32 of them.

@group(0) @binding(6) var<storage, read> keys: array<u32>;
@group(0) @binding(7) var<storage, read> values: array<u32>;

fn four(q: u32, d: u32) -> vec4<f32> {
    let bytes = bitcast<vec4<i32>>(vec4<u32>(q) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u);
    return bitcast<f32>(d) * vec4<f32>(bytes);
}

fn key(head: u32, i: u32) -> vec4<f32> {
    return four(keys[head + i], keys[head + params.head4 + i / 8u]);
}

fn value(head: u32, i: u32) -> vec4<f32> {
    return four(values[head + i], values[head + params.head4 + i / 8u]);
}
