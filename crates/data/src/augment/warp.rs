//! Affine warps of images on a grid of twice the resolution, between the filters of an orthogonal wavelet.

/// The low-pass filter of the wavelet sym6 (Daubechies' least asymmetric wavelet with six vanishing moments).
const FILTER: [f32; 12] = [
    0.015_404_109,
    0.003_490_712,
    -0.117_990_11,
    -0.048_311_744,
    0.491_055_94,
    0.787_641_14,
    0.337_929_42,
    -0.072_637_52,
    -0.021_060_292,
    0.044_724_9,
    0.001_767_711_8,
    -0.007_800_708_3,
];
/// Pixels around the image that its filtered border depends on.
const REACH: usize = FILTER.len() / 4;

/// An affine map of the plane: `(a x + b y + c, d x + e y + f)` as `[[a, b, c], [d, e, f]]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Affine([[f64; 3]; 2]);

impl Affine {
    pub(super) fn translation(x: f64, y: f64) -> Self {
        Self([[1.0, 0.0, x], [0.0, 1.0, y]])
    }

    pub(super) fn scale(x: f64, y: f64) -> Self {
        Self([[x, 0.0, 0.0], [0.0, y, 0.0]])
    }

    pub(super) fn rotation(angle: f64) -> Self {
        let (sin, cos) = libm::sincos(angle);
        Self([[cos, -sin, 0.0], [sin, cos, 0.0]])
    }

    /// The map that applies `first`, then `self`: the matrix product.
    pub(super) fn then_first(self, first: Self) -> Self {
        let [rows, [a, b]] = [self.0, first.0];
        Self(rows.map(|[x, y, shift]| {
            let mut row = [0, 1, 2].map(|i| x * a[i] + y * b[i]);
            row[2] += shift;
            row
        }))
    }

    fn at(&self, x: f64, y: f64) -> [f64; 2] {
        self.0.map(|[a, b, c]| a * x + b * y + c)
    }
}

/// Four pixels around a sample: the index of the upper left one and the weights of all. Outside the plane all weights are 0.
#[derive(Debug, Clone, Copy, Default)]
struct Tap {
    first: usize,
    weights: [f32; 4],
}

/// Warps an image: pixel `p` of the result is the image at `inverse(p)`, both relative to the centre.
///
/// The image is continued by reflection, upsampled with the wavelet's filter, sampled bilinearly at twice the resolution, and downsampled
/// with the same filter, so the identity changes nothing. As in EDM, with a margin for this image alone.
///
/// # Shapes
/// - `image`: `[C, H, W]`, the value of `shape`
/// - returns the same
pub(super) fn warp(image: &[f32], shape: [usize; 3], inverse: &Affine) -> Vec<f32> {
    let [channels, height, width] = shape;
    let margins = Margins::new([height, width], inverse);
    let [left, top, right, bottom] = margins.0;
    let (padded_w, padded_h) = (width + left + right, height + top + bottom);

    // In units of the fine grid, whose pixels lie at quarters and three quarters of the coarse ones.
    let off_centre = |before: usize, after: usize| (before as f64 - after as f64) / 2.0;
    let inverse = Affine::translation(-0.5, -0.5)
        .then_first(Affine::scale(2.0, 2.0))
        .then_first(Affine::translation(
            off_centre(left, right),
            off_centre(top, bottom),
        ))
        .then_first(*inverse)
        .then_first(Affine::scale(0.5, 0.5))
        .then_first(Affine::translation(0.5, 0.5));

    // The downsampled image uses all but the first and last row and column of a grid with `REACH` more pixels on each side.
    let (fine_w, fine_h) = (2 * padded_w, 2 * padded_h);
    let (grid_w, grid_h) = (2 * width + FILTER.len() - 2, 2 * height + FILTER.len() - 2);
    let stride = fine_w + 2;
    let mut taps = vec![Tap::default(); grid_w * grid_h];
    for (y, row) in taps.chunks_exact_mut(grid_w).enumerate() {
        let v = y as f64 - (grid_h as f64 - 1.0) / 2.0;
        for (x, tap) in row.iter_mut().enumerate() {
            let u = x as f64 - (grid_w as f64 - 1.0) / 2.0;
            let [at_x, at_y] = inverse.at(u, v);
            let at_x = at_x + (fine_w as f64 - 1.0) / 2.0;
            let at_y = at_y + (fine_h as f64 - 1.0) / 2.0;
            *tap = bilinear([at_x, at_y], [fine_w, fine_h]);
        }
    }

    let mut padded = vec![0.0; padded_h * (padded_w + 2 * REACH)];
    let mut wide = vec![0.0; (padded_h + 2 * REACH) * stride];
    let mut fine = vec![0.0; (fine_h + 2) * stride];
    let mut warped = vec![0.0; grid_w * grid_h];
    let mut narrow = vec![0.0; height * grid_w];
    let mut out = vec![0.0; channels * height * width];
    let planes = image.chunks_exact(height * width);
    for (plane, out) in planes.zip(out.chunks_exact_mut(height * width)) {
        margins.pad(plane, [height, width], &mut padded);
        upsample_rows(&padded, padded_w, &mut wide[REACH * stride..], stride);
        upsample_columns(&wide, stride, &mut fine[stride..][..fine_h * stride]);
        for (to, tap) in warped.iter_mut().zip(&taps) {
            let [a, b, c, d] = tap.weights;
            let (upper, lower) = (&fine[tap.first..][..2], &fine[tap.first + stride..][..2]);
            *to = a * upper[0] + b * upper[1] + c * lower[0] + d * lower[1];
        }
        downsample_columns(&warped, &mut narrow, grid_w);
        downsample_rows(&narrow, grid_w, out, width);
    }
    out
}

/// Warps a mask: bilinear, and 0 outside.
///
/// # Shapes
/// - `mask`: `[H, W]`, the value of `shape`
/// - returns the same
pub(super) fn warp_mask(mask: &[f32], [height, width]: [usize; 2], inverse: &Affine) -> Vec<f32> {
    let stride = width + 2;
    let mut framed = vec![0.0; (height + 2) * stride];
    let rows = framed[stride..].chunks_exact_mut(stride);
    for (to, row) in rows.zip(mask.chunks_exact(width)) {
        to[1..=width].copy_from_slice(row);
    }
    let (cx, cy) = ((width as f64 - 1.0) / 2.0, (height as f64 - 1.0) / 2.0);
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x as f64, y as f64)));
    pixels
        .map(|(x, y)| {
            let [at_x, at_y] = inverse.at(x - cx, y - cy);
            let Tap { first, weights } = bilinear([at_x + cx, at_y + cy], [width, height]);
            let [a, b, c, d] = weights;
            let (upper, lower) = (&framed[first..][..2], &framed[first + stride..][..2]);
            let value = a * upper[0] + b * upper[1] + c * lower[0] + d * lower[1];
            value.clamp(0.0, 1.0)
        })
        .collect()
}

/// The pixels around a position in a plane of `width` x `height` pixels that is stored with a frame of one pixel of zeros.
fn bilinear([x, y]: [f64; 2], [width, height]: [usize; 2]) -> Tap {
    // In the stored plane, where both are above 0, so that truncating is rounding down.
    let (x, y) = (x + 1.0, y + 1.0);
    let is_inside = |at: f64, side: usize| at > 0.0 && at < (side + 1) as f64;
    if !is_inside(x, width) || !is_inside(y, height) {
        return Tap::default();
    }
    let (column, row) = (x as usize, y as usize);
    let (right, down) = ((x - column as f64) as f32, (y - row as f64) as f32);
    let (left, up) = (1.0 - right, 1.0 - down);
    Tap {
        first: row * (width + 2) + column,
        weights: [up * left, up * right, down * left, down * right],
    }
}

/// Pixels added on the left, above, on the right and below.
struct Margins([usize; 4]);

impl Margins {
    /// What a warp needs. Reflection adds at most a side less one pixel.
    fn new([height, width]: [usize; 2], inverse: &Affine) -> Self {
        let (cx, cy) = ((width as f64 - 1.0) / 2.0, (height as f64 - 1.0) / 2.0);
        let corners = [[-cx, -cy], [cx, -cy], [cx, cy], [-cx, cy]].map(|[x, y]| inverse.at(x, y));
        let margin = |axis: usize, sign: f64, centre: f64, side: usize| {
            let furthest = corners.map(|corner| sign * corner[axis]);
            let furthest = furthest.into_iter().fold(f64::NEG_INFINITY, f64::max);
            let needed = furthest - centre + 2.0 * REACH as f64;
            needed.clamp(0.0, side as f64 - 1.0).ceil() as usize
        };
        Self([
            margin(0, -1.0, cx, width),
            margin(1, -1.0, cy, height),
            margin(0, 1.0, cx, width),
            margin(1, 1.0, cy, height),
        ])
    }

    /// Continues a plane by reflection around its edge pixels. Each row of `out` has `REACH` more pixels on both sides, which stay zero.
    fn pad(&self, plane: &[f32], [height, width]: [usize; 2], out: &mut [f32]) {
        let [left, top, right, _] = self.0;
        let stride = left + width + right + 2 * REACH;
        for (y, to) in out.chunks_exact_mut(stride).enumerate() {
            let row = &plane[reflected(y, top, height) * width..][..width];
            let to = &mut to[REACH..stride - REACH];
            to[left..left + width].copy_from_slice(row);
            for x in (0..left).chain(left + width..left + width + right) {
                to[x] = row[reflected(x, left, width)];
            }
        }
    }
}

/// Which pixel of a side position `at` shows, if `margin` pixels are added before it.
fn reflected(at: usize, margin: usize, side: usize) -> usize {
    if at < margin {
        margin - at
    } else {
        let at = at - margin;
        at.min(2 * (side - 1) - at.min(2 * (side - 1)))
    }
}

/// Upsamples rows of `width` pixels with `REACH` zeros on both sides. The results begin at the second pixel of each row of `out`.
fn upsample_rows(rows: &[f32], width: usize, out: &mut [f32], stride: usize) {
    let (even, odd) = phases();
    let mut phases = vec![0.0; 2 * width];
    let (a, b) = phases.split_at_mut(width);
    let rows = rows.chunks_exact(width + 2 * REACH);
    for (row, out) in rows.zip(out.chunks_exact_mut(stride)) {
        weighted_sum(row, 1, &even, a);
        weighted_sum(&row[1..], 1, &odd, b);
        for ((to, &a), &b) in out[1..].chunks_exact_mut(2).zip(&*a).zip(&*b) {
            (to[0], to[1]) = (a, b);
        }
    }
}

/// Upsamples columns that have `REACH` rows of zeros above and below.
fn upsample_columns(rows: &[f32], stride: usize, out: &mut [f32]) {
    let (even, odd) = phases();
    for (n, pair) in out.chunks_exact_mut(2 * stride).enumerate() {
        let (a, b) = pair.split_at_mut(stride);
        weighted_sum(&rows[n * stride..], stride, &even, a);
        weighted_sum(&rows[(n + 1) * stride..], stride, &odd, b);
    }
}

/// The taps of even and odd fine pixels, from left to right. The first tap of an even pixel is `REACH` pixels to its left.
fn phases() -> ([f32; 6], [f32; 6]) {
    let taps = |first: usize| [0, 1, 2, 3, 4, 5].map(|i| FILTER[first - 2 * i]);
    (taps(11), taps(10))
}

/// Downsamples columns, whose rows have `width` pixels.
fn downsample_columns(rows: &[f32], out: &mut [f32], width: usize) {
    for (n, to) in out.chunks_exact_mut(width).enumerate() {
        weighted_sum(&rows[2 * n * width..], width, &FILTER, to);
    }
}

/// Downsamples rows of `width` pixels, an even number, to rows of `narrow` pixels.
fn downsample_rows(rows: &[f32], width: usize, out: &mut [f32], narrow: usize) {
    let [even, odd] = [0, 1].map(|phase| [0, 1, 2, 3, 4, 5].map(|i| FILTER[2 * i + phase]));
    let mut phases = vec![0.0; width + narrow];
    let (halves, more) = phases.split_at_mut(width);
    let (a, b) = halves.split_at_mut(width / 2);
    for (row, out) in rows.chunks_exact(width).zip(out.chunks_exact_mut(narrow)) {
        for ((pair, a), b) in row.chunks_exact(2).zip(&mut *a).zip(&mut *b) {
            (*a, *b) = (pair[0], pair[1]);
        }
        weighted_sum(a, 1, &even, out);
        weighted_sum(b, 1, &odd, more);
        for (to, v) in out.iter_mut().zip(&*more) {
            *to += v;
        }
    }
}

/// `out[i] = sum over t of taps[t] * values[t * step + i]`.
fn weighted_sum<const N: usize>(values: &[f32], step: usize, taps: &[f32; N], out: &mut [f32]) {
    const LANES: usize = 16;
    let len = out.len();
    let rows: [&[f32]; N] = std::array::from_fn(|t| &values[t * step..][..len]);
    let (blocks, rest) = out.as_chunks_mut::<LANES>();
    for (i, block) in blocks.iter_mut().enumerate() {
        let mut sums = [0.0; LANES];
        for (tap, row) in taps.iter().zip(rows) {
            let row = &row.as_chunks::<LANES>().0[i];
            for (sum, v) in sums.iter_mut().zip(row) {
                *sum += tap * v;
            }
        }
        *block = sums;
    }
    let first = len - rest.len();
    for (i, to) in rest.iter_mut().enumerate() {
        *to = taps
            .iter()
            .zip(rows)
            .map(|(tap, row)| tap * row[first + i])
            .sum();
    }
}
