// out += scale * activation(y + bias): the residual

fn epilogue(row: u32, n: u32, y: vec4<f32>) {
    let at = row * params.epilogue.stride + n / 4u;
    out[at] = out[at] + params.epilogue.scale * activated(biased(n, y));
}
