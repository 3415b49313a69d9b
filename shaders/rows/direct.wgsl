// Consecutive rows of activations, each with the whole weight.

fn has_work(tile: u32) -> bool {
    return true;
}

fn weight_row(tile: u32) -> u32 {
    return 0u;
}

fn first_output() -> u32 {
    return params.first;
}

fn has_row(tile: u32, i: u32) -> bool {
    return params.rows_at + tile * TILE_ROWS + i < params.rows;
}

fn row_from(tile: u32, i: u32) -> u32 {
    return min(params.rows_at + tile * TILE_ROWS + i, params.rows - 1u);
}

fn row_to(tile: u32, i: u32) -> u32 {
    return params.rows_at + tile * TILE_ROWS + i;
}
