//! HD transform of features: patches of all crops to one list of tokens.

use super::VisionSpec;

/// Tokens `[tokens, 4 * hidden]` from features of patches `[1 + rows * cols, patches, hidden]`. A token is four patches, the
/// features of a square of 2 · 2 side by side. The tokens of the crops are in row order of the whole picture, and `sub_gn` ends
/// each row. `glb_gn` follows, then the global view in the same order.
///
/// Source: `modeling_phi3_v.py` of Phi-3-vision, `Phi3ImageEmbedding.forward` with `hd_transform_order` `sub_glb`.
pub(super) fn merge(
    spec: &VisionSpec,
    features: &[f32],
    (rows, cols): (usize, usize),
    sub_gn: &[f32],
    glb_gn: &[f32],
) -> Vec<f32> {
    let mut out = Vec::with_capacity(spec.tokens(rows, cols) * spec.token_width());
    let (global, crops) = features.split_at(spec.side().pow(2) * spec.token_width());
    lines(spec, crops, (rows, cols), sub_gn, &mut out);
    out.extend_from_slice(glb_gn);
    lines(spec, global, (1, 1), sub_gn, &mut out);
    out
}

/// Appends the rows of tokens of `rows` · `cols` crops to `out`.
fn lines(spec: &VisionSpec, crops: &[f32], (rows, cols): (usize, usize), sub_gn: &[f32], out: &mut Vec<f32>) {
    let (side, hidden) = (spec.side(), spec.hidden_size);
    for line in 0..rows * side {
        for column in 0..cols * side {
            let crop = line / side * cols + column / side;
            let (top, left) = (line % side * 2, column % side * 2);
            for (down, right) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let patch = (top + down) * 2 * side + left + right;
                out.extend_from_slice(&crops[(crop * 4 * side * side + patch) * hidden..][..hidden]);
            }
        }
        out.extend_from_slice(sub_gn);
    }
}
