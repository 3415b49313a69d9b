// Sums over a workgroup for TILE_ROWS rows at once, in workgroup memory; thread r gets the sums of row r.

struct Thread {
    @builtin(local_invocation_index) t: u32,
}

struct Sums {
    y: vec4<f32>,
    squares: f32,
}

const ROUND: u32 = min(TILE_ROWS, 4u); // rows that fit into the memory at once

var<workgroup> partial: array<vec4<f32>, ROUND * THREADS>;
var<workgroup> squares: array<f32, ROUND * THREADS>;

fn row_sums(thread: Thread, sums: array<vec4<f32>, TILE_ROWS>, powers: array<f32, TILE_ROWS>) -> Sums {
    let t = thread.t;
    var result = Sums();
    for (var first = 0u; first < TILE_ROWS; first += ROUND) {
        if (first > 0u) {
            workgroupBarrier();
        }
        for (var r = 0u; r < ROUND; r++) {
            partial[r * THREADS + t] = sums[first + r];
            if (NORMED) {
                squares[r * THREADS + t] = powers[first + r];
            }
        }
        workgroupBarrier();
        for (var half = THREADS / 2u; half > 0u; half /= 2u) {
            if (t < half) {
                for (var r = 0u; r < ROUND; r++) {
                    let at = r * THREADS + t;
                    partial[at] += partial[at + half];
                    if (NORMED) {
                        squares[at] += squares[at + half];
                    }
                }
            }
            workgroupBarrier();
        }
        if (t >= first && t < first + ROUND) {
            result = Sums(partial[(t - first) * THREADS], squares[(t - first) * THREADS]);
        }
    }
    return result;
}
