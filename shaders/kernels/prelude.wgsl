// Shared by every kernel. The constants FOLD and PAGE are declared before this source.

// Eight consecutive weights of a row.
struct Eight {
    a: vec4<f32>,
    b: vec4<f32>,
}

// Index of a workgroup in a grid that is folded into rows of FOLD, because no axis may exceed 65535.
fn folded(group: vec3<u32>) -> u32 {
    return group.y * FOLD + group.x;
}

// Halves of v, rounded to nearest, ties to even: `pack2x16float` cuts bits off on some drivers. The smallest numbers, below 2^-14, are
// left to the driver.
fn packed_halves(v: vec2<f32>) -> u32 {
    let bits = bitcast<vec2<u32>>(v);
    let odd = (bits >> vec2<u32>(13u)) & vec2<u32>(1u);
    let rounded = bitcast<vec2<f32>>((bits + vec2<u32>(0xfffu) + odd) & vec2<u32>(0xffffe000u));
    return pack2x16float(select(v, rounded, abs(v) >= vec2<f32>(6.1035156e-5)));
}
