// Shared by IQ4_NL and IQ4_XS: the values that their indices choose from.

fn levels(i: vec4<u32>) -> vec4<f32> {
    // -127 -104 -83 -65, -49 -35 -22 -10, 1 13 25 38, 53 69 89 113: a table in memory would be slower
    let upper = (i & vec4<u32>(4u)) != vec4<u32>(0u);
    let low = select(vec4<u32>(0xbfad9881u), vec4<u32>(0xf6eaddcfu), upper);
    let high = select(vec4<u32>(0x26190d01u), vec4<u32>(0x71594535u), upper);
    let four = select(low, high, (i & vec4<u32>(8u)) != vec4<u32>(0u));
    let shift = vec4<u32>(24u) - (i & vec4<u32>(3u)) * 8u;
    return vec4<f32>(bitcast<vec4<i32>>(four << shift) >> vec4<u32>(24u));
}
