//! A folder of images as an image source.

use std::path::{Path, PathBuf};

use sdft_imaging::{Image, ImageSpec, Limits, center_crop, decode_file};

use crate::{
    DataError, FolderOptions, ImageSource, Item, Place, Report, Result,
    check::{Checked, check},
};

/// The images of a folder and its subfolders, sorted by the bytes of their paths, center-cropped and resized (see [`center_crop`]).
#[derive(Debug)]
pub struct FolderSource {
    items: Vec<(String, PathBuf)>,
    kept: Option<Vec<Image>>,
    spec: ImageSpec,
    limits: Limits,
}

impl FolderSource {
    /// Opens `folder` for a model of `size` pixels, with the default [`FolderOptions`] and the limits from the environment. Also returns a
    /// report of the folder.
    ///
    /// # Errors
    /// Fails for the same reasons as [`open_with`](Self::open_with) and [`Limits::from_env`].
    pub fn open(folder: &Path, size: usize, strict: bool) -> Result<(Self, Report)> {
        let options = FolderOptions {
            strict,
            limits: Limits::from_env()?,
            ..FolderOptions::rgb8(size)
        };
        Self::open_with(folder, &options, &|_, _| {})
    }

    /// Opens `folder`, and returns a report of it. Every image is decoded once, on all threads, so that later reads do not fail.
    ///
    /// Images are recognised by content, regardless of their names; the report lists every other file. Links are followed, and a loop of links is
    /// visited once. `on_image` is called with (done, total) after each image, from any thread.
    ///
    /// # Errors
    /// Fails if
    /// - the folder does not exist, is not a folder, cannot be listed, is empty, or contains no readable image
    /// - an image cannot be read and `options.strict` is set, or `options.size` is 0
    pub fn open_with(
        folder: &Path,
        options: &FolderOptions,
        on_image: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<(Self, Report)> {
        let Checked {
            report,
            images,
            crops,
        } = check(folder, options, true, on_image)?;
        let source = Self {
            items: images,
            kept: crops,
            spec: ImageSpec::rgb8(options.size[1], options.size[0]),
            limits: options.limits,
        };
        Ok((source, report))
    }

    /// Whether the images are cached in memory.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.kept.is_some()
    }
}

impl ImageSource for FolderSource {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn spec(&self) -> &ImageSpec {
        &self.spec
    }

    fn item(&self, index: usize, _: Place) -> Result<Item> {
        let (_, path) = self.items.get(index).ok_or(DataError::Index {
            index,
            len: self.len(),
        })?;
        match &self.kept {
            Some(kept) => Ok(kept[index].clone().into()),
            None => {
                let crop = center_crop(&decode_file(path, &self.limits)?, self.spec.width);
                Ok(Image::from(crop).into())
            }
        }
    }

    fn id(&self, index: usize) -> String {
        self.items
            .get(index)
            .map_or_else(String::new, |(id, _)| id.clone())
    }
}

/// Checks `folder` as a data set for a model of `size` pixels, without training.
///
/// # Errors
/// Fails for the same reasons as [`FolderSource::open_with`] and [`Limits::from_env`]. Unreadable files are listed if at least one is readable.
pub fn check_folder(folder: &Path, size: usize) -> Result<Report> {
    let options = FolderOptions {
        limits: Limits::from_env()?,
        ..FolderOptions::new(size)
    };
    check_folder_with(folder, &options, &|_, _| {})
}

/// Like [`check_folder`], with options. `on_image` is called with (done, total) after each image, from any thread.
///
/// # Errors
/// Fails for the same reasons as [`FolderSource::open_with`].
pub fn check_folder_with(
    folder: &Path,
    options: &FolderOptions,
    on_image: &(dyn Fn(usize, usize) + Sync),
) -> Result<Report> {
    Ok(check(folder, options, false, on_image)?.report)
}
