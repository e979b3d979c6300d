//! What all data sets have in common.

use sdft_imaging::Rgb8;

use crate::Result;

/// A numbered list of square pictures of one size. Reading a picture twice gives the same pixels.
pub trait ImageSource: Send + Sync {
    /// The number of pictures.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The width and height of every picture in pixels.
    fn size(&self) -> usize;

    /// Picture `index`, `size` x `size` pixels.
    ///
    /// # Errors
    /// - `index` is not below [`len`](Self::len) · the picture cannot be read any more
    fn image(&self, index: usize) -> Result<Rgb8>;

    /// A name for people: the path inside the folder with `/` between its parts, or `digits/0123`; empty for an index that does not exist.
    fn id(&self, index: usize) -> String;
}
