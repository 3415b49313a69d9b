//! Position embeddings of a grid of patches, from a square table.

/// The table `[side, side, width]` resized to `[rows, cols, width]`: bilinear, with a filter that widens where the grid is
/// smaller than the table (antialiasing).
///
/// # Source
///
/// `torch.nn.functional.interpolate` with `mode="bilinear"`, `align_corners=False`, `antialias=True`, as
/// `Siglip2VisionEmbeddings` of transformers calls it. (On a CPU, torch 2.15 gives every row of a grid of one column the values
/// of the first; this function does not.)
pub(super) fn resized(table: &[f32], side: usize, width: usize, (rows, cols): (usize, usize)) -> Vec<f32> {
    // the horizontal pass first, as in the reference
    let mut across = vec![0.0; side * cols * width];
    let taps = taps(side, cols);
    for (line, out) in table.chunks_exact(side * width).zip(across.chunks_exact_mut(cols * width)) {
        for ((first, weights), out) in taps.iter().zip(out.chunks_exact_mut(width)) {
            let places = line[first * width..].chunks_exact(width);
            places.zip(weights).for_each(|(place, weight)| add(out, place, *weight));
        }
    }
    let mut out = vec![0.0; rows * cols * width];
    for ((first, weights), out) in self::taps(side, rows).iter().zip(out.chunks_exact_mut(cols * width)) {
        let lines = across[first * cols * width..].chunks_exact(cols * width);
        lines.zip(weights).for_each(|(line, weight)| add(out, line, *weight));
    }
    out
}

fn add(out: &mut [f32], values: &[f32], weight: f32) {
    out.iter_mut().zip(values).for_each(|(out, value)| *out += weight * value);
}

/// The first input and the weights of each of `to` outputs over `from` inputs.
fn taps(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = from as f64 / to as f64;
    let support = scale.max(1.0);
    let tap = |output: usize| {
        let center = (output as f64 + 0.5) * scale;
        // casts truncate, and make negative values 0
        let first = (center - support + 0.5) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let weight = |input: usize| (1.0 - ((input as f64 - center + 0.5) / support).abs()).max(0.0);
        let sum: f64 = (first..end).map(weight).sum();
        (first, (first..end).map(|input| (weight(input) / sum) as f32).collect())
    };
    (0..to).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `t[y][x] = [y * y, x + 10 * y]` of 4 · 4 places, by torch 2.15.
    #[test]
    fn as_torch() {
        let table: Vec<f32> =
            (0..16).flat_map(|at| [(at / 4 * (at / 4)) as f32, (at % 4 + at / 4 * 10) as f32]).collect();
        for (grid, expected) in [
            (
                (2, 3),
                vec![1.0, 7.44286, 1.0, 8.64286, 1.0, 9.84286, 5.71429, 23.15714, 5.71429, 24.35714, 5.71429, 25.55714],
            ),
            ((1, 1), vec![3.33333, 16.5]),
            (
                (5, 2),
                vec![
                    0.0, 0.71429, 0.0, 2.28571, 0.7, 7.71429, 0.7, 9.28572, 2.5, 15.71428, 2.5, 17.28572, 5.5,
                    23.71428, 5.5, 25.28571, 9.0, 30.71429, 9.0, 32.28571,
                ],
            ),
            (
                (1, 7),
                vec![
                    3.33333, 15.0, 3.33333, 15.35714, 3.33333, 15.92857, 3.33333, 16.5, 3.33333, 17.07143, 3.33333,
                    17.64286, 3.33333, 18.0,
                ],
            ),
        ] {
            let found = resized(&table, 4, 2, grid);
            assert_eq!(found.len(), expected.len());
            let most = found.iter().zip(expected).map(|(a, b): (&f32, f32)| (a - b).abs()).fold(0.0, f32::max);
            assert!(most < 1e-5, "{grid:?}: {most}");
        }
        assert_eq!(resized(&table, 4, 2, (4, 4)), table);
    }

    /// The weights of an output are not negative, and their sum is 1.
    #[test]
    fn weights_are_a_mean() {
        for (from, to) in (1..40).flat_map(|from| (1..70).map(move |to| (from, to))) {
            for (first, weights) in taps(from, to) {
                assert!(first + weights.len() <= from && !weights.is_empty(), "{from} to {to}");
                let sum: f32 = weights.iter().sum();
                assert!((sum - 1.0).abs() < 1e-5 && weights.iter().all(|weight| *weight >= 0.0), "{from} to {to}");
            }
        }
    }
}
