//! Generated images with their nearest real images.

use sdft_imaging::{Rgb8, center_crop, enlarge, grid, titled};
use sdft_metrics::Neighbour;

/// Number of pairs in a strip.
const PAIRS: usize = 8;
/// Approximate side of an image in the strip.
const SHOWN: usize = 96;
const GAP: [u8; 3] = [24, 24, 24];

/// The indices of the generated images nearest to a real one, nearest first; at most as many as a strip shows.
pub fn nearest_first(neighbours: &[Neighbour]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..neighbours.len()).collect();
    order.sort_by(|&a, &b| neighbours[a].distance.total_cmp(&neighbours[b].distance));
    order.truncate(PAIRS);
    order
}

/// A strip of generated images with the nearest real image below each, to check for copying.
///
/// Images are brought to squares of one size. `None` if there are no pairs.
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
        let at = |distance| Neighbour { index: 0, distance };
        assert_eq!(nearest_first(&[at(3.0), at(1.0), at(2.0)]), [1, 2, 0]);
        assert_eq!(nearest_first(&[at(1.0); 20]).len(), PAIRS);
    }
}
