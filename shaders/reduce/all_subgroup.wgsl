// Reductions over a workgroup: subgroup operations for any subgroup size, then workgroup memory; every thread gets the result.

struct Thread {
    @builtin(local_invocation_index) t: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(num_subgroups) subgroups: u32,
}

var<workgroup> reduced: array<f32, THREADS>;

fn all_sum(thread: Thread, v: f32) -> f32 {
    let mine = subgroupAdd(v);
    workgroupBarrier();
    if (thread.lane == 0u) {
        reduced[thread.subgroup] = mine;
    }
    workgroupBarrier();
    var sum = reduced[0];
    for (var i = 1u; i < thread.subgroups; i++) {
        sum += reduced[i];
    }
    return sum;
}

fn all_max(thread: Thread, v: f32) -> f32 {
    let mine = subgroupMax(v);
    workgroupBarrier();
    if (thread.lane == 0u) {
        reduced[thread.subgroup] = mine;
    }
    workgroupBarrier();
    var most = reduced[0];
    for (var i = 1u; i < thread.subgroups; i++) {
        most = max(most, reduced[i]);
    }
    return most;
}
