// Every position up to a row's own, or the last `window` of them.

const HOLES: bool = false;

fn first_seen(own: u32) -> u32 {
    if (params.window != 0u && own >= params.window) {
        return own + 1u - params.window;
    }
    return 0u;
}

// End of the positions that rows see, if the last of these rows is at position `end - 1`.
fn seen_end(row: u32, end: u32) -> u32 {
    return end;
}

fn sees(head: u32, own: u32, position: u32) -> bool {
    return position <= own && (params.window == 0u || position + params.window > own);
}

// Whether rows from position `own` on see any of `start ..= last`.
fn any_seen(head: u32, own: u32, start: u32, last: u32) -> bool {
    return true;
}
