// Rotates the pairs of queries and keys (RoPE, arXiv:2104.09864), writes queries to their buffer, and keys and values to
// the cache.
//
// The two dimensions of a rotated pair are adjacent rows of the weight; head_dim is even, so no pair spans two heads.
// Queries and keys are reordered alike, so their dot products do not change. The sources in cache/ define the storage
// format of keys and values.

struct Epilogue {
    q_dim: u32,
    kv_dim: u32,
    head_dim: u32,
    rotary_dim: u32,
    q_stride: u32,    // of a row of queries, in vec2
    slot_stride: u32, // of a position of the cache, in pairs
    head_stride: u32, // of a head of the cache, in pairs
    rope_at: u32,     // start of the rotations in the batch metadata: [rows][rotary_dim / 2][cosine, sine]
}

@group(0) @binding(5) var<storage, read_write> queries: array<vec2<f32>>;
@group(0) @binding(8) var<storage, read> batch: array<u32>;

fn rotated(row: u32, i: u32, y: vec2<f32>) -> vec2<f32> {
    let at = params.epilogue.rope_at + row * params.epilogue.rotary_dim + i;
    let c = bitcast<f32>(batch[at]);
    let s = bitcast<f32>(batch[at + 1u]);
    return vec2<f32>(y.x * c - y.y * s, y.y * c + y.x * s);
}

fn epilogue_pair(row: u32, n: u32, y: vec2<f32>) {
    let q_dim = params.epilogue.q_dim;
    let kv_dim = params.epilogue.kv_dim;
    if (n >= q_dim + 2u * kv_dim) {
        return;
    }
    let i = n % params.epilogue.head_dim;
    var v = y;
    if (n < q_dim + kv_dim && i < params.epilogue.rotary_dim) {
        v = rotated(row, i, y);
    }
    if (n < q_dim) {
        queries[row * params.epilogue.q_stride + n / 2u] = v;
        return;
    }
    let m = (n - q_dim) % kv_dim;
    let at = m / params.epilogue.head_dim * params.epilogue.head_stride + i / 2u;
    if (n < q_dim + kv_dim) {
        store_key(row, at, v);
    } else {
        store_value(row, at, v);
    }
}

fn epilogue(row: u32, n: u32, y: vec4<f32>) {
    let v = biased(n, y);
    epilogue_pair(row, n, v.xy);
    epilogue_pair(row, n + 2u, v.zw);
}
