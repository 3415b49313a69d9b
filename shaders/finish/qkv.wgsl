// Rotates the pairs of queries and keys (RoPE, arXiv:2104.09864), leaves queries in their buffer and appends keys and
// values to the cache.
//
// The weight's rows are ordered so that the two dimensions of a rotated pair are neighbours; head_dim is even, so that
// no pair spans two heads. Queries and keys are reordered alike, which leaves their products as they are. How the cache
// holds them is the business of the texts in cache/.

struct Finish {
    q_dim: u32,
    kv_dim: u32,
    head_dim: u32,
    rotary_dim: u32,
    q_stride: u32,    // of a row of queries, in vec2
    slot_stride: u32, // of a position of the cache, in pairs
    head_stride: u32, // of a head of the cache, in pairs
    rope_at: u32,     // where the rotations stand in the batch table: [rows][rotary_dim / 2][cosine, sine]
}

@group(0) @binding(5) var<storage, read_write> queries: array<vec2<f32>>;
@group(0) @binding(8) var<storage, read> batch: array<u32>;

fn rotated(row: u32, i: u32, y: vec2<f32>) -> vec2<f32> {
    let at = params.finish.rope_at + row * params.finish.rotary_dim + i;
    let c = bitcast<f32>(batch[at]);
    let s = bitcast<f32>(batch[at + 1u]);
    return vec2<f32>(y.x * c - y.y * s, y.y * c + y.x * s);
}

fn finish_pair(row: u32, n: u32, y: vec2<f32>) {
    let q_dim = params.finish.q_dim;
    let kv_dim = params.finish.kv_dim;
    if (n >= q_dim + 2u * kv_dim) {
        return;
    }
    let i = n % params.finish.head_dim;
    var v = y;
    if (n < q_dim + kv_dim && i < params.finish.rotary_dim) {
        v = rotated(row, i, y);
    }
    if (n < q_dim) {
        queries[row * params.finish.q_stride + n / 2u] = v;
        return;
    }
    let m = (n - q_dim) % kv_dim;
    let at = m / params.finish.head_dim * params.finish.head_stride + i / 2u;
    if (n < q_dim + kv_dim) {
        store_key(row, at, v);
    } else {
        store_value(row, at, v);
    }
}

fn finish(row: u32, n: u32, y: vec4<f32>) {
    finish_pair(row, n, y.xy);
    finish_pair(row, n + 2u, y.zw);
}
