use crate::error::Result;
use sdft_imaging::Rgb8;

/// A finite list of images of one size.
pub trait ImageSource: Send + Sync {
    /// Number of images, at least one.
    fn len(&self) -> usize;

    /// Whether there is none; never true of a source that could be opened.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Image `index`, at the source's size.
    ///
    /// # Errors
    /// A file that can no longer be read.
    fn image(&self, index: usize) -> Result<Rgb8>;

    /// A name for image `index` that stays the same: its path below the folder, or `digits/0123`.
    fn id(&self, index: usize) -> String;
}
