// Splits of the positions that rows see, for workgroups that share a row. They depend on the number of these positions only.

const SPLIT_STEP: u32 = 128u;

struct Split {
    seen_from: u32, // first position that the first row sees
    first: u32,
    end: u32,
}

// Positions of a split of `seen` positions.
fn kv_per_split(seen: u32) -> u32 {
    let splits = clamp(seen / params.least_split, 1u, params.most_splits);
    return ((seen + splits - 1u) / splits + SPLIT_STEP - 1u) / SPLIT_STEP * SPLIT_STEP;
}

// A split for `count` rows from `row` on. Positions are grouped as for a whole tile of `height` rows, wherever its rows begin and end.
fn split_of(index: u32, row: u32, count: u32, height: u32) -> Split {
    let position = batch[4u * row + 1u];
    let base = position / height * height;
    let base_from = first_seen(base);
    let size = kv_per_split(seen_end(row, base + height) - base_from);
    let first = base_from + index * size;
    return Split(first_seen(position), first, min(seen_end(row, position + count), first + size));
}
