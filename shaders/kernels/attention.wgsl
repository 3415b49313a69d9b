// out[r][h] = softmax(scale * q[r][h] . k) v over the positions that row r sees, with an online softmax over
// tiles of positions (arXiv:1805.02867, arXiv:2205.14135) in a paged cache (arXiv:2309.06180).
//
// Shapes: q [rows, q_stride], keys and values [slots, slot_stride], out [rows, out_stride]. A head of the cache is 4 * head4
// numbers, zero from head_dim on; head_dim is at most 256. The sources in cache/ define the storage format of keys and values;
// the strides of the cache count its elements. The sources in mask/ define the positions that a row attends to.
// The batch metadata holds the rows from tiles_at on: [rows][row, 1]. Grid: (heads, rows, kv_splits).

struct Params {
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    head4: u32,       // of a head, in vec4
    slot_stride: u32, // of a position of the cache
    q_stride: u32,    // in f32
    out_stride: u32,  // in f32
    window: u32,      // positions that a row attends to, 0 for all; other masks use it otherwise
    scale: f32,
    head_stride: u32, // of a head of the cache
    kv_splits: u32,
    most_splits: u32, // of a row
    tiles_at: u32,
    local_blocks: u32,
    block_stride: u32,
    head_step: u32,
    least_split: u32, // positions
    first_row: u32,   // of the partial results
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(8) var<storage, read> batch: array<u32>;

const THREADS: u32 = 128u;
const LOWEST: f32 = -3.0e38; // finite: the difference of two infinities would be a NaN

var<workgroup> query: array<vec4<f32>, 64>;
var<workgroup> probs: array<f32, THREADS>;
var<workgroup> parts: array<vec4<f32>, THREADS>;

fn slot(pages_at: u32, position: u32) -> u32 {
    return batch[pages_at + position / PAGE] * PAGE + position % PAGE;
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, thread: Thread) {
    let t = thread.t;
    let head = group.x;
    let row = batch[params.tiles_at + 2u * group.y];
    let position = batch[4u * row + 1u];
    let pages_at = batch[4u * row + 3u];
    let split = split_of(group.z, row, 1u, 1u);
    let first = split.first;
    let end = split.end;
    let kv = head * params.kv_heads / params.heads * params.head_stride;

    if (t < params.head4) {
        var v = vec4<f32>();
        for (var i = 0u; i < 4u; i++) {
            if (4u * t + i < params.head_dim) {
                v[i] = q[row * params.q_stride + head * params.head_dim + 4u * t + i];
            }
        }
        query[t] = v;
    }
    workgroupBarrier();

    // values: thread t sums vec4 number lane of the head over every shares-th position
    let shares = THREADS / params.head4;
    let lane = t % params.head4;
    let share = t / params.head4;
    var running_max = LOWEST;
    var running_sum = 0.0; // of the positions that this thread scored
    var sum = vec4<f32>();
    for (var start = first; start < end; start += THREADS) {
        let count = min(THREADS, end - start);
        if (!any_seen(head, position, start, start + count - 1u)) {
            continue;
        }
        let seen = t < count && sees(head, position, start + t);
        var score = LOWEST;
        if (seen) {
            let at = slot(pages_at, start + t) * params.slot_stride + kv;
            var product = 0.0;
            for (var i = 0u; i < params.head4; i++) {
                product += dot(query[i], key(at, i));
            }
            score = params.scale * product;
        }
        let next = max(running_max, all_max(thread, score));
        let rescale = exp(running_max - next);
        var prob = 0.0;
        if (seen) {
            prob = exp(score - next);
        }
        probs[t] = prob;
        running_max = next;
        running_sum = running_sum * rescale + prob;
        sum *= rescale;
        workgroupBarrier();
        if (share < shares) {
            for (var i = share; i < count; i += shares) {
                if (HOLES && probs[i] == 0.0) {
                    continue;
                }
                sum += probs[i] * value(slot(pages_at, start + i) * params.slot_stride + kv, lane);
            }
        }
        workgroupBarrier();
    }

    running_sum = all_sum(thread, running_sum);
    parts[t] = sum;
    workgroupBarrier();
    if (t < params.head4) {
        var v = parts[t];
        for (var i = 1u; i < shares; i++) {
            v += parts[i * params.head4 + t];
        }
        write_output(vec3<u32>(head, row, group.z), t, v, running_max, running_sum);
    }
}
