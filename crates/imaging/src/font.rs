//! A bitmap font of 5x7 dots for contact sheets.

use crate::Rgb8;

/// Columns of a character, including the space after it.
const ADVANCE: usize = 6;
/// Rows of a character.
const ROWS: usize = 7;

/// Draws one line of text with its top left corner at (`x`, `y`). Every dot is a square of `scale` pixels; 0 is read as 1.
///
/// The font has letters (lower case is drawn as capitals), digits, space and `. , - _ + = ( ) : / % >`; other characters are hollow boxes.
/// Text beyond the picture is cut off.
pub fn draw_text(image: &mut Rgb8, x: usize, y: usize, text: &str, scale: usize, colour: [u8; 3]) {
    let scale = scale.max(1);
    let dot = Rgb8::filled(scale, scale, colour);
    for (i, character) in text.chars().enumerate() {
        let left = x.saturating_add(i.saturating_mul(ADVANCE * scale));
        if left >= image.width {
            break;
        }
        for (row, bits) in glyph(character).into_iter().enumerate() {
            for column in (0..5).filter(|column| bits >> (4 - column) & 1 == 1) {
                image.paste(&dot, left + column * scale, y.saturating_add(row * scale));
            }
        }
    }
}

/// Width and height in pixels of the text that [`draw_text`] draws.
#[must_use]
pub fn text_size(text: &str, scale: usize) -> (usize, usize) {
    let scale = scale.max(1);
    let n = text.chars().count();
    // There is no space after the last character.
    ((n * ADVANCE).saturating_sub(1) * scale, ROWS * scale)
}

/// The dots of a character, one byte for each row, with the leftmost dot in bit 4.
fn glyph(character: char) -> [u8; ROWS] {
    const UNKNOWN: [u8; ROWS] = [31, 17, 17, 17, 17, 17, 31];
    let wanted = character.to_ascii_uppercase();
    GLYPHS
        .iter()
        .find(|(known, _)| *known == wanted)
        .map_or(UNKNOWN, |(_, rows)| *rows)
}

/// The characters of the font.
#[rustfmt::skip]
const GLYPHS: [(char, [u8; ROWS]); 49] = [
    ('A', [0b01110, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001]),
    ('B', [0b11110, 0b10001, 0b10001, 0b11110, 0b10001, 0b10001, 0b11110]),
    ('C', [0b01110, 0b10001, 0b10000, 0b10000, 0b10000, 0b10001, 0b01110]),
    ('D', [0b11110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b11110]),
    ('E', [0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b11111]),
    ('F', [0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b10000]),
    ('G', [0b01110, 0b10001, 0b10000, 0b10111, 0b10001, 0b10001, 0b01111]),
    ('H', [0b10001, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001]),
    ('I', [0b01110, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110]),
    ('J', [0b00111, 0b00010, 0b00010, 0b00010, 0b00010, 0b10010, 0b01100]),
    ('K', [0b10001, 0b10010, 0b10100, 0b11000, 0b10100, 0b10010, 0b10001]),
    ('L', [0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b11111]),
    ('M', [0b10001, 0b11011, 0b10101, 0b10101, 0b10001, 0b10001, 0b10001]),
    ('N', [0b10001, 0b11001, 0b10101, 0b10011, 0b10001, 0b10001, 0b10001]),
    ('O', [0b01110, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110]),
    ('P', [0b11110, 0b10001, 0b10001, 0b11110, 0b10000, 0b10000, 0b10000]),
    ('Q', [0b01110, 0b10001, 0b10001, 0b10001, 0b10101, 0b10010, 0b01101]),
    ('R', [0b11110, 0b10001, 0b10001, 0b11110, 0b10100, 0b10010, 0b10001]),
    ('S', [0b01111, 0b10000, 0b10000, 0b01110, 0b00001, 0b00001, 0b11110]),
    ('T', [0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100]),
    ('U', [0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01110]),
    ('V', [0b10001, 0b10001, 0b10001, 0b10001, 0b10001, 0b01010, 0b00100]),
    ('W', [0b10001, 0b10001, 0b10001, 0b10101, 0b10101, 0b11011, 0b10001]),
    ('X', [0b10001, 0b10001, 0b01010, 0b00100, 0b01010, 0b10001, 0b10001]),
    ('Y', [0b10001, 0b10001, 0b01010, 0b00100, 0b00100, 0b00100, 0b00100]),
    ('Z', [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b10000, 0b11111]),
    ('0', [0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110]),
    ('1', [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110]),
    ('2', [0b01110, 0b10001, 0b00001, 0b00110, 0b01000, 0b10000, 0b11111]),
    ('3', [0b11110, 0b00001, 0b00001, 0b01110, 0b00001, 0b00001, 0b11110]),
    ('4', [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010]),
    ('5', [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110]),
    ('6', [0b01110, 0b10000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110]),
    ('7', [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000]),
    ('8', [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110]),
    ('9', [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00001, 0b01110]),
    (' ', [0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b00000]),
    ('.', [0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b01100, 0b01100]),
    (',', [0b00000, 0b00000, 0b00000, 0b00000, 0b01100, 0b00100, 0b01000]),
    ('-', [0b00000, 0b00000, 0b00000, 0b11111, 0b00000, 0b00000, 0b00000]),
    ('_', [0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b00000, 0b11111]),
    ('+', [0b00000, 0b00100, 0b00100, 0b11111, 0b00100, 0b00100, 0b00000]),
    ('=', [0b00000, 0b00000, 0b11111, 0b00000, 0b11111, 0b00000, 0b00000]),
    ('(', [0b00010, 0b00100, 0b01000, 0b01000, 0b01000, 0b00100, 0b00010]),
    (')', [0b01000, 0b00100, 0b00010, 0b00010, 0b00010, 0b00100, 0b01000]),
    (':', [0b00000, 0b01100, 0b01100, 0b00000, 0b01100, 0b01100, 0b00000]),
    ('/', [0b00001, 0b00001, 0b00010, 0b00100, 0b01000, 0b10000, 0b10000]),
    ('%', [0b11001, 0b11001, 0b00010, 0b00100, 0b01000, 0b10011, 0b10011]),
    ('>', [0b01000, 0b00100, 0b00010, 0b00001, 0b00010, 0b00100, 0b01000]),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Renders text as rows of `#` and `.`.
    fn drawn(text: &str, scale: usize) -> Vec<String> {
        let (width, height) = text_size(text, scale);
        let mut image = Rgb8::filled(width, height, [0; 3]);
        draw_text(&mut image, 0, 0, text, scale, [255, 0, 0]);
        let row = |y| {
            let dots = (0..width).map(|x| image.get(x, y) == Some([255, 0, 0]));
            dots.map(|on| if on { '#' } else { '.' }).collect()
        };
        (0..height).map(row).collect()
    }

    #[test]
    fn text_looks_like_its_letters() {
        let expected = [
            ".####.#####", //
            "#.......#..",
            "#.......#..",
            ".###....#..",
            "....#...#..",
            "....#...#..",
            "####....#..",
        ];
        assert_eq!(drawn("sT", 1), expected);
    }

    #[test]
    fn scaling_makes_every_dot_a_square() {
        let (small, large) = (drawn("8", 1), drawn("8", 3));
        assert_eq!(large.len(), 21);
        for (y, row) in large.iter().enumerate() {
            let expected: String = small[y / 3].chars().flat_map(|c| [c; 3]).collect();
            assert_eq!(*row, expected);
        }
    }

    #[test]
    fn no_two_characters_look_alike() {
        for (i, (a, dots)) in GLYPHS.iter().enumerate() {
            for (b, others) in &GLYPHS[..i] {
                assert_ne!(dots, others, "{a} and {b}");
            }
            assert!(dots.iter().all(|&row| row < 32), "{a}");
        }
    }

    #[test]
    fn an_unknown_character_is_a_box() {
        assert_eq!(drawn("\u{e9}", 1)[0], "#####");
        assert_eq!(drawn("\u{e9}", 1)[3], "#...#");
    }

    #[test]
    fn text_beyond_the_picture_is_cut_off() {
        let mut image = Rgb8::filled(8, 4, [0; 3]);
        draw_text(&mut image, 3, 2, "WWW", 2, [9; 3]);
        draw_text(&mut image, usize::MAX, usize::MAX, "WWW", 2, [9; 3]);
        assert_eq!(image.get(3, 2), Some([9; 3]));
        assert_eq!(text_size("", 1).0, 0);
    }
}
