// out = scale * activation(y + bias)

fn epilogue(row: u32, n: u32, y: vec4<f32>) {
    out[row * params.epilogue.stride + n / 4u] = params.epilogue.scale * activated(biased(n, y));
}
