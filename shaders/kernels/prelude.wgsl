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
