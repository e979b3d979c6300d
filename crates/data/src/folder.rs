//! A folder of images as a data set.

use std::path::{Path, PathBuf};

use sdft_imaging::{Limits, Rgb8, center_crop, decode_file};

use crate::{
    DataError, ImageSource, Report, Result,
    check::{Checked, check},
};

/// How a folder is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FolderOptions {
    /// Width and height of the images for the model in pixels.
    pub size: usize,
    /// Whether a file that cannot be read is an error; otherwise it is listed and left out.
    pub strict: bool,
    /// The images are kept in memory, decoded and resized, if they need no more than this many bytes; otherwise each is read when needed.
    pub cache_bytes: u64,
    /// How large an image file may be.
    pub limits: Limits,
}

impl FolderOptions {
    /// Images of `size` pixels; not strict, 1 GiB of memory (5,461 images of 256x256), the usual limits.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self {
            size,
            strict: false,
            cache_bytes: 1 << 30,
            limits: Limits::default(),
        }
    }
}

/// The images of a folder and its subfolders, in the byte order of their paths, centre-cropped and resized (see [`center_crop`]).
#[derive(Debug)]
pub struct FolderSource {
    items: Vec<(String, PathBuf)>,
    kept: Option<Vec<Rgb8>>,
    size: usize,
    limits: Limits,
}

impl FolderSource {
    /// The images of `folder` for a model of `size` pixels, and what was found; the usual [`FolderOptions`], with the limits that the
    /// environment sets.
    ///
    /// # Errors
    /// - see [`open_with`](Self::open_with) and [`Limits::from_env`]
    pub fn open(folder: &Path, size: usize, strict: bool) -> Result<(Self, Report)> {
        let options = FolderOptions {
            strict,
            limits: Limits::from_env()?,
            ..FolderOptions::new(size)
        };
        Self::open_with(folder, &options, &|_, _| {})
    }

    /// The images of `folder`, and what was found. Every image is decoded once, on all threads, so that nothing fails later.
    ///
    /// Images are told by their content, whatever they are called; the report names every other file. Links are followed, and a loop of
    /// them is walked once. `on_image` is called with (done, total) after each image, from any thread.
    ///
    /// # Errors
    /// - the folder is missing, not a folder, not listable, empty, without images, or none of its images can be read
    /// - one cannot be read and `options.strict` is set · `options.size` is 0
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
            size: options.size,
            limits: options.limits,
        };
        Ok((source, report))
    }

    /// Whether the images are kept in memory.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.kept.is_some()
    }
}

impl ImageSource for FolderSource {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn size(&self) -> usize {
        self.size
    }

    fn image(&self, index: usize) -> Result<Rgb8> {
        let (_, path) = self.items.get(index).ok_or(DataError::Index {
            index,
            len: self.len(),
        })?;
        match &self.kept {
            Some(kept) => Ok(kept[index].clone()),
            None => Ok(center_crop(&decode_file(path, &self.limits)?, self.size)),
        }
    }

    fn id(&self, index: usize) -> String {
        self.items
            .get(index)
            .map_or_else(String::new, |(id, _)| id.clone())
    }
}

/// What is in `folder`, for a model of `size` pixels: everything that training would find, without training.
///
/// # Errors
/// - see [`FolderSource::open_with`] and [`Limits::from_env`]; files that cannot be read are listed as long as one can
pub fn check_folder(folder: &Path, size: usize) -> Result<Report> {
    let options = FolderOptions {
        limits: Limits::from_env()?,
        ..FolderOptions::new(size)
    };
    check_folder_with(folder, &options, &|_, _| {})
}

/// As [`check_folder`], with options, and with `on_image` called with (done, total) after each image, from any thread.
///
/// # Errors
/// - see [`FolderSource::open_with`]
pub fn check_folder_with(
    folder: &Path,
    options: &FolderOptions,
    on_image: &(dyn Fn(usize, usize) + Sync),
) -> Result<Report> {
    Ok(check(folder, options, false, on_image)?.report)
}
