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

var<workgroup> partial: array<vec4<f32>, TILE_ROWS * THREADS>;
var<workgroup> squares: array<f32, TILE_ROWS * THREADS>;

fn row_sums(thread: Thread, sums: array<vec4<f32>, TILE_ROWS>, powers: array<f32, TILE_ROWS>) -> Sums {
    for (var r = 0u; r < TILE_ROWS; r++) {
        let y = subgroupAdd(sums[r]);
        var power = 0.0;
        if (NORMED) {
            power = subgroupAdd(powers[r]);
        }
        if (thread.lane == 0u) {
            partial[r * THREADS + thread.subgroup] = y;
            squares[r * THREADS + thread.subgroup] = power;
        }
    }
    workgroupBarrier();
    let at = min(thread.t, TILE_ROWS - 1u) * THREADS;
    var result = Sums(partial[at], squares[at]);
    for (var i = 1u; i < thread.subgroups; i++) {
        result.y += partial[at + i];
        result.squares += squares[at + i];
    }
    return result;
}
