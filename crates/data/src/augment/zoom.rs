//! Zoom around the centre.

/// Where a sample lies on a side: the two neighbours, and the weight of the second.
type Tap = (usize, usize, f32);

/// The zoom factor of a uniform number in [0, 1): uniform in its logarithm between `1 / (1 + reach)` and `1 + reach`.
pub(super) fn factor(reach: f64, uniform: f64) -> f64 {
    libm::exp((2.0 * uniform - 1.0) * libm::log1p(reach))
}

/// Zooms every plane around its centre by `factor`, bilinear; edge pixels are repeated.
///
/// # Shapes
/// - `planes`: `[.., height, width]`
/// - returns the same
pub(super) fn zoom(planes: &[f32], [height, width]: [usize; 2], factor: f64) -> Vec<f32> {
    let [rows, columns] = [height, width].map(|side| taps(side, factor));
    let mut out = Vec::with_capacity(planes.len());
    for plane in planes.chunks_exact(height * width) {
        for &(above, below, down) in &rows {
            let [above, below] = [above, below].map(|y| &plane[y * width..][..width]);
            out.extend(columns.iter().map(|&(left, right, along)| {
                let mix = |row: &[f32]| row[left] + along * (row[right] - row[left]);
                let (a, b) = (mix(above), mix(below));
                a + down * (b - a)
            }));
        }
    }
    out
}

/// The samples along a side.
fn taps(side: usize, factor: f64) -> Vec<Tap> {
    let (last, centre) = (side - 1, (side - 1) as f64 / 2.0);
    let tap = |i: usize| {
        let at = ((i as f64 - centre) / factor + centre).clamp(0.0, last as f64);
        let first = at as usize;
        (first, (first + 1).min(last), (at - first as f64) as f32)
    };
    (0..side).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_symmetric_around_one() {
        assert!((factor(0.25, 0.0) - 0.8).abs() < 1e-12);
        assert!((factor(0.25, 0.5) - 1.0).abs() < 1e-12);
        assert!((factor(0.25, 1.0) - 1.25).abs() < 1e-12);
    }

    #[test]
    fn a_zoom_repeats_the_edges_and_keeps_the_centre() {
        let ramp: Vec<f32> = (0..10).map(|i| (i % 5) as f32).collect();
        assert_eq!(zoom(&ramp, [2, 5], 1.0), ramp);
        let near = zoom(&ramp, [2, 5], 2.0);
        assert_eq!(near[..5], [1.0, 1.5, 2.0, 2.5, 3.0]);
        let far = zoom(&ramp, [2, 5], 0.5);
        assert_eq!(far[..5], [0.0, 0.0, 2.0, 4.0, 4.0]);
        let one = zoom(&[3.0], [1, 1], 0.7);
        assert_eq!(one, [3.0]);
    }
}
