// out[r][h] = softmax(scale * q[r][h] . k) v as in attention_flash.wgsl, for up to ROWS = 32 rows of one sequence at once, on
// matrix units: queries, keys, probabilities and values are f16, sums are f32. head_dim is at most DIM.
//
// Positions are processed WIDTH = 32 at a time. Each of four subgroups computes sixteen rows by sixteen positions of the scores,
// and sixteen rows by DIM / 2 of the results, which stay in cooperative matrices. The rows of such a matrix cannot be scaled in
// place. A probability is therefore exp(score - running_max), where a row's `running_max` is raised to its largest score only
// when that score is more than MARGIN larger; then all results are scaled in workgroup memory (arXiv:2205.14135; when to scale:
// FlashAttention-4).
//
// Shapes: as attention.wgsl; the batch metadata holds the tiles from tiles_at on: [tiles][first row, count]. The positions of a
// tile's rows have the same quotient by ROWS. Grid: (heads, tiles, kv_splits).

enable f16;
enable wgpu_cooperative_matrix;

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

const WIDTH: u32 = 32u;
const DIM4: u32 = DIM / 4u;
const EACH: u32 = THREADS / ROWS; // threads of a row
// padded, so that rows start in different banks and at addresses from which matrices can be loaded
const PITCH: u32 = DIM + 8u;
const PROBS: u32 = WIDTH + 8u;
const SCORES: u32 = WIDTH + 4u;
const LOWEST: f32 = -3.0e38; // finite: the difference of two infinities would be a NaN
const MARGIN: f32 = 8.0; // exp(MARGIN) fits f16
const LARGEST: vec4<f32> = vec4<f32>(65504.0);

var<workgroup> queries: array<f16, ROWS * PITCH>;
var<workgroup> cached: array<f16, WIDTH * PITCH>; // keys, then values
var<workgroup> probs: array<f16, ROWS * PROBS>;
var<workgroup> scores: array<f32, ROWS * SCORES>; // then one matrix per subgroup
var<workgroup> rescales: array<f32, ROWS>;
var<workgroup> row_maxes: array<f32, ROWS>;
var<workgroup> thread_sums: array<f32, THREADS>;
var<workgroup> max_grew: array<u32, 4>;

fn slot(pages_at: u32, position: u32) -> u32 {
    return batch[pages_at + position / PAGE] * PAGE + position % PAGE;
}

fn halved(v: vec4<f32>) -> vec4<f16> {
    return vec4<f16>(clamp(v, -LARGEST, LARGEST));
}

fn cache(at: u32, v: vec4<f32>) {
    let half = halved(v);
    cached[at] = half.x;
    cached[at + 1u] = half.y;
    cached[at + 2u] = half.z;
    cached[at + 3u] = half.w;
}

@compute @workgroup_size($(THREADS))
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) thread: u32,
) {
    let head = group.x;
    let row0 = batch[params.tiles_at + 2u * group.y];
    let count = batch[params.tiles_at + 2u * group.y + 1u];
    let position0 = batch[4u * row0 + 1u];
    let pages_at = batch[4u * row0 + 3u];
    let split = split_of(group.z, row0, count, ROWS);
    let seen_from = split.seen_from;
    let first = split.first;
    let end = split.end;
    let kv = head * params.kv_heads / params.heads * params.head_stride;

    for (var at = t; at < ROWS * DIM4; at += THREADS) {
        let row = at / DIM4;
        let lane = at % DIM4;
        var v = vec4<f32>();
        for (var i = 0u; i < 4u; i++) {
            if (row < count && 4u * lane + i < params.head_dim) {
                v[i] = params.scale * q[(row0 + row) * params.q_stride + head * params.head_dim + 4u * lane + i];
            }
        }
        let half = halved(v);
        let to = row * PITCH + 4u * lane;
        queries[to] = half.x;
        queries[to + 1u] = half.y;
        queries[to + 2u] = half.z;
        queries[to + 3u] = half.w;
    }

    let line = subgroup % 2u * (ROWS / 2u);     // first row
    let column = subgroup / 2u * (WIDTH / 2u);  // first position
    let part = subgroup / 2u * (DIM / 2u);      // first dimension of the head
    let own_matrix = subgroup * SIDE * SIDE;
    let mine = t / EACH;
    let own = position0 + mine;
    var running_max = LOWEST;
    var running_sum = 0.0; // of the positions that this thread took for row `mine`
    // for i in HIGH
    // for j in WIDE
    var sum$(i)$(j) = coop_mat$(SIDE)x$(SIDE)<f32, C>();
    // end
    // end
    for (var start = first; start < end; start += WIDTH) {
        for (var at = t; at < WIDTH * DIM4; at += THREADS) {
            let position = start + at / DIM4;
            let lane = at % DIM4;
            var k = vec4<f32>();
            if (position >= seen_from && position < end && lane < params.head4) {
                k = key(slot(pages_at, position) * params.slot_stride + kv, lane);
            }
            cache(at / DIM4 * PITCH + 4u * lane, k);
        }
        workgroupBarrier();

        // for i in HIGH
        // for j in HIGH
        var score$(i)$(j) = coop_mat$(SIDE)x$(SIDE)<f32, C>();
        // end
        // end
        for (var k = 0u; k < DIM; k += SIDE) {
            // for i in HIGH
            let q$(i) = coopLoadT<coop_mat$(SIDE)x$(SIDE)<f16, A>>(&queries[(line + $(i)u * SIDE) * PITCH + k], PITCH);
            // end
            // for j in HIGH
            let k$(j) = coopLoad<coop_mat$(SIDE)x$(SIDE)<f16, B>>(&cached[(column + $(j)u * SIDE) * PITCH + k], PITCH);
            // for i in HIGH
            score$(i)$(j) = coopMultiplyAdd(q$(i), k$(j), score$(i)$(j));
            // end
            // end
        }
        // for i in HIGH
        // for j in HIGH
        // coopStoreT takes `let` values only, as matrix and as index
        let stored$(i)$(j) = score$(i)$(j);
        let to$(i)$(j) = (line + $(i)u * SIDE) * SCORES + column + $(j)u * SIDE;
        coopStoreT(stored$(i)$(j), &scores[to$(i)$(j)], SCORES);
        // end
        // end
        workgroupBarrier();

        var next = LOWEST;
        for (var i = 0u; i < WIDTH; i++) {
            let position = start + i;
            let seen = position < end && sees(head, own, position);
            next = max(next, select(LOWEST, scores[mine * SCORES + i], seen));
        }
        let grew = next > running_max + MARGIN;
        if (grew) {
            let rescale = exp(running_max - next);
            running_sum *= rescale;
            running_max = next;
            rescales[mine] = rescale;
        } else {
            rescales[mine] = 1.0;
        }
        for (var i = t % EACH; i < WIDTH; i += EACH) {
            let position = start + i;
            let seen = position < end && sees(head, own, position);
            let prob = select(0.0, exp(scores[mine * SCORES + i] - running_max), seen);
            probs[mine * PROBS + i] = f16(prob);
            running_sum += prob;
        }
        let any_grew = subgroupAny(grew);
        if (thread == 0u) {
            max_grew[subgroup] = u32(any_grew && start > first);
        }
        for (var at = t; at < WIDTH * DIM4; at += THREADS) {
            let position = start + at / DIM4;
            let lane = at % DIM4;
            var v = vec4<f32>();
            if (position >= seen_from && position < end && lane < params.head4) {
                v = value(slot(pages_at, position) * params.slot_stride + kv, lane);
            }
            cache(at / DIM4 * PITCH + 4u * lane, v);
        }
        // also a barrier
        let growth = workgroupUniformLoad(&max_grew);
        if (growth[0] + growth[1] + growth[2] + growth[3] > 0u) {
            // for i in HIGH
            // for j in WIDE
            let large$(i)$(j) = sum$(i)$(j);
            coopStoreT(large$(i)$(j), &scores[own_matrix], $(SIDE)u);
            workgroupBarrier();
            for (var at = t; at < 4u * SIDE * SIDE; at += THREADS) {
                scores[at] *= rescales[at / (SIDE * SIDE) % 2u * (ROWS / 2u) + $(i)u * SIDE + at / SIDE % SIDE];
            }
            workgroupBarrier();
            sum$(i)$(j) = coopLoadT<coop_mat$(SIDE)x$(SIDE)<f32, C>>(&scores[own_matrix], $(SIDE)u);
            workgroupBarrier();
            // end
            // end
        }

        for (var k = 0u; k < WIDTH; k += SIDE) {
            // for i in HIGH
            let p$(i) = coopLoadT<coop_mat$(SIDE)x$(SIDE)<f16, A>>(&probs[(line + $(i)u * SIDE) * PROBS + k], PROBS);
            // end
            // for j in WIDE
            let v$(j) = coopLoadT<coop_mat$(SIDE)x$(SIDE)<f16, B>>(&cached[k * PITCH + part + $(j)u * SIDE], PITCH);
            // for i in HIGH
            sum$(i)$(j) = coopMultiplyAdd(p$(i), v$(j), sum$(i)$(j));
            // end
            // end
        }
        workgroupBarrier();
    }

    row_maxes[mine] = running_max;
    thread_sums[t] = running_sum;
    // for i in HIGH
    // for j in WIDE
    let result$(i)$(j) = sum$(i)$(j);
    coopStoreT(result$(i)$(j), &scores[own_matrix], $(SIDE)u);
    workgroupBarrier();
    for (var at = t; at < SIDE * SIDE; at += THREADS) {
        let matrix = at / (SIDE * SIDE / 4u);
        let row = matrix % 2u * (ROWS / 2u) + $(i)u * SIDE + at / (SIDE / 4u) % SIDE;
        let lane = (matrix / 2u * (DIM / 2u) + $(j)u * SIDE) / 4u + at % (SIDE / 4u);
        if (row < count && lane < params.head4) {
            var all = 0.0;
            for (var i = 0u; i < EACH; i++) {
                all += thread_sums[EACH * row + i];
            }
            let v = vec4<f32>(scores[4u * at], scores[4u * at + 1u], scores[4u * at + 2u], scores[4u * at + 3u]);
            write_output(vec3<u32>(head, row0 + row, group.z), lane, v, row_maxes[row], all);
        }
    }
    workgroupBarrier();
    // end
    // end
}
