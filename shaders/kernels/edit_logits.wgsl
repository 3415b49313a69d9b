// A copy of the logits of each record: edited, then masked. An edit of a token gives (logit + bias), times or divided by the
// penalty, plus offset; a token whose bit is not in the row's mask gives minus infinity. Logits that are not finite stay.
//
// Shapes: logits [rows, stride], out [records, stride], samples [records, RECORD], then words of masks and edits. Grid: one
// workgroup per record.

struct Params {
    vocab: u32,
    stride: u32, // of logits and out
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<u32>;
@group(0) @binding(8) var<storage, read> samples: array<u32>;

const THREADS: u32 = 256u;
const EDIT: u32 = 4u; // words of an edit: token, bias, penalty, offset
const LARGEST: f32 = 0x1.fffffep+127f;
const EXCLUDED: u32 = 0xff800000u;

fn is_finite(bits: u32) -> bool {
    return (bits & 0x7f800000u) != 0x7f800000u;
}

fn is_allowed(mask: u32, token: u32) -> bool {
    return mask == NO_MASK || ((samples[mask + token / 32u] >> (token % 32u)) & 1u) == 1u;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let record = group.x * RECORD;
    let source = samples[record + ROW] * params.stride;
    let start = group.x * params.stride;
    let mask = samples[record + MASK];
    for (var i = t; i < params.vocab; i += THREADS) {
        let bits = bitcast<u32>(logits[source + i]);
        out[start + i] = select(bits, EXCLUDED, is_finite(bits) && !is_allowed(mask, i));
    }
    storageBarrier();
    let edits = samples[record + EDITS];
    for (var i = t; i < samples[record + EDIT_COUNT]; i += THREADS) {
        let edit = edits + EDIT * i;
        let token = samples[edit];
        let logit = logits[source + token];
        if (!is_finite(bitcast<u32>(logit)) || !is_allowed(mask, token)) {
            continue;
        }
        let bias = samples[edit + 1u];
        if (bias == EXCLUDED) {
            out[start + token] = EXCLUDED;
            continue;
        }
        let penalty = bitcast<f32>(samples[edit + 2u]);
        let biased = clamp(logit + bitcast<f32>(bias), -LARGEST, LARGEST);
        let penalized = clamp(select(biased / penalty, biased * penalty, biased < 0.0), -LARGEST, LARGEST);
        out[start + token] = bitcast<u32>(clamp(penalized + bitcast<f32>(samples[edit + 3u]), -LARGEST, LARGEST));
    }
}
