// Splits of the positions that rows see, for workgroups that share a row. They depend on the number of these positions only.

const SPLIT_STEP: u32 = 128u;

// Positions of a split of `seen` positions.
fn kv_per_split(seen: u32) -> u32 {
    let splits = clamp(seen / params.least_split, 1u, params.most_splits);
    return ((seen + splits - 1u) / splits + SPLIT_STEP - 1u) / SPLIT_STEP * SPLIT_STEP;
}
