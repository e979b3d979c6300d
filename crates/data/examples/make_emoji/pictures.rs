//! Reads the pictures of both packages and joins them to atlases.

use std::{
    error::Error,
    path::{Path, PathBuf},
};

use image::{
    ExtendedColorType, ImageEncoder as _,
    codecs::png::{CompressionType, FilterType, PngEncoder},
};
use sdft_imaging::{Filter, Limits, Rgb8, decode_file, resize};

use crate::{Described, TONES};

/// Width and height of a picture in pixels.
const SIDE: usize = 32;
/// Pictures in a row of an atlas: ten emoji with five tones and the one without.
const COLUMNS: usize = 60;
/// Values are rounded to multiples of this, which makes the files half as large.
const STEP: u8 = 5;

/// Emoji whose five files are mixed up: for each tone from light to dark, the number of the file that shows it.
const MIXED_UP: [(&str, [usize; 5]); 1] = [("1f6b5", [4, 3, 1, 2, 0])];
/// Pictures that show another tone than their file's name says, while no other file shows it.
const WRONG: [&str; 1] = ["1fac4-1f3ff"];

/// The pictures of one emoji in Microsoft's style.
///
/// The package has the files of medium-light and medium exchanged for most emoji. A picture gets the tone that it shows.
pub(crate) struct Fluent {
    /// For each tone without and with modifiers: the file.
    files: Vec<(String, PathBuf)>,
    /// For each of [`TONES`]: the number of the one whose file shows it.
    shown_by: [usize; 5],
}

impl Fluent {
    /// Finds the pictures of an emoji, and which file shows which tone.
    ///
    /// # Errors
    /// A file of medium-light or medium skin cannot be read.
    pub(crate) fn of(package: &Path, emoji: &Described) -> Result<Self, Box<dyn Error>> {
        let file = |image: &str| {
            let path = package.join("assets").join(image.replace(".png", ".webp"));
            path.is_file().then_some(path)
        };
        let files: Vec<(String, PathBuf)> = emoji
            .variations()
            .into_iter()
            .filter_map(|(tone, image)| Some((tone, file(&image)?)))
            .collect();
        let mut shown_by = [0, 1, 2, 3, 4];
        let mixed_up = MIXED_UP.iter().find(|(code, _)| *code == emoji.code());
        if let Some((_, order)) = mixed_up {
            shown_by = *order;
        } else {
            let brightness = |tone: &str| -> Result<Option<u64>, Box<dyn Error>> {
                let file = files.iter().find(|(modifiers, _)| modifiers == tone);
                let Some((_, file)) = file else {
                    return Ok(None);
                };
                let picture = decode_file(file, &Limits::default())?;
                Ok(Some(picture.pixels.iter().map(|&v| u64::from(v)).sum()))
            };
            let [light, medium] = [brightness(TONES[1].0)?, brightness(TONES[2].0)?];
            if light
                .zip(medium)
                .is_some_and(|(light, medium)| light < medium)
            {
                shown_by.swap(1, 2);
            }
        }
        Ok(Self { files, shown_by })
    }

    /// The file that shows the tone of `modifiers`; `code` is the emoji's with its modifiers.
    pub(crate) fn picture(&self, modifiers: &str, code: &str) -> Option<PathBuf> {
        if WRONG.contains(&code) {
            return None;
        }
        let tone = TONES.iter().position(|(tone, _)| *tone == modifiers);
        let shown_by = tone.map_or(modifiers, |tone| TONES[self.shown_by[tone]].0);
        let mut files = self.files.iter();
        files
            .find(|(tone, _)| tone == shown_by)
            .map(|(_, file)| file.clone())
    }
}

/// All pictures, row by row; white where there is none.
pub(crate) fn atlas(paths: &[Option<&PathBuf>]) -> Result<Rgb8, Box<dyn Error>> {
    let width = COLUMNS * SIDE;
    let mut sheet = Rgb8::filled(width, paths.len().div_ceil(COLUMNS) * SIDE, [255; 3]);
    for (i, path) in paths.iter().enumerate() {
        let Some(path) = path else {
            continue;
        };
        let picture = decode_file(path, &Limits::default())?;
        let small = resize(&picture, SIDE, SIDE, Filter::Lanczos);
        let (x, y) = (i % COLUMNS * SIDE, i / COLUMNS * SIDE);
        for (row, values) in small.pixels.chunks_exact(3 * SIDE).enumerate() {
            let at = 3 * ((y + row) * width + x);
            for (to, from) in sheet.pixels[at..].iter_mut().zip(values) {
                *to = rounded(*from);
            }
        }
    }
    Ok(sheet)
}

fn rounded(value: u8) -> u8 {
    value.saturating_add(STEP / 2) / STEP * STEP
}

/// The picture as PNG with the filter that makes the file smallest.
pub(crate) fn smallest_png(image: &Rgb8) -> Result<Vec<u8>, Box<dyn Error>> {
    let sides = [u32::try_from(image.width)?, u32::try_from(image.height)?];
    let mut smallest: Option<Vec<u8>> = None;
    for filter in [
        FilterType::NoFilter,
        FilterType::Sub,
        FilterType::Up,
        FilterType::Paeth,
        FilterType::Adaptive,
    ] {
        let mut bytes = Vec::new();
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, filter).write_image(
            &image.pixels,
            sides[0],
            sides[1],
            ExtendedColorType::Rgb8,
        )?;
        if smallest
            .as_ref()
            .is_none_or(|other| bytes.len() < other.len())
        {
            smallest = Some(bytes);
        }
    }
    smallest.ok_or_else(|| "no PNG was written".into())
}
