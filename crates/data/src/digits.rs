//! The embedded handwritten digits, drawn in one of two styles.

use crate::error::{DataError, Result};
use crate::source::ImageSource;
use sdft_imaging::{Limits, Rgb8, decode_bytes, from_unit_range_round};
use std::str::FromStr;

const SHEET: &[u8] = include_bytes!("../../../assets/digits/digits-8x8.png");
const LABELS: &str = include_str!("../../../assets/digits/labels.txt");
/// Side of a stored digit.
const TILE: usize = 8;
/// Tiles in a row of the sheet.
const COLUMNS: usize = 40;
/// Side of the digit inside the picture.
const INNER: usize = 12;
/// Side of the picture.
const SIDE: usize = 16;

/// How a digit is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// White chalk on slate: the source domain.
    Chalk,
    /// Hatched and glowing on a dark, grainy ground: the target domain.
    Ember,
}

impl FromStr for Style {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "chalk" => Ok(Self::Chalk),
            "ember" => Ok(Self::Ember),
            _ => Err(DataError::Digits { problem: format!("expected style chalk or ember, found {text:?}") }),
        }
    }
}

/// 1,797 real handwritten digits of 8x8 pixels and their classes.
#[derive(Clone, Debug)]
pub struct Digits {
    /// One byte a pixel, tile after tile.
    tiles: Vec<u8>,
    labels: Vec<u8>,
}

impl Digits {
    /// Side of a drawn digit, in pixels.
    pub const SIZE: usize = SIDE;

    /// The digits that the program carries with it.
    ///
    /// # Errors
    /// Never in a sound build.
    pub fn embedded() -> Result<Self> {
        let labels: Vec<u8> = LABELS.trim().bytes().map(|b| b.wrapping_sub(b'0')).collect();
        let sheet = decode_bytes(SHEET, &Limits::default())?;
        let fits = sheet.width == COLUMNS * TILE && sheet.width * sheet.height >= labels.len() * TILE * TILE;
        if !fits || labels.iter().any(|label| *label > 9) {
            return Err(DataError::Digits { problem: "the sheet and the labels do not fit".into() });
        }
        let mut tiles = Vec::with_capacity(labels.len() * TILE * TILE);
        for i in 0..labels.len() {
            let (left, top) = (i % COLUMNS * TILE, i / COLUMNS * TILE);
            for pixel in 0..TILE * TILE {
                let (x, y) = (left + pixel % TILE, top + pixel / TILE);
                tiles.push(sheet.pixels[3 * (y * sheet.width + x)]);
            }
        }
        Ok(Self { tiles, labels })
    }

    /// The class of each digit.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// The first `first` digits of each of these classes, in the order of the sheet; all classes if none is named.
    pub fn subset(&self, classes: &[u8], first: usize) -> Vec<usize> {
        let mut taken = [0usize; 10];
        let wanted = |label: u8| classes.is_empty() || classes.contains(&label);
        (0..self.labels.len())
            .filter(|&i| {
                let label = self.labels[i];
                let take = wanted(label) && taken[usize::from(label)] < first;
                taken[usize::from(label)] += usize::from(take);
                take
            })
            .collect()
    }

    /// Digit `index` in `style`, `[3, 16, 16]` in [-1, 1].
    ///
    /// ```text
    /// shape v: bilinear 8x8 -> 12x12 inside 16x16, u = clip((v - 1/4) / (1/2), 0, 1), v = u^2 (3 - 2u)
    /// ```
    ///
    /// # Panics
    /// When `index` is not below the number of labels.
    pub fn render(&self, index: usize, style: Style) -> Vec<f32> {
        let shape = self.shape(index);
        let mut out = vec![0.0f32; 3 * SIDE * SIDE];
        for (pixel, &v) in shape.iter().enumerate() {
            let (x, y) = (pixel % SIDE, pixel / SIDE);
            let colour = match style {
                Style::Chalk => blend(v, [-0.45, -0.40, -0.20], [0.90, 0.95, 1.00]),
                Style::Ember => {
                    let hatch = if (x + y) % 4 < 2 { 1.0 } else { 0.0 };
                    let glow = blend(v * (0.72 + 0.28 * hatch), [-0.15, -0.50, -0.70], [1.00, 0.65, -0.25]);
                    let grain = (grain(index, y, x) - 0.5) * 0.36 * (1.0 - 0.6 * v);
                    [glow[0] + grain, glow[1] + 0.7 * grain, glow[2] + 0.4 * grain]
                }
            };
            for (channel, value) in colour.into_iter().enumerate() {
                #[expect(clippy::cast_possible_truncation, reason = "a colour")]
                let value = value.clamp(-1.0, 1.0) as f32;
                out[channel * SIDE * SIDE + pixel] = value;
            }
        }
        out
    }

    /// How much ink is in each pixel of the 16x16 picture, 0 to 1.
    fn shape(&self, index: usize) -> Vec<f64> {
        let tile = &self.tiles[index * TILE * TILE..][..TILE * TILE];
        let at = |x: usize, y: usize| f64::from(tile[y * TILE + x]) / 255.0;
        let margin = (SIDE - INNER) / 2;
        let mut out = vec![0.0; SIDE * SIDE];
        for y in 0..INNER {
            for x in 0..INNER {
                let ((x0, x1, fx), (y0, y1, fy)) = (taps(x), taps(y));
                let top = at(x0, y0) * (1.0 - fx) + at(x1, y0) * fx;
                let bottom = at(x0, y1) * (1.0 - fx) + at(x1, y1) * fx;
                let v = top * (1.0 - fy) + bottom * fy;
                let u = ((v - 0.25) / 0.5).clamp(0.0, 1.0);
                out[(y + margin) * SIDE + x + margin] = u * u * (3.0 - 2.0 * u);
            }
        }
        out
    }
}

/// The two stored pixels around an enlarged one (half-pixel centres, the border repeated), and the share of the second.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the tile")]
fn taps(i: usize) -> (usize, usize, f64) {
    let centre = ((i as f64 + 0.5) * TILE as f64 / INNER as f64 - 0.5).clamp(0.0, (TILE - 1) as f64);
    let low = centre as usize;
    (low, (low + 1).min(TILE - 1), centre - low as f64)
}

fn blend(share: f64, ground: [f64; 3], ink: [f64; 3]) -> [f64; 3] {
    std::array::from_fn(|i| (1.0 - share) * ground[i] + share * ink[i])
}

/// A number in [0, 1) for each pixel of each digit: the finaliser of splitmix64 over the packed address.
fn grain(index: usize, y: usize, x: usize) -> f64 {
    let mut z = ((index as u64) << 16 | (y as u64) << 8 | x as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f64 / (1u64 << 24) as f64
}

/// Some of the digits in one style, as pictures of 8 bits like those from a folder.
#[derive(Clone, Debug)]
pub struct DigitsSource {
    digits: Digits,
    style: Style,
    indices: Vec<usize>,
}

impl DigitsSource {
    /// The first `per_class` digits of each of `classes` (all classes if none is named).
    ///
    /// # Errors
    /// A class above 9; nothing left.
    pub fn new(digits: Digits, style: Style, classes: &[u8], per_class: usize) -> Result<Self> {
        if let Some(class) = classes.iter().find(|class| **class > 9) {
            return Err(DataError::Digits { problem: format!("expected classes from 0 to 9, found {class}") });
        }
        let indices = digits.subset(classes, per_class);
        if indices.is_empty() {
            return Err(DataError::Digits { problem: "no digit is left".into() });
        }
        Ok(Self { digits, style, indices })
    }
}

impl ImageSource for DigitsSource {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn image(&self, index: usize) -> Result<Rgb8> {
        Ok(from_unit_range_round(&self.digits.render(self.indices[index], self.style), SIDE, SIDE)?)
    }

    fn id(&self, index: usize) -> String {
        format!("digits/{:04}", self.indices[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sheet_has_every_class_and_the_target_set_is_ninety_of_three() {
        let digits = Digits::embedded().unwrap();
        assert_eq!(digits.labels().len(), 1797);
        let target = digits.subset(&[1, 4, 7], 30);
        assert_eq!(target.len(), 90);
        assert!(target.iter().all(|&i| [1, 4, 7].contains(&digits.labels()[i])));
        assert_eq!(digits.subset(&[], usize::MAX).len(), 1797);
    }

    #[test]
    fn ground_and_ink_have_the_colours_of_their_style() {
        let digits = Digits::embedded().unwrap();
        let chalk = digits.render(0, Style::Chalk);
        // The margin is bare ground.
        assert_eq!([chalk[0], chalk[256], chalk[512]], [-0.45, -0.40, -0.20]);
        let brightest = chalk[..256].iter().copied().fold(f32::MIN, f32::max);
        assert!((brightest - 0.90).abs() < 1e-6, "{brightest}");
        let ember = digits.render(0, Style::Ember);
        let g = grain(0, 0, 0);
        for (channel, (ground, part)) in [(-0.15, 1.0), (-0.50, 0.7), (-0.70, 0.4)].into_iter().enumerate() {
            let want: f64 = ground + (g - 0.5) * 0.36 * part;
            assert!((f64::from(ember[256 * channel]) - want).abs() < 1e-6);
        }
        assert_ne!(digits.render(1, Style::Ember)[0], ember[0]);
    }

    #[test]
    fn enlargement_is_bilinear_with_the_border_repeated() {
        assert_eq!(taps(0), (0, 1, 0.0));
        let (low, high, share) = taps(1);
        assert_eq!((low, high), (0, 1));
        assert!((share - 0.5).abs() < 1e-12);
        assert_eq!(taps(11).0, 7);
    }

    #[test]
    fn odd_requests_are_refused() {
        let digits = Digits::embedded().unwrap();
        assert!(DigitsSource::new(digits.clone(), Style::Chalk, &[12], 3).unwrap_err().to_string().contains("found 12"));
        assert!(DigitsSource::new(digits, Style::Chalk, &[1], 0).is_err());
        assert!("ink".parse::<Style>().unwrap_err().to_string().contains("\"ink\""));
    }
}
