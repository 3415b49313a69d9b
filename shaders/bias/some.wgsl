// A bias, in the order of the weight's rows on the device.

@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;

fn biased(n: u32, y: vec4<f32>) -> vec4<f32> {
    return y + bias[n / 4u];
}
