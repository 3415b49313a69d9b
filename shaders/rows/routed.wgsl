// Rows grouped by expert: route.wgsl lists the expert and the routes of each tile. A weight holds one matrix for each expert; a
// piece of it holds whole matrices, or rows of one. `first` is the first expert of the piece, `rows` the number of experts,
// `outputs` the rows of each. SHARE routes use one row of x.

@group(0) @binding(12) var<storage, read> routes: array<u32>;

fn tile_at(tile: u32) -> u32 {
    return params.rows_at + tile * (TILE_ROWS + 1u);
}

// NO_ROUTE, the expert of an empty tile, is in no piece.
fn has_work(tile: u32) -> bool {
    return routes[tile_at(tile)] >= params.first && routes[tile_at(tile)] - params.first < params.rows;
}

fn weight_row(tile: u32) -> u32 {
    return (routes[tile_at(tile)] - params.first) * params.outputs;
}

fn first_output() -> u32 {
    return params.epilogue.first;
}

fn has_row(tile: u32, i: u32) -> bool {
    return routes[tile_at(tile) + 1u + i] != NO_ROUTE;
}

fn row_from(tile: u32, i: u32) -> u32 {
    return select(0u, routes[tile_at(tile) + 1u + i] / SHARE, has_row(tile, i));
}

fn row_to(tile: u32, i: u32) -> u32 {
    return routes[tile_at(tile) + 1u + i];
}
