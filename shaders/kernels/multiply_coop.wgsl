// Benchmark of the arithmetic rate of matrix units: products of matrices of halves, summed in single precision. A step of a
// subgroup is 8 products of SIDE by SIDE matrices.
//
// Shapes: out [workgroups, 4, SIDE, SIDE]. Grid: as many workgroups of four subgroups as keep the device busy.

enable f16;
enable wgpu_cooperative_matrix;

struct Params {
    steps: u32,
    factor: f32,
    pad0: u32,
    pad1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

var<workgroup> xs: array<f16, SIDE * SIDE>;

@compute @workgroup_size($(THREADS))
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) t: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    for (var i = t; i < SIDE * SIDE; i += THREADS) {
        xs[i] = f16(params.factor * f32(i % 7u));
    }
    workgroupBarrier();
    let a = coopLoadT<coop_mat$(SIDE)x$(SIDE)<f16, A>>(&xs[0], $(SIDE)u);
    let b = coopLoad<coop_mat$(SIDE)x$(SIDE)<f16, B>>(&xs[0], $(SIDE)u);
    // for i in CHAINS
    var y$(i) = coop_mat$(SIDE)x$(SIDE)<f32, C>();
    // end
    for (var step = 0u; step < params.steps; step++) {
        // for i in CHAINS
        y$(i) = coopMultiplyAdd(a, b, y$(i));
        // end
    }
    let at = (group.x * 4u + subgroup) * SIDE * SIDE;
    // for i in CHAINS
    {
        let y = y$(i);
        coopStoreT(y, &out[at], $(SIDE)u);
    }
    // end
}
