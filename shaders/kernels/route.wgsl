// Chooses TOP experts for each row from `first` to `end` by its scores (sparsemixer, arXiv:2310.00811), and lists the routes by
// expert, in tiles.
//
// The weight of the best expert is its share in a softmax over the scores s with (best - s) / max(|s|, best) <= 2 * jitter. The
// next expert is chosen in the same way, without the one before. Route TOP * r + i is the i-th of row r.
//
// Shapes: scores [rows, stride]; routes: weights [TOP * rows], experts [TOP * rows], and from `routes_at` on
// [tiles][expert, `tile` routes], where missing routes, and the expert of an empty tile, are NO_ROUTE. Grid: one workgroup.

struct Params {
    rows: u32,      // of all routes
    experts: u32,
    stride: u32, // of scores, in f32
    jitter: f32,
    routes_at: u32,
    tile: u32,
    tiles: u32,
    first: u32,
    end: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scores: array<f32>;
@group(0) @binding(12) var<storage, read_write> routes: array<u32>;

const THREADS: u32 = 256u;

fn better(score: f32, best: f32, first: bool) -> bool {
    return first || score > best;
}

// Writes the weight and expert of route `route`: the best expert except `without`. Returns the expert; NO_ROUTE if there is
// none.
fn choose(row: u32, route: u32, without: u32) -> u32 {
    let at = row * params.stride;
    var expert = NO_ROUTE;
    var best = 0.0;
    for (var e = 0u; e < params.experts; e++) {
        if (e != without && better(scores[at + e], best, expert == NO_ROUTE)) {
            expert = e;
            best = scores[at + e];
        }
    }
    var sum = 0.0;
    for (var e = 0u; e < params.experts; e++) {
        let s = scores[at + e];
        if (e != without && (s == best || (best - s) / max(abs(s), best) <= 2.0 * params.jitter)) {
            sum += exp(s - best);
        }
    }
    let routed = expert != NO_ROUTE;
    routes[route] = bitcast<u32>(select(0.0, 1.0 / sum, routed));
    routes[TOP * params.rows + route] = select(0u, expert, routed);
    return expert;
}

// Number of tiles of the experts before this one.
fn tiles_before(expert: u32) -> u32 {
    var tiles = 0u;
    for (var e = 0u; e < expert; e++) {
        var count = 0u;
        for (var route = TOP * params.first; route < TOP * params.end; route++) {
            count += u32(routes[TOP * params.rows + route] == e);
        }
        tiles += (count + params.tile - 1u) / params.tile;
    }
    return tiles;
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) t: u32) {
    for (var row = params.first + t; row < params.end; row += THREADS) {
        var without = NO_ROUTE;
        for (var i = 0u; i < TOP; i++) {
            without = choose(row, TOP * row + i, without);
        }
    }
    let size = params.tile + 1u;
    for (var i = t; i < params.tiles * size; i += THREADS) {
        routes[params.routes_at + i] = NO_ROUTE;
    }
    storageBarrier();
    workgroupBarrier();
    for (var expert = t; expert < params.experts; expert += THREADS) {
        let first = params.routes_at + tiles_before(expert) * size;
        var count = 0u;
        for (var route = TOP * params.first; route < TOP * params.end; route++) {
            if (routes[TOP * params.rows + route] == expert) {
                let tile = first + count / params.tile * size;
                routes[tile] = expert;
                routes[tile + 1u + count % params.tile] = route;
                count++;
            }
        }
    }
}
