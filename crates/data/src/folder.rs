//! A folder of images as an image source.

use std::path::Path;

use sdft_imaging::{ImageSpec, Limits};

use crate::{
    DataError, FolderOptions, ImageSource, Item, Place, Report, Result,
    check::{Checked, check},
    classes::Classes,
    entries::Entries,
    masks::Masks,
    reader::Reader,
};

/// The images of a folder and its subfolders, sorted by the bytes of their paths, in one form and size.
#[derive(Debug)]
pub struct FolderSource {
    images: Entries,
    kept: Option<Vec<Item>>,
    spec: ImageSpec,
    reader: Reader,
    masks: Option<Masks>,
    classes: Classes,
}

impl FolderSource {
    /// Opens `folder` for a model of 8-bit RGB images of `size` pixels, with the other options of [`FolderOptions::rgb8`] and the limits from
    /// the environment. Also returns a report of the folder.
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
    /// visited once. `on_image` is called with (done, total) after each file, from any thread.
    ///
    /// # Errors
    /// Fails if
    /// - the folder does not exist, is not a folder, cannot be listed, is empty, or contains no readable image
    /// - an image cannot be read and `options.strict` is set, or an option has an invalid value
    /// - an image has values outside the range, and `options.range` is `None`
    /// - an image has no class or mask, and `options` ask for one; or a mask does not fit its image, or is dark everywhere
    /// - there are integers and floats, and `options.depth` is `None`; or the files state different ranges, and `options.range` is `None`
    pub fn open_with(
        folder: &Path,
        options: &FolderOptions,
        on_image: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<(Self, Report)> {
        let Checked {
            report,
            images,
            kept,
            spec,
            reader,
            masks,
            classes,
        } = check(folder, options, true, on_image)?;
        let source = Self {
            images,
            kept,
            reader: reader.of_form(spec.channels, spec.depth),
            spec,
            masks,
            classes,
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
        self.images.len()
    }

    fn spec(&self) -> &ImageSpec {
        &self.spec
    }

    fn item(&self, index: usize, place: Place) -> Result<Item> {
        if index >= self.len() {
            return Err(DataError::Index {
                index,
                len: self.len(),
            });
        }
        if let Some(kept) = &self.kept {
            return Ok(self.reader.cached(&kept[index], &self.spec, place)?);
        }
        let (path, id, page) = self.images.file(index);
        let raw = self.reader.load((&path, id, page), self.masks.as_ref())?;
        Ok(self.reader.fitted(&raw, &self.spec, place)?)
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.classes.labels.get(index).copied()
    }

    fn classes(&self) -> &[String] {
        &self.classes.names
    }

    /// The path of the image's file relative to the folder, with `#` and the number of the page if the file has several: `a.tif#2`.
    fn id(&self, index: usize) -> String {
        match index < self.len() {
            true => self.images.id(index).into_owned(),
            false => String::new(),
        }
    }
}

/// Checks `folder` as a data set for a model of `size` pixels, in the form that its images share, without training.
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
