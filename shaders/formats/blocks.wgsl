// Shared by the sources of block-quantized formats. The host splits ggml's blocks into two planes: `weight` holds quants in
// groups of eight weights, `scales` holds the scales and minima of the blocks.

// Fields of four consecutive weights, from the lowest bits of q.
fn nibbles(q: u32) -> vec4<u32> {
    return (vec4<u32>(q) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u);
}

fn pairs(q: u32) -> vec4<u32> {
    return (vec4<u32>(q) >> vec4<u32>(0u, 2u, 4u, 6u)) & vec4<u32>(3u);
}

fn bits(q: u32) -> vec4<u32> {
    return (vec4<u32>(q) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(1u);
}

// Byte i of q, with its sign.
fn signed_byte(q: u32, i: u32) -> i32 {
    return bitcast<i32>(q << (24u - 8u * i)) >> 24u;
}

// Half i of q.
fn half_of(q: u32, i: u32) -> f32 {
    return unpack2x16float(q >> (16u * i)).x;
}
