//! Pictures changed at random, as the judge of the emoji sees them in training.

use super::shifted;
use sdft_data::Emoji;
use sdft_noise::Draw;

const SIDE: usize = Emoji::SIZE;
/// The strongest blur: the share of each neighbour in a pixel, along both axes.
pub(super) const BLUR: f32 = 0.25;
/// The most passes of the blur: the predictions of `x0` that guide an edit are that soft.
const PASSES: u64 = 10;
/// The strongest noise.
const NOISE: f32 = 0.25;
/// The value of a field of normal numbers above which a blotch covers it.
const COVERED: f32 = 1.0;
/// The largest turn in radians, and the largest change of the size.
const TURN: f32 = 0.12;
const ZOOM: f32 = 0.12;
/// How sharp the edge of a blotch is.
const EDGE: f32 = 8.0;
/// Points of a field of random numbers along each axis.
const POINTS: usize = 6;
const FIELD: usize = POINTS * POINTS;

/// A picture flipped, shifted or turned and resized, with a blotch, blurred, and with noise. The blotch teaches that a colour alone means
/// nothing: edits would learn to paint it.
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
pub(super) fn disturbed(picture: &[f32], draw: &Draw, noise: &Draw) -> Vec<f32> {
    let signed = |at| 2.0 * draw.uniform(at) as f32 - 1.0;
    let flip = draw.below(7, 2) == 1;
    let [dx, dy] = [8, 9].map(|at| draw.below(at, 5) as f32 - 2.0);
    let (turn, zoom) = match draw.below(13, 2) {
        0 => (0.0, 1.0),
        _ => (TURN * signed(14), 1.0 + ZOOM * signed(15)),
    };
    let (sin, cos) = turn.sin_cos();
    let middle = (SIDE - 1) as f32 / 2.0;
    let mut moved = warped(picture, |x, y| {
        let x = if flip { (SIDE - 1) as f32 - x } else { x };
        let (x, y) = (x - middle, y - middle);
        [
            middle - dx + zoom * (cos * x - sin * y),
            middle - dy + zoom * (sin * x + cos * y),
        ]
    });
    if draw.below(16, 3) == 0 {
        let mut points = [0.0; FIELD];
        // The first numbers are those of the noise.
        noise.fill_normal_from(4 * picture.len() as u64, &mut points);
        let shares = (0..SIDE * SIDE).map(|i| {
            let value = field(&points, (i % SIDE) as f32, (i / SIDE) as f32);
            1.0 / (1.0 + (EDGE * (COVERED - value)).exp())
        });
        let shares: Vec<f32> = shares.collect();
        for (plane, at) in moved.chunks_exact_mut(SIDE * SIDE).zip(17..) {
            let colour = signed(at);
            let pixels = plane.iter_mut().zip(&shares);
            pixels.for_each(|(value, share)| *value += share * (colour - *value));
        }
    }
    let passes = match draw.below(10, 4) {
        0 | 1 => 0,
        2 => 1,
        _ => 1 + draw.below(20, PASSES),
    };
    let share = BLUR * draw.uniform(11) as f32;
    for _ in 0..passes {
        moved = blurred(&moved, share);
    }
    let spread = NOISE * draw.uniform(12) as f32;
    let noise = noise.normals(moved.len());
    moved
        .iter_mut()
        .zip(noise)
        .for_each(|(v, n)| *v += spread * n);
    moved
}

/// A field between its points, of which there are [`POINTS`] along each axis, at the pixel `x`, `y`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the pixels of a picture"
)]
fn field(points: &[f32], x: f32, y: f32) -> f32 {
    let place = |at: f32| {
        let at = at / (SIDE - 1) as f32 * (POINTS - 1) as f32;
        let first = (at as usize).min(POINTS - 2);
        (first, at - first as f32)
    };
    let ((i, u), (j, v)) = (place(x), place(y));
    let at = |i: usize, j: usize| points[j * POINTS + i];
    let row = |j| (1.0 - u) * at(i, j) + u * at(i + 1, j);
    (1.0 - v) * row(j) + v * row(j + 1)
}

/// A picture whose pixel `x`, `y` comes from the place `from(x, y)`, interpolated linearly; the edge is repeated.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the picture"
)]
fn warped(picture: &[f32], from: impl Fn(f32, f32) -> [f32; 2]) -> Vec<f32> {
    let last = (SIDE - 1) as f32;
    let mut out = vec![0.0; picture.len()];
    for y in 0..SIDE {
        for x in 0..SIDE {
            let [left, top] = from(x as f32, y as f32).map(|at| at.clamp(0.0, last));
            let (i, j) = (left as usize, top as usize);
            let (u, v) = (left - i as f32, top - j as f32);
            let (next, below) = ((i + 1).min(SIDE - 1), (j + 1).min(SIDE - 1));
            for (plane, out) in picture
                .chunks_exact(SIDE * SIDE)
                .zip(out.chunks_exact_mut(SIDE * SIDE))
            {
                let row = |j: usize| (1.0 - u) * plane[j * SIDE + i] + u * plane[j * SIDE + next];
                out[y * SIDE + x] = (1.0 - v) * row(j) + v * row(below);
            }
        }
    }
    out
}

/// Each pixel mixed with its neighbours, `share` of each, first along the rows and then along the columns.
pub(super) fn blurred(picture: &[f32], share: f32) -> Vec<f32> {
    let mut out = picture.to_vec();
    for along_rows in [true, false] {
        let from = out.clone();
        for (i, value) in out.iter_mut().enumerate() {
            let (x, y, plane) = (i % SIDE, i / SIDE % SIDE, i / (SIDE * SIDE) * SIDE * SIDE);
            let neighbour = |by| match along_rows {
                true => from[plane + y * SIDE + shifted(x, by, SIDE)],
                false => from[plane + shifted(y, by, SIDE) * SIDE + x],
            };
            *value = (1.0 - 2.0 * share) * from[i] + share * (neighbour(-1) + neighbour(1));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_noise::Purpose;

    /// A bright square in the middle of a dark picture.
    fn square() -> Vec<f32> {
        let inside = |at: usize| (10..22).contains(&at);
        let pixels = 0..3 * SIDE * SIDE;
        let is_bright = |i: usize| inside(i % SIDE) && inside(i / SIDE % SIDE);
        pixels
            .map(|i| if is_bright(i) { 1.0 } else { -1.0 })
            .collect()
    }

    fn distance(a: &[f32], b: &[f32]) -> f32 {
        let all = a.iter().zip(b);
        all.map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32
    }

    #[test]
    fn a_disturbed_picture_keeps_its_shape() {
        let picture = square();
        assert_eq!(warped(&picture, |x, y| [x, y]), picture);
        let right = warped(&picture, |x, y| [x - 0.5, y]);
        assert_eq!(right[12 * SIDE + 9..][..3], [-1.0, 0.0, 1.0]);
        for i in 0..20 {
            let [draw, noise] = [0, 1].map(|sample| Draw::new(7, Purpose::Judge, i, sample));
            let kept = disturbed(&picture, &draw, &noise);
            assert_eq!(kept, disturbed(&picture, &draw, &noise));
            let kept = distance(&picture, &kept);
            assert!((0.01..0.5).contains(&kept), "{kept}");
        }
    }

    #[test]
    fn a_blur_spreads_a_point_and_keeps_the_sum() {
        let mut picture = vec![0.0; 3 * SIDE * SIDE];
        picture[5 * SIDE + 7] = 1.0;
        let soft = blurred(&picture, 0.25);
        assert_eq!(soft[5 * SIDE + 7], 0.25);
        assert_eq!((soft[4 * SIDE + 7], soft[4 * SIDE + 6]), (0.125, 0.0625));
        assert!((soft.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(blurred(&picture, 0.0), picture);
        assert!(
            blurred(&vec![0.5; picture.len()], 0.25)
                .iter()
                .all(|v| *v == 0.5)
        );
    }
}
