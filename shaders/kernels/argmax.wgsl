// sampled[row] = the first token with the row's largest logit; NO_TOKEN if a logit is not finite
//
// Shapes: logits [rows, stride]. Grid: one workgroup.

struct Params {
    vocab: u32,
    stride: u32, // of logits
    row: u32,
    pad0: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<u32>;
@group(0) @binding(9) var<storage, read_write> sampled: array<u32>;

const THREADS: u32 = 256u;

var<workgroup> keys: array<u32, THREADS>;
var<workgroup> tokens: array<u32, THREADS>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) t: u32) {
    let start = params.row * params.stride;
    var best = 0u;
    var token = 0u;
    for (var i = t; i < params.vocab; i += THREADS) {
        let key = float_key(logits[start + i]);
        if (key > best) {
            best = key;
            token = i;
        }
    }
    keys[t] = best;
    tokens[t] = token;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if (t < half) {
            let other = keys[t + half];
            if (other > keys[t] || (other == keys[t] && tokens[t + half] < tokens[t])) {
                keys[t] = other;
                tokens[t] = tokens[t + half];
            }
        }
        workgroupBarrier();
    }
    if (t == 0u) {
        sampled[params.row] = select(tokens[0], NO_TOKEN, keys[0] == NOT_FINITE);
    }
}
