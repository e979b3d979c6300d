use sdft_imaging::{Rgb8, center_crop, enlarge, grid, titled};

/// Side of an image in the strip, about.
const SHOWN: usize = 96;
const GAP: [u8; 3] = [24, 24, 24];

/// Generated images in the upper row, under each the real image that comes nearest: is the model copying?
///
/// Images are brought to squares of one size. Nothing for no pairs.
pub fn neighbour_strip(pairs: &[(Rgb8, Rgb8)], title: &str) -> Option<Rgb8> {
    let (first, _) = pairs.first()?;
    let side = first.width.min(first.height).min(SHOWN);
    let show = |image: &Rgb8| enlarge(&center_crop(image, side), (SHOWN / side).max(1));
    let upper = pairs.iter().map(|(generated, _)| show(generated));
    let lower = pairs.iter().map(|(_, real)| show(real));
    let all: Vec<Rgb8> = upper.chain(lower).collect();
    Some(titled(&grid(&all, pairs.len(), 2, GAP), title))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rows_of_squares() {
        let (a, b) = (
            Rgb8::filled(40, 30, [255, 0, 0]),
            Rgb8::filled(16, 16, [0, 0, 255]),
        );
        let strip = neighbour_strip(&[(a.clone(), b.clone()), (a, b)], "nearest").unwrap();
        assert!(strip.width > 2 * 90 && strip.height > 2 * 90);
        let middle = strip.width / 4;
        assert_eq!(strip.get(middle, strip.height - 20), Some([0, 0, 255]));
        assert!(neighbour_strip(&[], "").is_none());
    }
}
