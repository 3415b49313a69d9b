// Block-sparse mask, in blocks of `window` positions: the last `local_blocks` blocks, and every block_stride-th block, with
// an offset that differs between heads.

const HOLES: bool = true;

fn first_seen(own: u32) -> u32 {
    return 0u;
}

// End of the positions that rows see, if the last of these rows is at position `end - 1`.
fn seen_end(row: u32, end: u32) -> u32 {
    return end;
}

fn in_pattern(head: u32, block: u32) -> bool {
    return (block + head * params.head_step + 1u) % params.block_stride == 0u;
}

fn sees(head: u32, own: u32, position: u32) -> bool {
    let block = position / params.window;
    return position <= own && (block + params.local_blocks > own / params.window || in_pattern(head, block));
}

// Whether rows from position `own` on see any of `start ..= last`.
fn any_seen(head: u32, own: u32, start: u32, last: u32) -> bool {
    if (last / params.window + params.local_blocks > own / params.window) {
        return true;
    }
    for (var block = start / params.window; block <= last / params.window; block++) {
        if (in_pattern(head, block)) {
            return true;
        }
    }
    return false;
}
