// Of each record: the natural logarithm of the sum of exp(logit) over the row, the logit of the record's token, and the `top`
// largest logits with their tokens, the first of equals first. A token that is given, not sampled, is written too.
//
// Shapes: logits [rows, stride], samples [records, RECORD], results [records, result]: token, logsumexp, logit, 0, then token and
// logit of each of the largest. Grid: one workgroup per record.

struct Params {
    vocab: u32,
    stride: u32, // of logits
    top: u32,
    result: u32, // words of a result
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<u32>;
@group(0) @binding(5) var<storage, read_write> results: array<u32>;
@group(0) @binding(8) var<storage, read> samples: array<u32>;

const THREADS: u32 = 256u;

var<workgroup> sums: array<f32, THREADS>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let record = group.x * RECORD;
    let start = samples[record + ROW] * params.stride;
    let result = group.x * params.result;

    // the largest logits in falling order: each round takes the largest behind the one before
    var last_key = 0xffffffffu;
    var last_token = 0u;
    var largest = 0.0;
    for (var round = 0u; round < max(params.top, 1u); round++) {
        var best = 0u;
        var token = NO_TOKEN;
        for (var i = t; i < params.vocab; i += THREADS) {
            let key = float_key(logits[start + i], 1u);
            let behind = round == 0u || key < last_key || (key == last_key && i > last_token);
            if (behind && key > best) {
                best = key;
                token = i;
            }
        }
        let found = first_largest(t, best, token);
        last_key = found.x;
        last_token = found.y;
        let logit = select(0xff800000u, logits[start + min(last_token, params.vocab - 1u)], last_token != NO_TOKEN);
        if (round == 0u) {
            largest = bitcast<f32>(logit);
        }
        if (t == 0u && round < params.top) {
            results[result + 4u + 2u * round] = last_token;
            results[result + 5u + 2u * round] = logit;
        }
    }

    var sum = 0.0;
    for (var i = t; i < params.vocab; i += THREADS) {
        sum += exp(max(bitcast<f32>(logits[start + i]) - largest, -100.0));
    }
    sums[t] = sum;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if (t < half) {
            sums[t] += sums[t + half];
        }
        workgroupBarrier();
    }
    if (t == 0u) {
        let given = samples[record + GIVEN];
        if (given != NO_TOKEN) {
            results[result] = given;
        }
        let token = min(results[result], params.vocab - 1u);
        results[result + 1u] = bitcast<u32>(largest + log(sums[0]));
        results[result + 2u] = logits[start + token];
        results[result + 3u] = 0u;
    }
}
