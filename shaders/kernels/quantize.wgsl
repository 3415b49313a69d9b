// keys and values of the batch's slots = staged keys and values, as signed bytes and a scale for every 32 of a head
//
// Shapes: staged [rows][keys, values][4 * stage4]; a head of the cache takes head4 words of bytes, then a word for each
// scale.
// Grid: a thread per block of a row's keys and values, in folded workgroups.

struct Params {
    count: u32,       // blocks of keys, and of values, of all rows
    kv_heads: u32,
    head4: u32,       // of a head, in vec4 of staged and in words of bytes
    blocks: u32,      // of a head
    stage4: u32,      // of a row's keys, or values, in vec4
    slot_stride: u32, // of a position of the cache, in words
    head_stride: u32, // of a head of the cache, in words
    pad0: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> staged: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> keys: array<u32>;
@group(0) @binding(7) var<storage, read_write> values: array<u32>;
@group(0) @binding(8) var<storage, read> batch: array<u32>;

const THREADS: u32 = 64u;
const BLOCK4: u32 = 8u;

fn largest(start: u32, count: u32) -> f32 {
    var most = vec4<f32>();
    for (var i = 0u; i < count; i++) {
        most = max(most, abs(staged[start + i]));
    }
    return max(max(most.x, most.y), max(most.z, most.w));
}

fn levels(v: vec4<f32>, inverse: f32) -> u32 {
    let q = bitcast<vec4<u32>>(vec4<i32>(round(v * inverse))) & vec4<u32>(255u);
    return q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let i = folded(group) * THREADS + t;
    if (i >= params.count) {
        return;
    }
    let first = i % params.blocks * BLOCK4;
    let head = i / params.blocks % params.kv_heads;
    let row = i / params.blocks / params.kv_heads;
    let count = min(BLOCK4, params.head4 - first);
    let start = 2u * row * params.stage4 + head * params.head4 + first;
    let to = batch[4u * row + 2u] * params.slot_stride + head * params.head_stride;
    let scale = to + params.head4 + first / BLOCK4;

    // below 1e-30 the inverse might be infinite
    var most = largest(start, count);
    var some = most > 1.0e-30;
    var inverse = select(0.0, 127.0 / most, some);
    for (var j = 0u; j < count; j++) {
        keys[to + first + j] = levels(staged[start + j], inverse);
    }
    keys[scale] = bitcast<u32>(select(0.0, most / 127.0, some));

    let other = start + params.stage4;
    most = largest(other, count);
    some = most > 1.0e-30;
    inverse = select(0.0, 127.0 / most, some);
    for (var j = 0u; j < count; j++) {
        values[to + first + j] = levels(staged[other + j], inverse);
    }
    values[scale] = bitcast<u32>(select(0.0, most / 127.0, some));
}
