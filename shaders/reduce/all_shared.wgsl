// Reductions over a workgroup, in workgroup memory; every thread gets the result.

struct Thread {
    @builtin(local_invocation_index) t: u32,
}

var<workgroup> reduced: array<f32, THREADS>;

fn all_sum(thread: Thread, v: f32) -> f32 {
    workgroupBarrier();
    reduced[thread.t] = v;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if (thread.t < half) {
            reduced[thread.t] += reduced[thread.t + half];
        }
        workgroupBarrier();
    }
    return reduced[0];
}

fn all_max(thread: Thread, v: f32) -> f32 {
    workgroupBarrier();
    reduced[thread.t] = v;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if (thread.t < half) {
            reduced[thread.t] = max(reduced[thread.t], reduced[thread.t + half]);
        }
        workgroupBarrier();
    }
    return reduced[0];
}
