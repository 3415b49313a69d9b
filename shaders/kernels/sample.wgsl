// A random token by the row's logits: temperature, then top-k, top-p and min-p, each applied to the tokens that the one before
// kept; NO_TOKEN if a logit is not finite or all tokens are excluded. The token goes to the row's slot and to its result.
//
// A token's weight is exp((logit - largest) / temperature) in units of 2^-31, an integer. All sums are of integers, so the
// order of summation does not change them. Top-k keeps the k largest logits and those equal to the k-th. Top-p drops the
// smallest weights while their sum is at most drop / 2^32 of the total; of equal weights the later ones. Min-p drops weights
// below floor. The result is the first token at which the running sum of weights exceeds draw / 2^32 of the total.
//
// Shapes: logits [rows, stride], samples [records, RECORD], results [records, result]. The row's logits become weights. Grid: one
// workgroup per record.

struct Params {
    vocab: u32,
    stride: u32,    // of logits
    first: u32,     // first record
    by_record: u32, // 1 if the logits have a row for each record; 0 for the rows that the records name
    result: u32,    // words of a result
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> logits: array<u32>;
@group(0) @binding(5) var<storage, read_write> results: array<u32>;
@group(0) @binding(8) var<storage, read> samples: array<u32>;
@group(0) @binding(9) var<storage, read_write> sampled: array<u32>;

const THREADS: u32 = 256u;
const ONE: u32 = 0x80000000u;

var<workgroup> shared_low: array<u32, THREADS>;
var<workgroup> shared_high: array<u32, THREADS>;
var<workgroup> low: array<atomic<u32>, THREADS>;
var<workgroup> high: array<atomic<u32>, THREADS>;
// Written by thread 0: the leading bytes of the number searched for, and the sum left to exceed.
var<workgroup> prefix: u32;
var<workgroup> left: vec2<u32>;

// Numbers of 64 bits: the low half, then the high half.
fn add(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let x = a.x + b.x;
    return vec2<u32>(x, a.y + b.y + select(0u, 1u, x < a.x));
}

fn subtract(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2<u32>(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}

fn above(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y > b.y || (a.y == b.y && a.x > b.x);
}

fn multiply(a: u32, b: u32) -> vec2<u32> {
    let middle = (a >> 16u) * (b & 0xffffu);
    let other = (a & 0xffffu) * (b >> 16u);
    var product = vec2<u32>((a & 0xffffu) * (b & 0xffffu), (a >> 16u) * (b >> 16u));
    product = add(product, vec2<u32>(middle << 16u, middle >> 16u));
    return add(product, vec2<u32>(other << 16u, other >> 16u));
}

// a * share / 2^32
fn part(a: vec2<u32>, share: u32) -> vec2<u32> {
    return add(multiply(a.y, share), vec2<u32>(multiply(a.x, share).y, 0u));
}

// a / b; the quotient has 32 bits.
fn quotient(a: vec2<u32>, b: u32) -> u32 {
    var rest = vec2<u32>();
    var result = 0u;
    for (var i = 0u; i < 64u; i++) {
        let bit = select(a.y >> (63u - i), a.x >> (63u - i), i >= 32u) & 1u;
        rest = vec2<u32>((rest.x << 1u) | bit, (rest.y << 1u) | (rest.x >> 31u));
        result <<= 1u;
        if (!above(vec2<u32>(b, 0u), rest)) {
            rest = subtract(rest, vec2<u32>(b, 0u));
            result |= 1u;
        }
    }
    return result;
}

fn weight(bits: u32, largest: f32, temperature: f32) -> u32 {
    let below = bitcast<f32>(bits) - largest;
    if (below >= 0.0) {
        return ONE;
    }
    if (below < -30.0 * temperature) {
        return 0u;
    }
    return min(u32(exp(below / temperature) * 2147483648.0), ONE);
}

// Sum of all threads' numbers, for all of them.
fn total(t: u32, mine: vec2<u32>) -> vec2<u32> {
    shared_low[t] = mine.x;
    shared_high[t] = mine.y;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if (t < half) {
            let a = vec2<u32>(shared_low[t], shared_high[t]);
            let sum = add(a, vec2<u32>(shared_low[t + half], shared_high[t + half]));
            shared_low[t] = sum.x;
            shared_high[t] = sum.y;
        }
        workgroupBarrier();
    }
    let sum = vec2<u32>(shared_low[0], shared_high[0]);
    workgroupBarrier();
    return sum;
}

// Sum of the numbers of the threads before this one.
fn before(t: u32, mine: vec2<u32>) -> vec2<u32> {
    shared_low[t] = mine.x;
    shared_high[t] = mine.y;
    workgroupBarrier();
    for (var step = 1u; step < THREADS; step *= 2u) {
        var sum = vec2<u32>(shared_low[t], shared_high[t]);
        if (t >= step) {
            sum = add(sum, vec2<u32>(shared_low[t - step], shared_high[t - step]));
        }
        workgroupBarrier();
        shared_low[t] = sum.x;
        shared_high[t] = sum.y;
        workgroupBarrier();
    }
    let sum = vec2<u32>(shared_low[t], shared_high[t]);
    workgroupBarrier();
    return subtract(sum, mine);
}

fn clear(t: u32) {
    atomicStore(&low[t], 0u);
    atomicStore(&high[t], 0u);
    workgroupBarrier();
}

fn count(bin: u32, n: u32) {
    if (atomicAdd(&low[bin], n) > 0xffffffffu - n) {
        atomicAdd(&high[bin], 1u);
    }
}

// Finds the bin in which the running sum exceeds `left`: from bin 0 up, or from the last bin down.
fn find(t: u32, shift: u32, down: bool) {
    workgroupBarrier();
    if (t == 0u) {
        var rest = left;
        var bin = 0u;
        for (var i = 0u; i < THREADS; i++) {
            bin = select(i, THREADS - 1u - i, down);
            let sum = vec2<u32>(atomicLoad(&low[bin]), atomicLoad(&high[bin]));
            if (above(sum, rest)) {
                break;
            }
            rest = subtract(rest, sum);
        }
        left = rest;
        prefix |= bin << shift;
    }
    workgroupBarrier();
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let index = params.first + group.x;
    let record = index * RECORD;
    let excludes = samples[record + EXCLUDES];
    let top_k = samples[record + TOP_K];
    let temperature = bitcast<f32>(samples[record + TEMPERATURE]);
    let drop = samples[record + DROP];
    let floor = samples[record + FLOOR];
    let draw = samples[record + DRAW];
    let start = select(samples[record + ROW], index, params.by_record == 1u) * params.stride;

    var most = 0u;
    for (var i = t; i < params.vocab; i += THREADS) {
        most = max(most, float_key(logits[start + i], excludes));
    }
    shared_low[t] = most;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if (t < half) {
            shared_low[t] = max(shared_low[t], shared_low[t + half]);
        }
        workgroupBarrier();
    }
    most = shared_low[0];
    workgroupBarrier();

    // k-th largest logit, byte by byte
    if (t == 0u) {
        prefix = 0u;
        left = vec2<u32>(top_k - 1u, 0u);
    }
    if (top_k > 0u && top_k < params.vocab) {
        for (var level = 0u; level < 4u; level++) {
            let shift = 24u - 8u * level;
            clear(t);
            let known = prefix;
            for (var i = t; i < params.vocab; i += THREADS) {
                let key = float_key(logits[start + i], excludes);
                // in two shifts, because one by 32 would be one by 0
                if (((key ^ known) >> shift) >> 8u == 0u) {
                    atomicAdd(&low[(key >> shift) & 255u], 1u);
                }
            }
            find(t, shift, true);
        }
    }
    workgroupBarrier();
    let least = prefix;

    // logits become weights
    let largest = bitcast<f32>(select(~most, most ^ 0x80000000u, most >= 0x80000000u));
    var mine = vec2<u32>();
    for (var i = t; i < params.vocab; i += THREADS) {
        let bits = logits[start + i];
        let key = float_key(bits, excludes);
        var w = 0u;
        if (key > 0u && key >= least) {
            w = weight(bits, largest, temperature);
        }
        logits[start + i] = w;
        mine = add(mine, vec2<u32>(w, 0u));
    }
    let sum = total(t, mine);

    // smallest weight that top-p keeps, byte by byte, and how many weights equal to it are dropped
    if (t == 0u) {
        prefix = 0u;
        left = part(sum, drop);
    }
    storageBarrier();
    workgroupBarrier();
    if (drop > 0u) {
        for (var level = 0u; level < 4u; level++) {
            let shift = 24u - 8u * level;
            clear(t);
            let known = prefix;
            for (var i = t; i < params.vocab; i += THREADS) {
                let w = logits[start + i];
                // after top-k most weights are 0
                if (w > 0u && ((w ^ known) >> shift) >> 8u == 0u) {
                    count((w >> shift) & 255u, w);
                }
            }
            find(t, shift, false);
        }
    }
    let smallest = prefix;
    var dropped = 0u;
    if (smallest > 0u) {
        dropped = quotient(left, smallest);
    }

    // from here on a thread takes consecutive tokens
    let share = (params.vocab + THREADS - 1u) / THREADS;
    let first = min(t * share, params.vocab);
    let last = min(first + share, params.vocab);
    mine = vec2<u32>();
    for (var i = first; i < last; i++) {
        mine.x += select(0u, 1u, logits[start + i] == smallest);
    }
    let equals = total(t, mine).x;
    var kept = equals - min(dropped, equals);
    kept -= min(before(t, mine).x, kept);
    mine = vec2<u32>();
    for (var i = first; i < last; i++) {
        var w = logits[start + i];
        if (w == smallest) {
            if (kept == 0u) {
                w = 0u;
            } else {
                kept -= 1u;
            }
        }
        if (w < smallest || w < floor) {
            w = 0u;
        }
        logits[start + i] = w;
        mine = add(mine, vec2<u32>(w, 0u));
    }

    let wanted = part(total(t, mine), draw);
    var passed = before(t, mine);
    if (most == NOT_FINITE || most == 0u) {
        if (t == 0u) {
            sampled[samples[record + SLOT]] = NO_TOKEN;
            results[index * params.result] = NO_TOKEN;
        }
        return;
    }
    if (above(passed, wanted) || !above(add(passed, mine), wanted)) {
        return;
    }
    for (var i = first; i < last; i++) {
        passed = add(passed, vec2<u32>(logits[start + i], 0u));
        if (above(passed, wanted)) {
            sampled[samples[record + SLOT]] = i;
            results[index * params.result] = i;
            return;
        }
    }
}
