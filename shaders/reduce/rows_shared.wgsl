// Sums over a workgroup for TILE_ROWS rows at once, in workgroup memory; thread r gets the sums of row r.

struct Thread {
    @builtin(local_invocation_index) t: u32,
}

struct Sums {
    y: vec4<f32>,
    squares: f32,
}

var<workgroup> partial: array<vec4<f32>, TILE_ROWS * THREADS>;
var<workgroup> squares: array<f32, TILE_ROWS * THREADS>;

fn row_sums(thread: Thread, sums: array<vec4<f32>, TILE_ROWS>, powers: array<f32, TILE_ROWS>) -> Sums {
    let t = thread.t;
    for (var r = 0u; r < TILE_ROWS; r++) {
        partial[r * THREADS + t] = sums[r];
        if (NORMED) {
            squares[r * THREADS + t] = powers[r];
        }
    }
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if (t < half) {
            for (var r = 0u; r < TILE_ROWS; r++) {
                let at = r * THREADS + t;
                partial[at] += partial[at + half];
                if (NORMED) {
                    squares[at] += squares[at + half];
                }
            }
        }
        workgroupBarrier();
    }
    let at = min(t, TILE_ROWS - 1u) * THREADS;
    return Sums(partial[at], squares[at]);
}
