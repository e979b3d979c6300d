//! Sets of ten classes as a source of all classes and a small target.

use std::{fs::File, path::Path};

use parquet::{
    file::reader::SerializedFileReader,
    record::{Field, Row},
};
use sdft_assets::{Asset, ImageSet};
use sdft_data::Style;
use sdft_imaging::{ImagingError, Limits, Rgb8, decode_bytes, from_unit_range_round};

use crate::{PrepareError, Result};

/// Classes of the target.
const CLASSES: [i64; 3] = [1, 4, 7];
/// Images of each.
const PER_CLASS: usize = 100;
const SIDE: usize = ImageSet::PAIR_SIZE;
/// Side of the images that get a margin.
const GREY_SIDE: usize = 28;

/// Pictures with the places they came from: `train#17 class 5`.
type Pictures = Vec<(String, Rgb8)>;

/// The two sides of a set of classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// All training images as they are, at 32x32.
    pub source: Pictures,
    /// A hundred test images of each of the classes 1, 4 and 7, in the colours of [`Style::Ember`].
    pub target: Pictures,
}

/// Reads a set of classes from its files: tables of images and labels, `train` first, then `test`.
///
/// Pictures of 28x28 get a black margin of two pixels.
///
/// # Errors
/// A file that is not there, or holds other things than images of 28x28 or 32x32 with their classes.
pub fn load_pair(asset: &Asset, files: &[impl AsRef<Path>]) -> Result<Pair> {
    let set = |problem: String| PrepareError::Classes {
        name: asset.name.clone(),
        problem,
    };
    let [train, test] = files else {
        return Err(set(format!("expected two tables, found {}", files.len())));
    };
    let read = |part: &str, path: &Path| {
        let broken = |reason| set(format!("{}: {reason}", path.display()));
        rows(part, path).map_err(broken)
    };
    let source = read("train", train.as_ref())?;
    let test = read("test", test.as_ref())?;
    Ok(Pair {
        source: source.into_iter().map(|(place, _, p)| (place, p)).collect(),
        target: target(test).map_err(|e| set(e.to_string()))?,
    })
}

/// The first images of each of the target's classes, in its colours.
fn target(rows: Vec<(String, i64, Rgb8)>) -> std::result::Result<Pictures, ImagingError> {
    let mut counts = [0; CLASSES.len()];
    let mut target = Vec::new();
    for (i, (place, class, picture)) in rows.into_iter().enumerate() {
        let Some(slot) = CLASSES.iter().position(|&known| known == class) else {
            continue;
        };
        if counts[slot] < PER_CLASS {
            counts[slot] += 1;
            target.push((place, ember(&picture, i)?));
        }
    }
    Ok(target)
}

/// The pictures of a table, with their classes.
fn rows(part: &str, path: &Path) -> std::result::Result<Vec<(String, i64, Rgb8)>, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let mut rows = guarded(|| {
        let reader = SerializedFileReader::new(file).map_err(|e| e.to_string())?;
        Ok(reader.into_iter())
    })?;
    let mut all = Vec::new();
    loop {
        let place = format!("{part}#{}", all.len());
        let row = guarded(|| rows.next().transpose().map_err(|e| e.to_string()));
        let Some(row) = row.map_err(|reason| format!("{place}: {reason}"))? else {
            return Ok(all);
        };
        let (class, picture) = read_row(&row).map_err(|reason| format!("{place}: {reason}"))?;
        all.push((format!("{place} class {class}"), class, picture));
    }
}

/// The result, with a panic of the reader as an error.
fn guarded<T>(
    read: impl FnOnce() -> std::result::Result<T, String>,
) -> std::result::Result<T, String> {
    sdft_files::guarded(read).unwrap_or_else(|| Err("its reader panicked".to_owned()))
}

/// A class and its picture: the whole number of the row and the bytes of its image.
fn read_row(row: &Row) -> std::result::Result<(i64, Rgb8), String> {
    let (mut class, mut bytes) = (None, None);
    for (_, field) in row.get_column_iter() {
        match field {
            Field::Long(label) => class = Some(*label),
            Field::Group(image) => {
                bytes = image.get_column_iter().find_map(|(_, field)| match field {
                    Field::Bytes(bytes) => Some(bytes),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let (Some(class), Some(bytes)) = (class, bytes) else {
        return Err("expected an image and a class".to_owned());
    };
    let picture = decode_bytes(bytes.data(), &Limits::default());
    let picture = picture.map_err(|e| e.to_string())?;
    match (picture.width, picture.height) {
        (SIDE, SIDE) => Ok((class, picture)),
        (GREY_SIDE, GREY_SIDE) => Ok((class, with_margin(&picture))),
        (w, h) => Err(format!(
            "expected an image of 28x28 or 32x32, found {w}x{h}"
        )),
    }
}

/// A picture of 28x28 in the middle of a black one of 32x32.
fn with_margin(picture: &Rgb8) -> Rgb8 {
    let margin = (SIDE - GREY_SIDE) / 2;
    let mut framed = Rgb8::filled(SIDE, SIDE, [0; 3]);
    for (y, row) in picture.pixels.chunks_exact(3 * GREY_SIDE).enumerate() {
        let at = 3 * ((y + margin) * SIDE + margin);
        framed.pixels[at..at + row.len()].copy_from_slice(row);
    }
    framed
}

/// The picture's lightness in the colours of the target domain.
fn ember(picture: &Rgb8, index: usize) -> std::result::Result<Rgb8, ImagingError> {
    // BT.601, as Pillow's `convert("L")`.
    let light = |p: &[u8]| {
        (0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2])) / 255.0
    };
    let shape: Vec<f32> = picture.pixels.chunks_exact(3).map(light).collect();
    let painted = Style::Ember.paint(&shape, SIDE, index);
    from_unit_range_round(&painted, SIDE, SIDE)
}
