// Sums over a workgroup for TILE_ROWS rows at once: subgroup operations for any subgroup size, then workgroup memory; thread r
// gets the sums of row r.

struct Thread {
    @builtin(local_invocation_index) t: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(num_subgroups) subgroups: u32,
}

struct Sums {
    y: vec4<f32>,
    squares: f32,
}

const ROUND: u32 = min(TILE_ROWS, 4u); // rows that fit into the memory at once

var<workgroup> partial: array<vec4<f32>, ROUND * THREADS>;
var<workgroup> squares: array<f32, ROUND * THREADS>;

fn row_sums(thread: Thread, sums: array<vec4<f32>, TILE_ROWS>, powers: array<f32, TILE_ROWS>) -> Sums {
    var result = Sums();
    for (var first = 0u; first < TILE_ROWS; first += ROUND) {
        if (first > 0u) {
            workgroupBarrier();
        }
        for (var r = 0u; r < ROUND; r++) {
            let y = subgroupAdd(sums[first + r]);
            var power = 0.0;
            if (NORMED) {
                power = subgroupAdd(powers[first + r]);
            }
            if (thread.lane == 0u) {
                partial[r * THREADS + thread.subgroup] = y;
                squares[r * THREADS + thread.subgroup] = power;
            }
        }
        workgroupBarrier();
        if (thread.t >= first && thread.t < first + ROUND) {
            let at = (thread.t - first) * THREADS;
            result = Sums(partial[at], squares[at]);
            for (var i = 1u; i < thread.subgroups; i++) {
                result.y += partial[at + i];
                result.squares += squares[at + i];
            }
        }
    }
    return result;
}
