//! The trait of all image sources.

use sdft_imaging::Rgb8;

use crate::Result;

/// A numbered list of square pictures of one size. Reading a picture twice returns the same pixels.
pub trait ImageSource: Send + Sync {
    /// Number of pictures.
    fn len(&self) -> usize;

    /// Whether there are no pictures.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Width and height of every picture in pixels.
    fn size(&self) -> usize;

    /// Picture `index`, `size` x `size` pixels.
    ///
    /// # Errors
    /// Fails if `index` is not below [`len`](Self::len) or the picture cannot be read any more.
    fn image(&self, index: usize) -> Result<Rgb8>;

    /// The name of a picture: its path relative to the folder with `/` separators, or `digits/0123`; empty if `index` is out of range.
    fn id(&self, index: usize) -> String;
}
