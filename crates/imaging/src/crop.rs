//! Crops a picture to the square that a model is given.

use crate::{
    Filter, Picture, resize,
    resize::{Span, resize_window},
};

/// Crops the centred square of `size` pixels like guided-diffusion: [`Fit::Crop`](crate::Fit::Crop) for a square.
///
/// While the short side is at least `2 size`, both sides are halved (rounded down) with [`Filter::Box`]. Then the picture is resized with
/// [`Filter::Bicubic`] so that the short side is `size` (the long side is rounded, halves to even), and the middle is cropped. A smaller
/// picture is enlarged. A size of 0 is read as 1.
///
/// Source: guided-diffusion `center_crop_arr`.
#[must_use]
pub fn center_crop<P: Picture>(image: &P, size: usize) -> P {
    cover(image, [size.max(1); 2], [0.5; 2])
}

/// Resizes so that the picture covers `[height, width]`, without cropping: what [`Fit::RandomCrop`](crate::Fit::RandomCrop) crops from.
#[must_use]
pub fn resize_to_cover<P: Picture>(image: &P, target: [usize; 2]) -> P {
    let target = target.map(|side| side.max(1));
    let raster = image.raster();
    let spans = covering([raster.height, raster.width], target, [0.5; 2]);
    halve_and_resize(image, target, spans.map(|span| Span::whole(span.full)))
}

/// Resizes so that the picture covers `[height, width]`, and crops the rest at `place`; see [`covering`].
pub(crate) fn cover<P: Picture>(image: &P, target: [usize; 2], place: [f64; 2]) -> P {
    let raster = image.raster();
    let spans = covering([raster.height, raster.width], target, place);
    halve_and_resize(image, target, spans)
}

/// Halves while both sides are at least twice the target's, then resizes to a window of `columns` and `rows`.
fn halve_and_resize<P: Picture>(
    image: &P,
    [height, width]: [usize; 2],
    [columns, rows]: [Span; 2],
) -> P {
    let mut halved: Option<P> = None;
    loop {
        let now = halved.as_ref().unwrap_or(image);
        let raster = now.raster();
        if raster.width / 2 < width || raster.height / 2 < height {
            return resize_window(now, columns, rows, Filter::Bicubic);
        }
        halved = Some(resize(
            now,
            raster.width / 2,
            raster.height / 2,
            Filter::Box,
        ));
    }
}

/// The columns and rows of [`cover`]'s window. `place` is where it lies horizontally and vertically, 0 to 1; 0.5 is the middle, rounded down.
pub(crate) fn covering(
    [mut height, mut width]: [usize; 2],
    target: [usize; 2],
    place: [f64; 2],
) -> [Span; 2] {
    while width / 2 >= target[1] && height / 2 >= target[0] {
        (height, width) = (height / 2, width / 2);
    }
    let scale = (target[0] as f64 / height as f64).max(target[1] as f64 / width as f64);
    let span = |side: usize, len: usize, place: f64| {
        // The side that decides rounds to its target exactly, and the other one is not shorter.
        let full = ((side as f64 * scale).round_ties_even() as usize).max(len);
        // Every start is equally likely for a uniform place. Float casts saturate.
        let end = (place * (full - len + 1) as f64).ceil() as usize;
        Span {
            full,
            start: end.saturating_sub(1).min(full - len),
            len,
        }
    };
    [
        span(width, target[1], place[0]),
        span(height, target[0], place[1]),
    ]
}

/// Resizes so that the short side is `size` pixels, with the long side in proportion (rounded down) and without cropping.
///
/// The filter is bicubic. A picture whose short side is already `size` is unchanged. A size of 0 is read as 1.
///
/// Source: torchvision `Resize(size, BICUBIC)` on a PIL image, `int(size * long / short)`.
#[must_use]
pub fn resize_short_side<P: Picture>(image: &P, size: usize) -> P {
    let [width, height] = short_side(image, size);
    resize(image, width, height, Filter::Bicubic)
}

/// The middle square of [`resize_short_side`]'s result, computed without most of the rest.
///
/// Source: torchvision `Resize(size, BICUBIC)` and `CenterCrop(size)` on a PIL image; the crop's first pixel rounds halves to even.
#[must_use]
pub fn resize_short_side_square<P: Picture>(image: &P, size: usize) -> P {
    let size = size.max(1);
    let middle = |full: usize| Span {
        full,
        start: ((full - size) as f64 / 2.0).round_ties_even() as usize,
        len: size,
    };
    let [width, height] = short_side(image, size);
    resize_window(image, middle(width), middle(height), Filter::Bicubic)
}

/// Width and height with a short side of `size` pixels.
fn short_side(image: &impl Picture, size: usize) -> [usize; 2] {
    let raster = image.raster();
    let short = raster.width.min(raster.height);
    let scaled = |side: usize| (size.max(1) as u128 * side as u128 / short as u128) as usize;
    [scaled(raster.width), scaled(raster.height)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rgb8;

    fn picture(width: usize, height: usize, level: impl Fn(usize, usize, usize) -> usize) -> Rgb8 {
        let mut pixels = Vec::with_capacity(3 * width * height);
        for y in 0..height {
            for x in 0..width {
                pixels.extend((0..3).map(|c| (level(y, x, c) % 256) as u8));
            }
        }
        Rgb8::new(width, height, pixels).unwrap()
    }

    fn sum(image: &Rgb8) -> u64 {
        image.pixels.iter().map(|&v| u64::from(v)).sum()
    }

    #[test]
    fn a_large_square_has_the_reference_values() {
        let crop = center_crop(&picture(1024, 1024, |y, x, c| 7 * y + 13 * x + 29 * c), 256);
        assert_eq!((crop.width, crop.height), (256, 256));
        assert_eq!(sum(&crop), 25_264_128);
        assert_eq!(crop.get(0, 0), Some([31, 60, 89]));
        assert_eq!(crop.get(1, 0), Some([83, 112, 141]));
        assert_eq!(crop.get(255, 255), Some([207, 204, 105]));
    }

    #[test]
    fn an_upright_rectangle_has_the_reference_values() {
        let image = picture(533, 700, |y, x, c| 3 * y + 5 * x + 17 * c + x * y / 11);
        let crop = center_crop(&image, 256);
        assert_eq!(sum(&crop), 25_182_748);
        assert_eq!(crop.get(0, 0), Some([128, 19, 36]));
        assert_eq!(crop.get(128, 128), Some([135, 156, 171]));
        assert_eq!(crop.get(255, 255), Some([113, 99, 114]));
    }

    #[test]
    fn a_square_of_the_right_size_is_left_alone() {
        let image = picture(32, 32, |y, x, c| y * x + c);
        assert_eq!(center_crop(&image, 32), image);
    }

    #[test]
    fn a_small_picture_is_enlarged() {
        let crop = center_crop(&picture(5, 3, |y, x, c| 40 * (y + x) + c), 64);
        assert_eq!((crop.width, crop.height), (64, 64));
    }

    #[test]
    fn a_thin_strip_costs_no_more_than_its_crop() {
        // Enlarged as a whole, this picture would have 15 million columns and take 12 GB.
        let crop = center_crop(&Rgb8::filled(60_000, 1, [7, 8, 9]), 256);
        assert_eq!(crop, Rgb8::filled(256, 256, [7, 8, 9]));
    }

    #[test]
    fn the_short_side_decides_and_the_long_one_rounds_down() {
        let wide = resize_short_side(&picture(128, 90, |y, x, c| y + x + c), 64);
        assert_eq!((wide.width, wide.height), (91, 64));
        let tall = resize_short_side(&picture(3, 10, |y, x, c| y + x + c), 2);
        assert_eq!((tall.width, tall.height), (2, 6));
        let same = picture(64, 90, |y, x, c| y + x + c);
        assert_eq!(resize_short_side(&same, 64), same);
    }

    #[test]
    fn the_square_is_the_middle_of_the_whole() {
        let image = picture(75, 40, |y, x, c| 3 * y + 7 * x * x + 50 * c);
        for size in [13, 40, 64] {
            let whole = resize_short_side(&image, size);
            let x = ((whole.width - size) as f64 / 2.0).round_ties_even() as usize;
            let expected = whole.crop(x, 0, size, size).unwrap();
            assert_eq!(resize_short_side_square(&image, size), expected, "{size}");
        }
        let strip = Rgb8::filled(1, 30_000, [7, 8, 9]);
        assert_eq!(resize_short_side_square(&strip, 224).width, 224);
    }
}
