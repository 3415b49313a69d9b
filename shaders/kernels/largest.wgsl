// Shared by the kernels that look for the largest logit: a reduction over the workgroup. The constant THREADS is declared in the
// kernel.

var<workgroup> keys: array<u32, THREADS>;
var<workgroup> tokens: array<u32, THREADS>;

// Key and token of the largest key of all threads, the first token of equals; for all of them.
fn first_largest(t: u32, key: u32, token: u32) -> vec2<u32> {
    keys[t] = key;
    tokens[t] = token;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if (t < half) {
            let other = keys[t + half];
            if (other > keys[t] || (other == keys[t] && tokens[t + half] < tokens[t])) {
                keys[t] = other;
                tokens[t] = tokens[t + half];
            }
        }
        workgroupBarrier();
    }
    let largest = vec2<u32>(keys[0], tokens[0]);
    workgroupBarrier();
    return largest;
}
