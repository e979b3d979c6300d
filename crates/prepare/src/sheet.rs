//! The contact sheet next to a prepared folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sdft_imaging::{ImageSpec, Limits, Reading, Rgb8, center_crop, encode_sheet, grid, is_sheet};

use crate::{Record, target::Target};

/// An image as a screen shows it.
fn on_screen(path: &Path, limits: &Limits) -> Option<Rgb8> {
    let reading = Reading {
        limits: *limits,
        ..Reading::default()
    };
    let decoded = reading.decode_file(path, 0).ok()?;
    let image = &decoded.image;
    let spec = ImageSpec {
        range: decoded.range,
        ..ImageSpec::new(image.channels, image.depth(), image.width, image.height)
    };
    Some(spec.screen(image))
}

/// The contact sheet, or what happened to it.
pub(crate) enum Sheet {
    At(PathBuf),
    /// Another file is in its place and stays.
    Kept(PathBuf),
    /// It cannot be written, which does not affect the set.
    Failed,
}

/// Writes a sheet of up to 64 images, spread over the set, next to the folder.
pub(crate) fn contact_sheet(
    target: &Target,
    records: &[Record],
    limits: &Limits,
    is_changed: bool,
) -> Sheet {
    const SHOWN: usize = 64;
    const SIDE: usize = 96;
    let out = &target.folder;
    let Some(name) = out.file_name() else {
        return Sheet::Failed;
    };
    let path = out.with_file_name(format!("{}-grid.png", name.to_string_lossy()));
    if fs::symlink_metadata(&path).is_ok() {
        if !is_sheet(&path) {
            return Sheet::Kept(path);
        }
        if !is_changed {
            return Sheet::At(path);
        }
    }
    let files: Vec<&str> = records.iter().filter_map(|r| r.file.as_deref()).collect();
    let shown = files.len().min(SHOWN);
    let images: Vec<Rgb8> = (0..shown)
        .filter_map(|i| on_screen(&out.join(files[i * files.len() / shown]), limits))
        .map(|image| match image.width.max(image.height) > SIDE {
            true => center_crop(&image, SIDE),
            false => image,
        })
        .collect();
    let sheet = encode_sheet(&grid(&images, 8, 2, [24, 24, 24]));
    match sheet.is_ok_and(|sheet| target.put_outside(&path, &sheet).is_ok()) {
        true => Sheet::At(path),
        false => Sheet::Failed,
    }
}
