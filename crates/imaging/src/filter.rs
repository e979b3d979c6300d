//! Resampling kernels and their weights.

use std::f64::consts::PI;

/// Fractional bits of the integer weights for 8-bit pictures.
pub(crate) const PRECISION: u32 = 22;

/// A resampling kernel. All kernels widen when the picture shrinks, so none aliases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Filter {
    /// The mean over the covered area.
    Box,
    /// A triangle of half width 1.
    Bilinear,
    /// The Keys cubic with a = -0.5, of half width 2; it overshoots at edges.
    Bicubic,
    /// The sinc windowed by a sinc three times as wide, of half width 3; it overshoots at edges.
    Lanczos,
}

impl Filter {
    /// Half the width of the kernel in source pixels, when the picture is enlarged.
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// The kernel at signed distance `x`.
    fn at(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let d = x.abs();
        match self {
            // Half open, so that a pixel on the border between two outputs belongs to one of them.
            Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - d).max(0.0),
            Self::Bicubic if d < 1.0 => ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0,
            Self::Bicubic if d < 2.0 => (((d - 5.0) * d + 8.0) * d - 4.0) * A,
            Self::Bicubic => 0.0,
            Self::Lanczos if d < 3.0 => sinc(d) * sinc(d / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

/// sin(pi x) / (pi x), 1 at 0; the same bits on every platform.
fn sinc(x: f64) -> f64 {
    let x = x * PI;
    if x == 0.0 { 1.0 } else { libm::sin(x) / x }
}

/// The weights of one output pixel: `weights[k]` belongs to source pixel `first + k`.
pub(crate) struct Taps<W> {
    /// The first source pixel.
    pub(crate) first: usize,
    /// At least one weight.
    pub(crate) weights: Vec<W>,
}

/// The weights of output pixels `start..start + n` when `source` pixels are resized to `target`.
///
/// If both sizes are equal, the weights are the identity, which leaves pixels unchanged like Pillow, which skips the pass.
pub(crate) fn taps(
    source: usize,
    target: usize,
    start: usize,
    n: usize,
    filter: Filter,
) -> Vec<Taps<f64>> {
    let scale = source as f64 / target as f64;
    let widening = scale.max(1.0);
    let support = filter.support() * widening;
    let narrowing = 1.0 / widening;
    let tap = |i: usize| {
        if source == target {
            return Taps {
                first: i,
                weights: vec![1.0],
            };
        }
        let centre = (i as f64 + 0.5) * scale;
        // Float casts saturate, so a negative bound becomes 0.
        let first = ((centre - support + 0.5) as usize).min(source - 1);
        let end = ((centre + support + 0.5) as usize).clamp(first + 1, source);
        let mut weights: Vec<f64> = (first..end)
            .map(|x| filter.at((x as f64 - centre + 0.5) * narrowing))
            .collect();
        let total: f64 = weights.iter().sum();
        if total != 0.0 {
            weights.iter_mut().for_each(|w| *w /= total);
        }
        Taps { first, weights }
    };
    (start..start + n).map(tap).collect()
}

/// The matrix that resizes a line of `source` pixels to `target`, row by row. It computes the same as [`crate::resize_f32`], for code that
/// needs the gradient. Sizes of 0 are read as 1.
///
/// # Shapes
/// - returns `[target, source]`, rows that sum to 1
#[must_use]
pub fn resize_matrix(source: usize, target: usize, filter: Filter) -> Vec<f64> {
    let (source, target) = (source.max(1), target.max(1));
    let mut matrix = vec![0.0; source * target];
    let rows = matrix.chunks_exact_mut(source);
    for (row, tap) in rows.zip(taps(source, target, 0, target, filter)) {
        row[tap.first..][..tap.weights.len()].copy_from_slice(&tap.weights);
    }
    matrix
}

/// Weights as integers with 22 fractional bits, rounded half away from zero.
pub(crate) fn fixed_point(taps: Vec<Taps<f64>>) -> Vec<Taps<i32>> {
    let one = f64::from(1_u32 << PRECISION);
    let round = |w: f64| (w * one + 0.5_f64.copysign(w)) as i32;
    taps.into_iter()
        .map(|tap| Taps {
            first: tap.first,
            weights: tap.weights.into_iter().map(round).collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_of_a_resize_computes_the_resize() {
        let line: Vec<f32> = (0..11).map(|i| ((i * 7) % 5) as f32 - 1.5).collect();
        for (target, filter) in [
            (4, Filter::Bicubic),
            (11, Filter::Box),
            (30, Filter::Bilinear),
        ] {
            let matrix = resize_matrix(11, target, filter);
            let resized = crate::resize_f32(&line, 11, target, 1, filter);
            for (row, expected) in matrix.chunks_exact(11).zip(resized) {
                let found: f64 = row.iter().zip(&line).map(|(w, &v)| w * f64::from(v)).sum();
                assert!(
                    (found - f64::from(expected)).abs() < 1e-6,
                    "{target} {found} {expected}"
                );
            }
        }
        assert_eq!(resize_matrix(0, 0, Filter::Box), [1.0]);
    }

    #[test]
    fn weights_sum_to_one_and_stay_inside_the_source() {
        for filter in [
            Filter::Box,
            Filter::Bilinear,
            Filter::Bicubic,
            Filter::Lanczos,
        ] {
            for (source, target) in [(1, 7), (7, 1), (10, 3), (3, 10), (100, 99), (5, 5)] {
                for tap in taps(source, target, 0, target, filter) {
                    let sum: f64 = tap.weights.iter().sum();
                    assert!((sum - 1.0).abs() < 1e-12, "{filter:?} {source} {target}");
                    assert!(tap.first + tap.weights.len() <= source);
                }
            }
        }
    }

    #[test]
    fn kernels_have_their_known_values() {
        assert_eq!((Filter::Box.at(0.5), Filter::Box.at(-0.5)), (1.0, 0.0));
        assert_eq!(Filter::Bilinear.at(-0.25), 0.75);
        // Keys: 1 at 0, 0 at the other integers, 0.5625 and -0.0625 half way.
        let cubic = [0.0, 0.5, 1.0, 1.5, 2.0, -0.5].map(|x| Filter::Bicubic.at(x));
        assert_eq!(cubic, [1.0, 0.5625, 0.0, -0.0625, 0.0, 0.5625]);
        // 2 / pi * 3 / pi half way to the first zero; zeros at the other integers.
        let lanczos = [0.0, 0.5, 1.0, 2.0, 3.5].map(|x| Filter::Lanczos.at(x));
        let expected = [1.0, 2.0 / PI * (3.0 / PI), 0.0, 0.0, 0.0];
        for (found, expected) in lanczos.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-15, "{lanczos:?}");
        }
    }
}
