// Keys and values in single precision.

@group(0) @binding(6) var<storage, read_write> keys: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> values: array<vec2<f32>>;

fn store_key(row: u32, at: u32, v: vec2<f32>) {
    keys[batch[4u * row + 2u] * params.epilogue.slot_stride + at] = v;
}

fn store_value(row: u32, at: u32, v: vec2<f32>) {
    values[batch[4u * row + 2u] * params.epilogue.slot_stride + at] = v;
}
