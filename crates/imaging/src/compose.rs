//! Contact sheets: many pictures in one picture.

use crate::{Rgb8, draw_text, text_size};

/// Arranges pictures row by row in `columns` columns, with `pad` pixels of `background` between and around them.
///
/// Every cell has the size of the largest picture; smaller ones are in the top left corner of their cell. `columns` of 0 is read as 1. Without
/// pictures the result is one pixel of background.
#[must_use]
pub fn grid(images: &[Rgb8], columns: usize, pad: usize, background: [u8; 3]) -> Rgb8 {
    let columns = columns.clamp(1, images.len().max(1));
    let rows = images.len().div_ceil(columns);
    let cell_width = images.iter().map(|i| i.width).max().unwrap_or(0);
    let cell_height = images.iter().map(|i| i.height).max().unwrap_or(0);
    if images.is_empty() {
        return Rgb8::filled(1, 1, background);
    }
    let mut sheet = Rgb8::filled(
        columns * (cell_width + pad) + pad,
        rows * (cell_height + pad) + pad,
        background,
    );
    for (i, image) in images.iter().enumerate() {
        let x = pad + (i % columns) * (cell_width + pad);
        let y = pad + (i / columns) * (cell_height + pad);
        sheet.paste(image, x, y);
    }
    sheet
}

/// Repeats every pixel as a square of `factor` x `factor`; 0 is read as 1.
#[must_use]
pub fn enlarge(image: &Rgb8, factor: usize) -> Rgb8 {
    let factor = factor.max(1);
    let mut pixels = Vec::with_capacity(image.pixels.len() * factor * factor);
    for row in image.pixels.chunks_exact(3 * image.width) {
        let start = pixels.len();
        for pixel in row.chunks_exact(3) {
            for _ in 0..factor {
                pixels.extend_from_slice(pixel);
            }
        }
        let end = pixels.len();
        for _ in 1..factor {
            pixels.extend_from_within(start..end);
        }
    }
    Rgb8 {
        width: image.width * factor,
        height: image.height * factor,
        pixels,
    }
}

/// Small pictures are enlarged to about this many pixels.
const SHOWN: usize = 64;
/// The grey between pictures and behind text.
const GAP: [u8; 3] = [24, 24, 24];
const LETTERS: [u8; 3] = [230, 230, 230];

/// Arranges pictures row by row in `columns` columns, enlarging small ones, with a label above each column and a title.
///
/// If there are more columns than labels, labels are repeated from the first; without labels there is no label row. A column is as wide as
/// its label needs. `columns` of 0 is read as 1.
#[must_use]
pub fn contact_sheet<S: AsRef<str>>(
    images: &[Rgb8],
    columns: usize,
    labels: &[S],
    title: &str,
) -> Rgb8 {
    const PAD: usize = 2;
    let factor = images
        .first()
        .map_or(1, |image| (SHOWN / image.width.max(1)).max(1));
    let mut cells: Vec<Rgb8> = images.iter().map(|image| enlarge(image, factor)).collect();
    if labels.is_empty() || cells.is_empty() {
        return titled(&grid(&cells, columns, PAD, GAP), title);
    }
    let columns = columns.clamp(1, cells.len());
    let used: Vec<&str> = (0..columns)
        .map(|column| labels[column % labels.len()].as_ref())
        .collect();
    let widest = |scale| used.iter().map(|label| text_size(label, scale).0).max();
    let cell = cells.iter().map(|cell| cell.width).max().unwrap_or(1);
    // Large letters if they fit.
    let scale = if widest(2) <= Some(cell) { 2 } else { 1 };
    let width = cell.max(widest(scale).unwrap_or(0));
    let mut line = Vec::with_capacity(columns);
    for label in used {
        let mut strip = Rgb8::filled(width, text_size("", scale).1, GAP);
        draw_text(&mut strip, 0, 0, label, scale, LETTERS);
        line.push(strip);
    }
    // The same widths in both grids.
    for cell in cells.iter_mut().filter(|cell| cell.width < width) {
        let mut wide = Rgb8::filled(width, cell.height, GAP);
        wide.paste(cell, 0, 0);
        *cell = wide;
    }
    let (line, body) = (
        grid(&line, columns, PAD, GAP),
        grid(&cells, columns, PAD, GAP),
    );
    let mut sheet = Rgb8::filled(body.width, line.height + body.height, GAP);
    sheet.paste(&line, 0, 0);
    sheet.paste(&body, 0, line.height);
    titled(&sheet, title)
}

/// Adds a frame of `width` pixels around the picture.
#[must_use]
pub fn framed(image: &Rgb8, width: usize, colour: [u8; 3]) -> Rgb8 {
    let mut sheet = Rgb8::filled(image.width + 2 * width, image.height + 2 * width, colour);
    sheet.paste(image, width, width);
    sheet
}

/// Arranges pictures next to each other, aligned at the top, with `gap` pixels of `background` between them.
///
/// Without pictures the result is one pixel of background.
#[must_use]
pub fn side_by_side(images: &[Rgb8], gap: usize, background: [u8; 3]) -> Rgb8 {
    let width: usize = images.iter().map(|i| i.width + gap).sum();
    let height = images.iter().map(|i| i.height).max().unwrap_or(0);
    let mut sheet = Rgb8::filled(width.saturating_sub(gap), height, background);
    let mut x = 0;
    for image in images {
        sheet.paste(image, x, 0);
        x += image.width + gap;
    }
    sheet
}

/// Arranges pictures below each other, aligned at the left, with `gap` pixels of `background` between them.
///
/// Without pictures the result is one pixel of background.
#[must_use]
pub fn stacked(images: &[Rgb8], gap: usize, background: [u8; 3]) -> Rgb8 {
    let width = images.iter().map(|i| i.width).max().unwrap_or(0);
    let height: usize = images.iter().map(|i| i.height + gap).sum();
    let mut sheet = Rgb8::filled(width, height.saturating_sub(gap), background);
    let mut y = 0;
    for image in images {
        sheet.paste(image, 0, y);
        y += image.height + gap;
    }
    sheet
}

/// Adds a dark strip of 14 pixels above the picture, with a title in light letters (see [`draw_text`]).
///
/// A title that is longer than the picture widens it.
#[must_use]
pub fn titled(image: &Rgb8, title: &str) -> Rgb8 {
    const SCALE: usize = 2;
    const MARGIN: usize = 4;
    let (text_width, text_height) = text_size(title, SCALE);
    let strip = text_height + 2 * MARGIN;
    let mut sheet = Rgb8::filled(
        image.width.max(text_width + 2 * MARGIN),
        strip + image.height,
        GAP,
    );
    draw_text(&mut sheet, MARGIN, MARGIN, title, SCALE, LETTERS);
    sheet.paste(image, 0, strip);
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACK: [u8; 3] = [1, 2, 3];

    fn dot(level: u8) -> Rgb8 {
        Rgb8::filled(1, 1, [level; 3])
    }

    fn reds(image: &Rgb8) -> Vec<u8> {
        image.pixels.iter().step_by(3).copied().collect()
    }

    #[test]
    fn a_grid_fills_rows_first_and_pads_all_around() {
        let sheet = grid(&[dot(10), dot(20), dot(30)], 2, 1, BACK);
        assert_eq!((sheet.width, sheet.height), (5, 5));
        let expected = [
            1, 1, 1, 1, 1, //
            1, 10, 1, 20, 1, //
            1, 1, 1, 1, 1, //
            1, 30, 1, 1, 1, //
            1, 1, 1, 1, 1,
        ];
        assert_eq!(reds(&sheet), expected);
    }

    #[test]
    fn a_grid_has_no_empty_columns_and_survives_odd_arguments() {
        assert_eq!(grid(&[dot(9), dot(8)], 10, 0, BACK).width, 2);
        assert_eq!(grid(&[dot(9), dot(8)], 0, 0, BACK).height, 2);
        assert_eq!(grid(&[], 3, 2, BACK), Rgb8::filled(1, 1, BACK));
        let mixed = grid(&[dot(9), Rgb8::filled(2, 3, [7; 3])], 2, 0, BACK);
        assert_eq!((mixed.width, mixed.height), (4, 3));
        assert_eq!(mixed.get(1, 0), Some(BACK));
    }

    #[test]
    fn a_frame_surrounds_the_whole_picture() {
        let sheet = framed(&dot(9), 1, BACK);
        assert_eq!(reds(&sheet), [1, 1, 1, 1, 9, 1, 1, 1, 1]);
        assert_eq!(framed(&dot(9), 0, BACK), dot(9));
    }

    #[test]
    fn enlarging_repeats_pixels() {
        let image = Rgb8::new(2, 1, vec![5, 5, 5, 6, 6, 6]).unwrap();
        let large = enlarge(&image, 2);
        assert_eq!((large.width, large.height), (4, 2));
        assert_eq!(reds(&large), [5, 5, 6, 6, 5, 5, 6, 6]);
        assert_eq!(enlarge(&image, 1), image);
        assert_eq!(enlarge(&image, 0), image);
    }

    #[test]
    fn sheets_stand_next_to_each_other() {
        let sheet = side_by_side(&[dot(8), Rgb8::filled(1, 2, [9; 3]), dot(7)], 1, BACK);
        assert_eq!(reds(&sheet), [8, 1, 9, 1, 7, 1, 1, 9, 1, 1]);
        assert_eq!(side_by_side(&[], 4, BACK), Rgb8::filled(1, 1, BACK));
    }

    #[test]
    fn sheets_stand_below_each_other() {
        let sheet = stacked(&[dot(8), Rgb8::filled(2, 1, [9; 3]), dot(7)], 1, BACK);
        assert_eq!(reds(&sheet), [8, 1, 1, 1, 9, 9, 1, 1, 7, 1]);
        assert_eq!(stacked(&[], 4, BACK), Rgb8::filled(1, 1, BACK));
    }

    #[test]
    fn every_column_of_a_sheet_has_its_label_above_it() {
        let letters = |sheet: &Rgb8, x: usize, width: usize| {
            // Below the title of 22 rows and above the pictures.
            let line = sheet.crop(x, 22, width, 11).unwrap();
            line.pixels.iter().filter(|&&v| v == LETTERS[0]).count()
        };
        let cell = Rgb8::filled(64, 64, [90; 3]);
        let cells = vec![cell.clone(); 6];
        let sheet = contact_sheet(&cells, 4, &["in", "a longer label"], "t");
        // The second label needs 14 x 6 - 1 pixels in small letters, and all columns have this width.
        assert_eq!(sheet.width, 4 * (83 + 2) + 2);
        let counts: Vec<usize> = (0..4).map(|c| letters(&sheet, 2 + 85 * c, 83)).collect();
        assert!(counts[0] > 0 && counts[1] > counts[0], "{counts:?}");
        assert_eq!(counts[..2], counts[2..]);
        let plain = contact_sheet(&cells, 4, &[""; 0], "t");
        assert_eq!(plain.width, 4 * 66 + 2);
        assert_eq!(contact_sheet(&[], 0, &["in"], "t").height, 22 + 1);
        // Small pictures are enlarged.
        let small = vec![Rgb8::filled(16, 16, [90; 3]); 2];
        assert_eq!(contact_sheet(&small, 2, &[""; 0], "").width, 2 * 66 + 2);
    }

    #[test]
    fn a_title_stands_above_the_picture() {
        let image = Rgb8::filled(90, 4, [200; 3]);
        let sheet = titled(&image, "SDFT");
        assert_eq!((sheet.width, sheet.height), (90, 4 + 14 + 8));
        assert_eq!(sheet.crop(0, 22, 90, 4).unwrap(), image);
        let strip = sheet.crop(0, 0, 90, 22).unwrap();
        assert!(strip.pixels.contains(&230));
        assert!(titled(&image, "a longer title").width > 90);
    }
}
