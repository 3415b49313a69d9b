// Every position up to the last one of a row's segment. The batch metadata holds the end of each row's segment from `window`
// on.

const HOLES: bool = false;

fn first_seen(own: u32) -> u32 {
    return 0u;
}

// End of the positions that rows see.
fn seen_end(row: u32, end: u32) -> u32 {
    return batch[params.window + row];
}

fn sees(head: u32, own: u32, position: u32) -> bool {
    return true;
}

// Whether rows from position `own` on see any of `start ..= last`.
fn any_seen(head: u32, own: u32, start: u32, last: u32) -> bool {
    return true;
}
