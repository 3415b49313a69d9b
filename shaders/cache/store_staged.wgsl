// Keys and values of the pass's rows in single precision, staged for quantize.wgsl, which quantizes whole blocks:
// [rows][keys, values].

@group(0) @binding(6) var<storage, read_write> staged: array<vec2<f32>>;

fn store_key(row: u32, at: u32, v: vec2<f32>) {
    staged[2u * row * params.epilogue.slot_stride + at] = v;
}

fn store_value(row: u32, at: u32, v: vec2<f32>) {
    staged[(2u * row + 1u) * params.epilogue.slot_stride + at] = v;
}
