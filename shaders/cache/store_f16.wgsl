// Keys and values in half precision, clamped to its largest finite number.

@group(0) @binding(6) var<storage, read_write> keys: array<u32>;
@group(0) @binding(7) var<storage, read_write> values: array<u32>;

const MOST: vec2<f32> = vec2<f32>(65504.0);

fn store_key(row: u32, at: u32, v: vec2<f32>) {
    keys[batch[4u * row + 2u] * params.epilogue.slot_stride + at] = packed_halves(clamp(v, -MOST, MOST));
}

fn store_value(row: u32, at: u32, v: vec2<f32>) {
    values[batch[4u * row + 2u] * params.epilogue.slot_stride + at] = packed_halves(clamp(v, -MOST, MOST));
}
