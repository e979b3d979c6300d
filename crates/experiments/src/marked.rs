//! Sheets of small pictures in which some are marked.

use crate::table::GAP;
use sdft_imaging::{
    Filter, Rgb8, draw_text, framed, grid, resize, side_by_side, text_size, titled,
};

/// How much larger than its pixels a picture is shown.
const ENLARGED: usize = 2;
/// Pixels of a frame.
const FRAME: usize = 3;
/// The colour of a mark, and of letters.
const MARK: [u8; 3] = [32, 204, 84];
const LETTERS: [u8; 3] = [230, 230, 230];

/// Pictures row by row under a title, twice as large, with a coloured frame where `marks` is true. `marks` may be shorter.
pub(crate) fn marked_sheet(pictures: &[Rgb8], marks: &[bool], columns: usize, title: &str) -> Rgb8 {
    let marks = marks.iter().copied().chain(std::iter::repeat(false));
    let cell = |(picture, marked): (&Rgb8, bool)| {
        let (width, height) = (ENLARGED * picture.width, ENLARGED * picture.height);
        let enlarged = resize(picture, width, height, Filter::Bicubic);
        framed(&enlarged, FRAME, if marked { MARK } else { GAP })
    };
    let cells: Vec<Rgb8> = pictures.iter().zip(marks).map(cell).collect();
    titled(&grid(&cells, columns, 0, GAP), title)
}

/// A line that says what a mark means.
pub(crate) fn legend(meaning: &str) -> Rgb8 {
    const SCALE: usize = 2;
    let (width, height) = text_size(meaning, SCALE);
    let inside = height - 2 * FRAME;
    let sign = framed(&Rgb8::filled(inside, inside, GAP), FRAME, MARK);
    let mut words = Rgb8::filled(width, height, GAP);
    draw_text(&mut words, 0, 0, meaning, SCALE, LETTERS);
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
        // A square of 14 pixels around one of 8.
        assert_eq!(changed.len(), 14 * 14 - 8 * 8);
        assert!(changed.iter().all(|&(x, _)| (14..28).contains(&x)));
    }
}
