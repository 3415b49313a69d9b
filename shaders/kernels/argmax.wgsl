// The first token with a row's largest logit; NO_TOKEN if a logit is not finite or all tokens are excluded. The token goes to the
// row's slot and to its result.
//
// Shapes: logits [rows, stride], samples [records, RECORD], results [records, result]. Grid: one workgroup per record.

struct Params {
    vocab: u32,
    stride: u32,    // of logits
    first: u32,     // first record
    by_record: u32, // 1 if the logits have a row for each record; 0 for the rows that the records name
    result: u32,    // words of a result
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<u32>;
@group(0) @binding(5) var<storage, read_write> results: array<u32>;
@group(0) @binding(8) var<storage, read> samples: array<u32>;
@group(0) @binding(9) var<storage, read_write> sampled: array<u32>;

const THREADS: u32 = 256u;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let index = params.first + group.x;
    let record = index * RECORD;
    let excludes = samples[record + EXCLUDES];
    let start = select(samples[record + ROW], index, params.by_record == 1u) * params.stride;
    var best = 0u;
    var token = NO_TOKEN;
    for (var i = t; i < params.vocab; i += THREADS) {
        let key = float_key(logits[start + i], excludes);
        if (key > best) {
            best = key;
            token = i;
        }
    }
    let largest = first_largest(t, best, token);
    if (t == 0u) {
        let result = select(largest.y, NO_TOKEN, largest.x == NOT_FINITE);
        sampled[samples[record + SLOT]] = result;
        results[index * params.result] = result;
    }
}
