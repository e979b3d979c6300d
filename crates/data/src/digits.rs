//! The embedded data set: handwritten digits, drawn in two styles.

use std::{fmt, fs, path::Path, str::FromStr};

use sdft_imaging::{Limits, Reading, Rgb8, read_image_file};
use sdft_noise::{Draw, Purpose};
use serde::{Deserialize, Serialize};

use crate::{DataError, Result};

/// Side of a scanned digit in pixels.
const SCAN: usize = 8;
/// Side of an enlarged digit in pixels.
const DRAWN: usize = 12;
/// Margin around a digit in pixels.
const MARGIN: usize = (Digits::SIZE - DRAWN) / 2;

const SCANS_FILE: &str = "digits-8x8.png";
const LABELS_FILE: &str = "labels.txt";

/// The style in which a digit is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// Chalk on slate: the source domain.
    Chalk,
    /// Hatched yellow on grainy brown: the target domain.
    Ember,
}

impl Style {
    /// Both styles.
    pub const ALL: [Self; 2] = [Self::Chalk, Self::Ember];

    /// Draws a shape in this style's colours, see [`Digits::render`]; `index` selects the grain.
    ///
    /// # Shapes
    /// - `shape`: rows of `side` values in [0, 1], 1 inside the shape
    /// - returns `[3, rows, side]`, in [-1, 1]
    #[must_use]
    pub fn paint(self, shape: &[f32], side: usize, index: usize) -> Vec<f32> {
        let n = shape.len();
        let mut grain = vec![0.0; n];
        if self == Self::Ember {
            Draw::new(0, Purpose::Grain, 0, index as u64).fill_uniform(&mut grain);
        }
        let mut out = vec![0.0; 3 * n];
        for (i, (&v, &g)) in shape.iter().zip(&grain).enumerate() {
            let colour = match self {
                Self::Chalk => mix([-0.45, -0.40, -0.20], [0.90, 0.95, 1.00], v),
                Self::Ember => {
                    let hatched = (i % side + i / side) % 4 < 2;
                    let s = v * if hatched { 1.0 } else { 0.72 };
                    let grain = (g - 0.5) * 0.36 * (1.0 - 0.6 * v);
                    let [r, g, b] = mix([-0.15, -0.50, -0.70], [1.00, 0.65, -0.25], s);
                    [r + grain, g + 0.7 * grain, b + 0.4 * grain].map(|c| c.clamp(-1.0, 1.0))
                }
            };
            for (channel, value) in colour.into_iter().enumerate() {
                out[channel * n + i] = value;
            }
        }
        out
    }
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chalk => "chalk",
            Self::Ember => "ember",
        })
    }
}

impl FromStr for Style {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|s| s.to_string() == text);
        known.ok_or_else(|| DataError::Option {
            option: "style",
            expected: "chalk or ember".to_owned(),
            found: format!("{text:?}"),
        })
    }
}

/// 1,797 handwritten digits with their classes (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, CC BY 4.0).
#[derive(Debug, Clone, PartialEq)]
pub struct Digits {
    /// 8x8 values in [0, 1] for each digit.
    scans: Vec<[f32; SCAN * SCAN]>,
    labels: Vec<u8>,
}

impl Digits {
    /// Width and height of a rendered digit in pixels.
    pub const SIZE: usize = 16;

    /// The digits that are embedded in the program.
    ///
    /// # Errors
    /// Never fails with the files that the program is built with.
    pub fn embedded() -> Result<Self> {
        Self::parse(
            sdft_assets::DIGITS_PNG,
            sdft_assets::DIGITS_LABELS,
            "digits",
        )
    }

    /// Reads the digits from `digits-8x8.png` (tiles of 8x8, row by row) and `labels.txt` (one character for each tile) in a folder.
    ///
    /// # Errors
    /// Fails if a file is missing or damaged, or sizes or labels do not match; the error names the file.
    pub fn load(folder: &Path) -> Result<Self> {
        let scans = read_image_file(&folder.join(SCANS_FILE), &Limits::default())?;
        let path = folder.join(LABELS_FILE);
        let labels = fs::read(&path).map_err(|e| DataError::Embedded {
            file: path.display().to_string(),
            problem: format!("cannot be read: {e}"),
        })?;
        Self::parse(&scans, &labels, &folder.display().to_string())
    }

    /// The classes, 0 to 9, one for each digit.
    #[must_use]
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// The indices of the first `first` digits of each class, in the order of the data set. An empty `classes` selects all ten.
    ///
    /// # Errors
    /// Fails if a class is above 9.
    pub fn subset(&self, classes: &[u8], first: usize) -> Result<Vec<usize>> {
        if let Some(class) = classes.iter().find(|&&class| class > 9) {
            return Err(DataError::Option {
                option: "classes",
                expected: "digits from 0 to 9".to_owned(),
                found: class.to_string(),
            });
        }
        let mut taken = [0; 10];
        let wanted = |&(_, &label): &(usize, &u8)| {
            let taken = &mut taken[usize::from(label)];
            let wanted = (classes.is_empty() || classes.contains(&label)) && *taken < first;
            *taken += usize::from(wanted);
            wanted
        };
        let all = self.labels.iter().enumerate();
        Ok(all.filter(wanted).map(|(i, _)| i).collect())
    }

    /// Draws digit `index` in `style`.
    ///
    /// The shape `v` is the scan enlarged to 12x12 (bilinear, half-pixel centres, edges repeated) in the middle of 16x16, with higher contrast:
    /// `u = clip((v - 0.25) / 0.5, 0, 1)`, `v = u^2 (3 - 2u)`. Then
    /// ```text
    /// chalk  (1 - v) (-0.45, -0.40, -0.20) + v (0.90, 0.95, 1.00)
    /// ember  (1 - s) (-0.15, -0.50, -0.70) + s (1.00, 0.65, -0.25) + 0.36 (g - 0.5) (1.0, 0.7, 0.4) (1 - 0.6 v),  clipped to [-1, 1]
    ///        s = v (0.72 + 0.28 h),  h = 1 where (x + y) mod 4 < 2, else 0
    /// ```
    /// The grain `g` in [0, 1) depends on (index, y, x): element `16 y + x` of the stream of [`Purpose::Grain`] with seed 0, step 0 and sample
    /// `index`.
    ///
    /// # Shapes
    /// - returns `[3, 16, 16]`, in [-1, 1]
    /// # Panics
    /// Panics if `index` is not below the number of [`labels`](Self::labels).
    #[must_use]
    pub fn render(&self, index: usize, style: Style) -> Vec<f32> {
        style.paint(&self.shape(index), Self::SIZE, index)
    }

    /// The shape of digit `index`: 16x16 values from 0 outside to 1 inside.
    pub(crate) fn shape(&self, index: usize) -> [f32; Self::SIZE * Self::SIZE] {
        shape(&self.scans[index])
    }

    /// Parses the digits from the content of both files; `origin` names the folder in errors.
    fn parse(scans: &[u8], labels: &[u8], origin: &str) -> Result<Self> {
        let problem = |file: &str, problem: String| DataError::Embedded {
            file: format!("{origin}/{file}"),
            problem,
        };
        let mut classes = Vec::new();
        for (at, &byte) in labels.trim_ascii().iter().enumerate() {
            if !byte.is_ascii_digit() {
                let found = byte.escape_ascii();
                let text = format!("expected digits from 0 to 9, found '{found}' at position {at}");
                return Err(problem(LABELS_FILE, text));
            }
            classes.push(byte - b'0');
        }
        let name = format!("{origin}/{SCANS_FILE}");
        let sheet = Reading::rgb8(Limits::default()).decode(scans, &name, 0)?;
        let sheet = Rgb8::from_image(sheet.image);
        if !sheet.width.is_multiple_of(SCAN) || !sheet.height.is_multiple_of(SCAN) {
            let text = format!(
                "expected sides that are multiples of 8 pixels, found {}x{}",
                sheet.width, sheet.height
            );
            return Err(problem(SCANS_FILE, text));
        }
        let columns = sheet.width / SCAN;
        let tiles = columns * (sheet.height / SCAN);
        if classes.is_empty() || classes.len() > tiles {
            let text = format!(
                "expected 1 to {tiles} labels, at most the number of tiles in {SCANS_FILE}, found {}",
                classes.len()
            );
            return Err(problem(LABELS_FILE, text));
        }
        let scans = (0..classes.len()).map(|i| scan(&sheet, i % columns, i / columns));
        Ok(Self {
            scans: scans.collect(),
            labels: classes,
        })
    }
}

/// The values of the tile in a column and row of the grey sheet.
///
/// Choice: level / 255, so the thresholds apply to the file's values; the original 0 to 16 differ by less than a level.
fn scan(sheet: &Rgb8, column: usize, row: usize) -> [f32; SCAN * SCAN] {
    std::array::from_fn(|i| {
        let (x, y) = (column * SCAN + i % SCAN, row * SCAN + i / SCAN);
        f32::from(sheet.pixels[3 * (y * sheet.width + x)]) / 255.0
    })
}

/// The 16x16 shape of a scan.
fn shape(scan: &[f32; SCAN * SCAN]) -> [f32; Digits::SIZE * Digits::SIZE] {
    // The two neighbours, and the weight of the second, for each of the 12 rows or columns.
    let taps: [(usize, usize, f32); DRAWN] = std::array::from_fn(|i| {
        let at = ((i as f32 + 0.5) * SCAN as f32 / DRAWN as f32 - 0.5).max(0.0);
        let low = at as usize;
        (low, (low + 1).min(SCAN - 1), at - low as f32)
    });
    let mut out = [0.0; Digits::SIZE * Digits::SIZE];
    for (y, &(y0, y1, fy)) in taps.iter().enumerate() {
        for (x, &(x0, x1, fx)) in taps.iter().enumerate() {
            let row = |y: usize| scan[y * SCAN + x0] * (1.0 - fx) + scan[y * SCAN + x1] * fx;
            let v = row(y0) * (1.0 - fy) + row(y1) * fy;
            let u = ((v - 0.25) / 0.5).clamp(0.0, 1.0);
            out[(y + MARGIN) * Digits::SIZE + x + MARGIN] = u * u * (3.0 - 2.0 * u);
        }
    }
    out
}

/// `(1 - by) from + by to`.
fn mix(from: [f32; 3], to: [f32; 3], by: f32) -> [f32; 3] {
    std::array::from_fn(|c| (1.0 - by) * from[c] + by * to[c])
}
