//! Grids of small pictures in which some are marked.

use sdft_imaging::{Rgb8, draw_text, enlarge, framed, grid, side_by_side, text_size, titled};

use crate::table::GAP;

/// How much larger than its pixels a picture is shown.
const ENLARGED: usize = 2;
/// Pixels of a frame, and between frames.
const FRAME: usize = 2;
const BETWEEN: usize = 1;
/// The colour of a mark, and of letters.
const MARK: [u8; 3] = [46, 204, 84];
const LETTERS: [u8; 3] = [230, 230, 230];

/// Pictures row by row under a title, twice as large. A picture has a coloured frame where `marks` is true; it may be shorter.
pub(crate) fn marked_sheet(pictures: &[Rgb8], marks: &[bool], columns: usize, title: &str) -> Rgb8 {
    let marks = marks.iter().copied().chain(std::iter::repeat(false));
    let cells: Vec<Rgb8> = pictures
        .iter()
        .zip(marks)
        .map(|(picture, marked)| {
            let colour = if marked { MARK } else { GAP };
            framed(&enlarge(picture, ENLARGED), FRAME, colour)
        })
        .collect();
    titled(&grid(&cells, columns, BETWEEN, GAP), title)
}

/// A line that says what a mark means.
pub(crate) fn legend(meaning: &str) -> Rgb8 {
    let (width, height) = text_size(meaning, 2);
    let sign = framed(&Rgb8::filled(height - 4, height - 4, GAP), FRAME, MARK);
    let mut words = Rgb8::filled(width, height, GAP);
    draw_text(&mut words, 0, 0, meaning, 2, LETTERS);
    framed(&side_by_side(&[sign, words], 8, GAP), 4, GAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_frame_around_its_picture_alone() {
        let picture = Rgb8::filled(4, 4, [255; 3]);
        let pictures = vec![picture; 3];
        let marked = marked_sheet(&pictures, &[false, true], 3, "");
        let plain = marked_sheet(&pictures, &[], 3, "");
        let changed: Vec<(usize, usize)> = (0..plain.height)
            .flat_map(|y| (0..plain.width).map(move |x| (x, y)))
            .filter(|&(x, y)| marked.get(x, y) != plain.get(x, y))
            .collect();
        // A square of 12 pixels around one of 8.
        assert_eq!(changed.len(), 12 * 12 - 8 * 8);
        assert!(changed.iter().all(|&(x, _)| (14..26).contains(&x)));
    }
}
