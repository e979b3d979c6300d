//! Pillow's separable resampling, bit for bit.

use crate::{
    Rgb8,
    filter::{Filter, PRECISION, Taps, fixed_point, taps},
};

/// One half in fixed point, added to each sum so that the final shift rounds.
const HALF: i32 = 1 << (PRECISION - 1);

/// Resizes to `width` x `height` like Pillow's `Image.resize` on 8-bit images, bit for bit.
///
/// Each direction is resized in one pass, rounded to 8 bits in between; a direction whose size does not change is skipped. The horizontal
/// pass is first, unless the height loses more than twice as many pixels as the width. This is the rule of Pillow 13 and affects some pixels
/// by one level; earlier versions always began with the horizontal pass. A size of 0 is read as 1.
#[must_use]
pub fn resize(image: &Rgb8, width: usize, height: usize, filter: Filter) -> Rgb8 {
    let (width, height) = (width.max(1), height.max(1));
    resize_window(image, (width, 0, width), (height, 0, height), filter)
}

/// The part of [`resize`]'s result inside a window; each direction is given as (full output size, start, length).
///
/// Computes little more than the window, so that a very elongated picture takes no longer than a square one.
pub(crate) fn resize_window(
    image: &Rgb8,
    (width, x, n_columns): (usize, usize, usize),
    (height, y, n_rows): (usize, usize, usize),
    filter: Filter,
) -> Rgb8 {
    let columns = fixed_point(taps(image.width, width, x, n_columns, filter));
    let mut rows = fixed_point(taps(image.height, height, y, n_rows, filter));
    let pixels = if vertical_first(image.width, image.height, width, height) {
        let between = vertical(&image.pixels, 3 * image.width, &rows);
        horizontal(&between, 3 * image.width, &columns)
    } else {
        // Skip source rows that the vertical pass does not need.
        let first = rows.iter().map(|t| t.first).min().unwrap_or(0);
        let end = rows.iter().map(|t| t.first + t.weights.len()).max();
        rows.iter_mut().for_each(|t| t.first -= first);
        let stride = 3 * image.width;
        let used = &image.pixels[first * stride..end.unwrap_or(first) * stride];
        vertical(&horizontal(used, stride, &columns), 3 * n_columns, &rows)
    };
    Rgb8 {
        width: n_columns,
        height: n_rows,
        pixels,
    }
}

/// Whether Pillow 13 begins with the vertical pass.
fn vertical_first(from_width: usize, from_height: usize, width: usize, height: usize) -> bool {
    let lost = |from: usize, to: usize| from as i128 - to as i128;
    lost(from_height, height) > 0 && lost(from_height, height) > 2 * lost(from_width, width)
}

/// Resamples every row of `stride` RGB levels with the weights of the output columns.
fn horizontal(pixels: &[u8], stride: usize, columns: &[Taps<i32>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(pixels.len() / stride * 3 * columns.len());
    for row in pixels.chunks_exact(stride) {
        for tap in columns {
            let mut sum = [HALF; 3];
            for (pixel, &weight) in row[3 * tap.first..].chunks_exact(3).zip(&tap.weights) {
                for (sum, &value) in sum.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            out.extend(sum.map(to_level));
        }
    }
    out
}

/// Combines rows of `stride` levels with the weights of the output rows.
fn vertical(pixels: &[u8], stride: usize, rows: &[Taps<i32>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(stride * rows.len());
    let mut sums = vec![HALF; stride];
    for tap in rows {
        sums.fill(HALF);
        let sources = pixels[tap.first * stride..].chunks_exact(stride);
        for (row, &weight) in sources.zip(&tap.weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * weight;
            }
        }
        out.extend(sums.iter().map(|&sum| to_level(sum)));
    }
    out
}

/// Resizes one plane of f32 to `width` x `height` like Pillow in mode "F": sums in f64, f32 after each pass, no clamping.
///
/// Bicubic results overshoot the range of the source. clean-fid resizes each channel this way. The order of the passes is that of [`resize`].
/// A size of 0 is read as 1.
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
    let (width, height) = (width.max(1), height.max(1));
    let plane_height = plane.len() / plane_width;
    let columns = taps(plane_width, width, 0, width, filter);
    let rows = taps(plane_height, height, 0, height, filter);
    if vertical_first(plane_width, plane_height, width, height) {
        horizontal_f32(
            &vertical_f32(plane, plane_width, &rows),
            plane_width,
            &columns,
        )
    } else {
        vertical_f32(&horizontal_f32(plane, plane_width, &columns), width, &rows)
    }
}

/// [`horizontal`] for f32.
fn horizontal_f32(plane: &[f32], stride: usize, columns: &[Taps<f64>]) -> Vec<f32> {
    let mut out = Vec::with_capacity(plane.len() / stride * columns.len());
    for row in plane.chunks_exact(stride) {
        out.extend(columns.iter().map(|tap| {
            let values = row[tap.first..].iter().zip(&tap.weights);
            values.map(|(&v, &w)| f64::from(v) * w).sum::<f64>() as f32
        }));
    }
    out
}

/// [`vertical`] for f32.
fn vertical_f32(plane: &[f32], stride: usize, rows: &[Taps<f64>]) -> Vec<f32> {
    let mut out = Vec::with_capacity(stride * rows.len());
    let mut sums = vec![0.0_f64; stride];
    for tap in rows {
        sums.fill(0.0);
        let sources = plane[tap.first * stride..].chunks_exact(stride);
        for (row, &weight) in sources.zip(&tap.weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += f64::from(value) * weight;
            }
        }
        out.extend(sums.iter().map(|&sum| sum as f32));
    }
    out
}

/// Converts a weighted sum, which includes the half for rounding, to a level.
fn to_level(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test picture b of the golden values: 533 columns, 700 rows.
    fn golden() -> Rgb8 {
        let level =
            |y: usize, x: usize, c: usize| ((3 * y + 5 * x + 17 * c + x * y / 11) % 256) as u8;
        let pixels = (0..700)
            .flat_map(|y| (0..533).flat_map(move |x| (0..3).map(move |c| level(y, x, c))))
            .collect();
        Rgb8::new(533, 700, pixels).unwrap()
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
        let window = resize_window(&image, (111, 40, 30), (96, 90, 6), Filter::Bicubic);
        assert_eq!(window, whole.crop(40, 90, 30, 6).unwrap());
    }

    #[test]
    fn a_tall_picture_is_shrunk_vertically_first() {
        assert!(vertical_first(40, 380, 299, 299));
        assert!(!vertical_first(533, 700, 299, 299)); // 401 rows lost, twice 234 columns
        assert!(!vertical_first(48, 64, 299, 299));
        assert!(!vertical_first(10, 100, 10, 100));
        let image = golden().crop(0, 0, 40, 380).unwrap();
        let whole = resize(&image, 299, 299, Filter::Bicubic);
        let window = resize_window(&image, (299, 100, 64), (299, 7, 5), Filter::Bicubic);
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
