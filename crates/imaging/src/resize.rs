//! Pillow's separable resampling of any number of channels and every depth.

use crate::{
    Image, Picture, Samples,
    alpha::{premultiply, unpremultiply},
    filter::{Filter, Taps, taps},
    raster::{Raster, View},
    sample::Sample,
};

/// Resizes to `width` x `height` like Pillow's `Image.resize`.
///
/// ```text
/// 8 bits    Pillow's modes L, RGB and RGBA, bit for bit: integer weights of 22 bits, rounded to 8 bits after each pass
/// 16 bits   mode I;16: sums in f64, rounded half up and clamped to 0..=65535 after each pass
/// floats    mode F: sums in f64, rounded to f32 after each pass, not clamped: bicubic results overshoot
/// ```
/// Each direction is resized in one pass; a direction whose size does not change is unchanged. The horizontal pass is first, unless the
/// height loses more than twice as many pixels as the width. This is the rule of Pillow 13 and affects some pixels by one level; earlier
/// versions always began with the horizontal pass. A size of 0 is read as 1.
///
/// The fourth of 4 channels of integers is alpha: as in Pillow, colours are multiplied by it before and divided by it after, so that the
/// colours under transparent pixels do not bleed. All other channels, and floats, are resized independently.
#[must_use]
pub fn resize<P: Picture>(image: &P, width: usize, height: usize, filter: Filter) -> P {
    resize_window(image, Span::whole(width), Span::whole(height), filter)
}

/// A part of an output direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The output size.
    pub(crate) full: usize,
    /// The first pixel of the part.
    pub(crate) start: usize,
    /// Number of pixels of the part.
    pub(crate) len: usize,
}

impl Span {
    /// All of `full` pixels, at least 1.
    pub(crate) fn whole(full: usize) -> Self {
        let full = full.max(1);
        Self {
            full,
            start: 0,
            len: full,
        }
    }

    fn taps(self, source: usize, filter: Filter) -> Vec<Taps<f64>> {
        taps(source, self.full, self.start, self.len, filter)
    }
}

/// The part of [`resize`]'s result inside a window.
///
/// Computes little more than the window, so that a very elongated picture takes no longer than a square one.
pub(crate) fn resize_window<P: Picture>(image: &P, columns: Span, rows: Span, filter: Filter) -> P {
    let raster = image.raster();
    let samples = match raster.samples {
        _ if (raster.width, raster.height) == (columns.full, rows.full) => {
            let (x, y) = (columns.start, rows.start);
            return P::from_image(raster.crop(x, y, columns.len, rows.len));
        }
        View::U8(values) if raster.channels == 4 => {
            let mut out = window(&premultiply(values), &raster, columns, rows, filter);
            unpremultiply(&mut out, 4);
            Samples::U8(out)
        }
        View::U16(values) if raster.channels == 4 => {
            let mut out = window(&premultiply(values), &raster, columns, rows, filter);
            unpremultiply(&mut out, 4);
            Samples::U16(out)
        }
        View::U8(values) => Samples::U8(window(values, &raster, columns, rows, filter)),
        View::U16(values) => Samples::U16(window(values, &raster, columns, rows, filter)),
        View::F32(values) => Samples::F32(window(values, &raster, columns, rows, filter)),
    };
    P::from_image(Image {
        width: columns.len,
        height: rows.len,
        channels: raster.channels,
        samples,
    })
}

/// Both passes, for samples of any type in the form of `raster`.
fn window<T: Sample>(
    values: &[T],
    raster: &Raster<'_>,
    columns: Span,
    rows: Span,
    filter: Filter,
) -> Vec<T> {
    let (n, stride) = (raster.channels, raster.channels * raster.width);
    let column_taps = T::weights(columns.taps(raster.width, filter));
    let mut row_taps = T::weights(rows.taps(raster.height, filter));
    if vertical_first([raster.width, raster.height], columns.full, rows.full) {
        let between = vertical(values, stride, &row_taps);
        horizontal(&between, stride, n, &column_taps)
    } else {
        // Skip source rows that the vertical pass does not need.
        let first = row_taps.iter().map(|t| t.first).min().unwrap_or(0);
        let end = row_taps.iter().map(|t| t.first + t.weights.len()).max();
        row_taps.iter_mut().for_each(|t| t.first -= first);
        let used = &values[first * stride..end.unwrap_or(first) * stride];
        let between = horizontal(used, stride, n, &column_taps);
        vertical(&between, n * columns.len, &row_taps)
    }
}

/// Whether Pillow 13 begins with the vertical pass.
fn vertical_first(from: [usize; 2], width: usize, height: usize) -> bool {
    let lost = |from: usize, to: usize| from as i128 - to as i128;
    lost(from[1], height) > 0 && lost(from[1], height) > 2 * lost(from[0], width)
}

/// Resamples every row of `stride` samples, `n` per pixel, with the weights of the output columns.
fn horizontal<T: Sample>(
    values: &[T],
    stride: usize,
    n: usize,
    columns: &[Taps<T::Weight>],
) -> Vec<T> {
    // The usual numbers are known to the compiler, which keeps the sums of a pixel in registers.
    match n {
        1 => horizontal_of::<T, 1>(values, stride, columns),
        3 => horizontal_of::<T, 3>(values, stride, columns),
        4 => horizontal_of::<T, 4>(values, stride, columns),
        _ => {
            let mut out = Vec::with_capacity(values.len() / stride * n * columns.len());
            for row in values.chunks_exact(stride) {
                for tap in columns {
                    for c in 0..n {
                        let channel = row[n * tap.first + c..].iter().step_by(n);
                        let mut sum = T::START;
                        for (&value, &weight) in channel.zip(&tap.weights) {
                            sum = value.add_to(sum, weight);
                        }
                        out.push(T::from_sum(sum));
                    }
                }
            }
            out
        }
    }
}

fn horizontal_of<T: Sample, const N: usize>(
    values: &[T],
    stride: usize,
    columns: &[Taps<T::Weight>],
) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len() / stride * N * columns.len());
    for row in values.chunks_exact(stride) {
        for tap in columns {
            let mut sum = [T::START; N];
            for (pixel, &weight) in row[N * tap.first..].chunks_exact(N).zip(&tap.weights) {
                for (sum, &value) in sum.iter_mut().zip(pixel) {
                    *sum = value.add_to(*sum, weight);
                }
            }
            out.extend(sum.map(T::from_sum));
        }
    }
    out
}

/// Combines rows of `stride` samples with the weights of the output rows.
fn vertical<T: Sample>(values: &[T], stride: usize, rows: &[Taps<T::Weight>]) -> Vec<T> {
    let mut out = Vec::with_capacity(stride * rows.len());
    let mut sums = vec![T::START; stride];
    for tap in rows {
        sums.fill(T::START);
        let sources = values[tap.first * stride..].chunks_exact(stride);
        for (row, &weight) in sources.zip(&tap.weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum = value.add_to(*sum, weight);
            }
        }
        out.extend(sums.iter().map(|&sum| T::from_sum(sum)));
    }
    out
}

/// Resizes one plane of f32 to `width` x `height` like [`resize`], for planes outside an [`Image`]. clean-fid resizes each channel this way.
///
/// # Shapes
/// - `plane`: `[plane_height, plane_width]` with `plane_height = plane.len() / plane_width`
/// - returns `[height, width]`; empty if the plane is empty or `plane_width` does not divide its length
#[must_use]
pub fn resize_f32(
    plane: &[f32],
    plane_width: usize,
    width: usize,
    height: usize,
    filter: Filter,
) -> Vec<f32> {
    if plane_width == 0 || plane.is_empty() || !plane.len().is_multiple_of(plane_width) {
        return Vec::new();
    }
    let raster = Raster {
        width: plane_width,
        height: plane.len() / plane_width,
        channels: 1,
        samples: View::F32(plane),
    };
    let (columns, rows) = (Span::whole(width), Span::whole(height));
    window(plane, &raster, columns, rows, filter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rgb8;

    /// The test picture b of the golden values: 533 columns, 700 rows.
    fn golden() -> Rgb8 {
        let level =
            |y: usize, x: usize, c: usize| ((3 * y + 5 * x + 17 * c + x * y / 11) % 256) as u8;
        let pixels = (0..700)
            .flat_map(|y| (0..533).flat_map(move |x| (0..3).map(move |c| level(y, x, c))))
            .collect();
        Rgb8::new(533, 700, pixels).unwrap()
    }

    fn span(full: usize, start: usize, len: usize) -> Span {
        Span { full, start, len }
    }

    #[test]
    fn eight_bit_bicubic_has_pillows_sum() {
        let out = resize(&golden(), 299, 299, Filter::Bicubic);
        let sum: u64 = out.pixels.iter().map(|&v| u64::from(v)).sum();
        assert_eq!(sum, 34_216_977);
    }

    #[test]
    fn float_bicubic_has_pillows_values_and_overshoots() {
        let plane: Vec<f32> = golden()
            .pixels
            .iter()
            .step_by(3)
            .map(|&v| f32::from(v))
            .collect();
        let out = resize_f32(&plane, 533, 299, 299, Filter::Bicubic);
        let sum: f64 = out.iter().map(|&v| f64::from(v)).sum();
        assert!((sum - 11_408_144.655).abs() < 0.001, "sum {sum}");
        let min = out.iter().copied().fold(f32::INFINITY, f32::min);
        let max = out.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert!((min + 2.678_351).abs() < 1e-6, "min {min}");
        assert!((max - 256.902_1).abs() < 1e-4, "max {max}");
        assert_eq!(out[..3], [4.272_145_3, 12.783_228, 21.919_884]);
    }

    #[test]
    fn box_halving_is_the_mean_of_four() {
        let pixels = [1, 2, 4, 6].iter().flat_map(|&v| [v; 3]).collect();
        let image = Rgb8::new(2, 2, pixels).unwrap();
        // The rows become 1.5 -> 2 and 5, and their mean 3.5 -> 4, because each pass rounds.
        assert_eq!(resize(&image, 1, 1, Filter::Box).pixels, [4; 3]);
    }

    #[test]
    fn a_constant_picture_stays_constant() {
        let image = Rgb8::filled(37, 23, [0, 128, 255]);
        for filter in [Filter::Box, Filter::Bilinear, Filter::Bicubic] {
            for (w, h) in [(1, 1), (12, 90), (37, 5), (100, 23)] {
                let out = resize(&image, w, h, filter);
                assert_eq!(out, Rgb8::filled(w, h, [0, 128, 255]), "{filter:?} {w}x{h}");
            }
        }
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let image = golden();
        for filter in [Filter::Box, Filter::Bilinear, Filter::Bicubic] {
            assert_eq!(resize(&image, 533, 700, filter), image);
        }
        let plane = [0.1, -7.0, 3.0e9, 5.0];
        assert_eq!(resize_f32(&plane, 2, 2, 2, Filter::Bicubic), plane);
    }

    #[test]
    fn a_window_is_a_crop_of_the_whole() {
        let image = golden();
        let whole = resize(&image, 111, 96, Filter::Bicubic);
        let window = resize_window(&image, span(111, 40, 30), span(96, 90, 6), Filter::Bicubic);
        assert_eq!(window, whole.crop(40, 90, 30, 6).unwrap());
    }

    #[test]
    fn a_tall_picture_is_shrunk_vertically_first() {
        assert!(vertical_first([40, 380], 299, 299));
        assert!(!vertical_first([533, 700], 299, 299)); // 401 rows lost, twice 234 columns
        assert!(!vertical_first([48, 64], 299, 299));
        assert!(!vertical_first([10, 100], 10, 100));
        let image = golden().crop(0, 0, 40, 380).unwrap();
        let whole = resize(&image, 299, 299, Filter::Bicubic);
        let window = resize_window(&image, span(299, 100, 64), span(299, 7, 5), Filter::Bicubic);
        assert_eq!(window, whole.crop(100, 7, 64, 5).unwrap());
        // The golden numbers of Pillow 13.0 for this picture.
        let sum: u64 = whole.pixels.iter().map(|&v| u64::from(v)).sum();
        assert_eq!((sum, whole.get(17, 250)), (34_283_940, Some([254, 38, 54])));
    }

    #[test]
    fn degenerate_sizes_do_not_panic() {
        let image = Rgb8::filled(1, 1, [9; 3]);
        assert_eq!(
            resize(&image, 0, 3, Filter::Bicubic),
            Rgb8::filled(1, 3, [9; 3])
        );
        assert!(resize_f32(&[1.0; 5], 2, 4, 4, Filter::Box).is_empty());
        assert!(resize_f32(&[], 0, 4, 4, Filter::Box).is_empty());
    }
}
