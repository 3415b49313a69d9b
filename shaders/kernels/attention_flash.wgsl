// out[r][h] = softmax(scale * q[r][h] . k) v as in attention.wgsl, for up to TILE_ROWS = 16 rows of one sequence at once
// (arXiv:2205.14135), so that keys and values are read once for all of them. head_dim is at most 128.
//
// Thread t scores position t % 32 of a tile for four rows, shares the softmax of row t / 8 with seven others, and sums vec4
// number t % 32 of the head for four rows.
//
// Shapes: as attention.wgsl; the batch metadata holds the tiles from tiles_at on: [tiles][first row, count]. The positions of a
// tile's rows have the same quotient by TILE_ROWS. Grid: (heads, tiles, kv_splits).

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
const WIDTH: u32 = 32u; // positions of a tile, and vec4 of the widest head
const PITCH: u32 = 33u; // odd, so that rows start in different banks
const LOWEST: f32 = -3.0e38; // finite: the difference of two infinities would be a NaN

var<workgroup> queries: array<vec4<f32>, TILE_ROWS * WIDTH>;
var<workgroup> scores: array<f32, TILE_ROWS * PITCH>; // then probabilities
var<workgroup> rescales: array<f32, TILE_ROWS>;
var<workgroup> row_maxes: array<f32, TILE_ROWS>;
var<workgroup> thread_sums: array<f32, THREADS>;

fn slot(pages_at: u32, position: u32) -> u32 {
    return batch[pages_at + position / PAGE] * PAGE + position % PAGE;
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let head = group.x;
    let row0 = batch[params.tiles_at + 2u * group.y];
    let count = batch[params.tiles_at + 2u * group.y + 1u];
    let position0 = batch[4u * row0 + 1u];
    let pages_at = batch[4u * row0 + 3u];
    let split = split_of(group.z, row0, count, TILE_ROWS);
    let seen_from = split.seen_from;
    let first = split.first;
    let end = split.end;
    let kv = head * params.kv_heads / params.heads * params.head_stride;

    for (var at = t; at < TILE_ROWS * params.head4; at += THREADS) {
        let row = at / params.head4;
        let lane = at % params.head4;
        var v = vec4<f32>();
        for (var i = 0u; i < 4u; i++) {
            if (row < count && 4u * lane + i < params.head_dim) {
                v[i] = q[(row0 + row) * params.q_stride + head * params.head_dim + 4u * lane + i];
            }
        }
        queries[row * WIDTH + lane] = v;
    }
    workgroupBarrier();

    let lane = t % WIDTH;
    let line = t / WIDTH * ROWS_EACH;
    let mine = t / 8u;
    var running_max = LOWEST;
    var running_sum = 0.0; // of the positions that this thread took for row `mine`
    // for r in ROWS_EACH
    var sum$(r) = vec4<f32>();
    // end
    for (var start = first; start < end; start += WIDTH) {
        if (!any_seen(head, position0, start, min(start + WIDTH, end) - 1u)) {
            continue;
        }
        let position = start + lane;
        // for r in ROWS_EACH
        var score$(r) = 0.0;
        // end
        if (position >= seen_from && position < end) {
            let at = slot(pages_at, position) * params.slot_stride + kv;
            for (var i = 0u; i < params.head4; i++) {
                let k = key(at, i);
                // for r in ROWS_EACH
                score$(r) += dot(queries[(line + $(r)u) * WIDTH + i], k);
                // end
            }
        }
        // for r in ROWS_EACH
        {
            let own = position0 + line + $(r)u;
            let seen = position < end && sees(head, own, position);
            scores[(line + $(r)u) * PITCH + lane] = select(LOWEST, params.scale * score$(r), seen);
        }
        // end
        workgroupBarrier();

        var next = running_max;
        for (var i = 0u; i < WIDTH; i++) {
            next = max(next, scores[mine * PITCH + i]);
        }
        let rescale = exp(running_max - next);
        running_sum *= rescale;
        running_max = next;
        workgroupBarrier();
        for (var i = t % 8u; i < WIDTH; i += 8u) {
            let score = scores[mine * PITCH + i];
            let prob = select(0.0, exp(score - next), score > LOWEST);
            scores[mine * PITCH + i] = prob;
            running_sum += prob;
        }
        rescales[mine] = rescale;
        workgroupBarrier();

        // for r in ROWS_EACH
        sum$(r) *= rescales[line + $(r)u];
        // end
        if (lane < params.head4) {
            for (var i = max(start, seen_from) - start; i < min(WIDTH, end - start); i++) {
                let v = value(slot(pages_at, start + i) * params.slot_stride + kv, lane);
                // for r in ROWS_EACH
                sum$(r) += scores[(line + $(r)u) * PITCH + i] * v;
                // end
            }
        }
        workgroupBarrier();
    }

    row_maxes[mine] = running_max;
    thread_sums[t] = running_sum;
    workgroupBarrier();
    if (lane < params.head4) {
        // for r in ROWS_EACH
        if (line + $(r)u < count) {
            let row = line + $(r)u;
            var all = 0.0;
            for (var i = 0u; i < 8u; i++) {
                all += thread_sums[8u * row + i];
            }
            write_output(vec3<u32>(head, row0 + row, group.z), lane, sum$(r), row_maxes[row], all);
        }
        // end
    }
}
