//! The samples of a model: in memory, or files of a folder where they are many or large.

use sdft_imaging::{Image, Limits, Rgb8, decode_file};
use sdft_jobs::Result;
use std::path::PathBuf;

/// Samples of a model.
pub(crate) enum Samples {
    /// Small images.
    Images(Vec<Rgb8>),
    /// The first `n` files of a folder.
    Folder { folder: PathBuf, n: usize },
}

impl Samples {
    /// The first `n` samples, or all.
    pub(crate) fn first(&self, n: usize) -> Result<Vec<Rgb8>> {
        match self {
            Self::Images(images) => Ok(images[..n.min(images.len())].to_vec()),
            Self::Folder { .. } => {
                let read = |(_, path): &(String, PathBuf)| {
                    let image = Image::from(decode_file(path, &Limits::from_env()?)?);
                    Ok(Rgb8::from_image(image))
                };
                self.files()?.iter().take(n).map(read).collect()
            }
        }
    }

    /// Their names and files; none for images in memory.
    pub(crate) fn files(&self) -> Result<Vec<(String, PathBuf)>> {
        match self {
            Self::Images(_) => Ok(Vec::new()),
            Self::Folder { folder, n } => {
                let mut files = sdft_data::list_images(folder)?;
                files.truncate(*n);
                Ok(files)
            }
        }
    }
}
