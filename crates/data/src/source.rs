//! The trait of all image sources.

use sdft_imaging::{Image, ImageSpec, Rgb8};

use sdft_noise::Draw;

use crate::{DataError, Result};

/// A numbered list of images of one form. Reading an image twice returns the same samples.
pub trait ImageSource: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The form of every image.
    fn spec(&self) -> &ImageSpec;

    /// Image `index` in the form of [`spec`](Self::spec), with its mask. `place` is where a random crop lies; other sources ignore it.
    ///
    /// # Errors
    /// Fails if `index` is not below [`len`](Self::len) or the image cannot be read any more.
    fn item(&self, index: usize, place: Place) -> Result<Item>;

    /// Image `index`, cropped at its centre.
    ///
    /// # Errors
    /// Fails for the same reasons as [`item`](Self::item).
    fn image(&self, index: usize) -> Result<Image> {
        Ok(self.item(index, Place::CENTRE)?.image)
    }

    /// Image `index` as a screen shows it ([`ImageSpec::screen`]).
    ///
    /// # Errors
    /// Fails for the same reasons as [`item`](Self::item).
    fn screen(&self, index: usize) -> Result<Rgb8> {
        Ok(self.spec().screen(&self.image(index)?))
    }

    /// The class of image `index`, as an index of [`classes`](Self::classes); `None` for images without classes.
    fn label(&self, index: usize) -> Option<u32> {
        let _ = index;
        None
    }

    /// The names of the classes; none for images without classes.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// The shape of the images' latents, `[C, H, W]`, if batches consist of these.
    fn latent_shape(&self) -> Option<[usize; 3]> {
        None
    }

    /// Draws the latents of image `index`, or of its mirror image, with the normal numbers of `draw`. Returns how much each counts in the
    /// loss, `[H, W]`; `None` if all count.
    ///
    /// # Errors
    /// Fails if `index` is not below [`len`](Self::len), or the latents cannot be read any more.
    fn draw_latents(
        &self,
        index: usize,
        mirrored: bool,
        draw: &Draw,
        out: &mut [f32],
    ) -> Result<Option<Vec<f32>>> {
        let (_, _, _) = (mirrored, draw, out);
        Err(DataError::Index {
            index,
            len: self.len(),
        })
    }

    /// The shape of an image in a batch, `[C, H, W]`: that of its latents, if there are any.
    fn shape(&self) -> [usize; 3] {
        self.latent_shape().unwrap_or_else(|| self.spec().shape())
    }

    /// Image `index` as batches have it without augmentation, `[C, H, W]` flattened; latents are drawn with the numbers of `draw`.
    ///
    /// # Errors
    /// Fails for the same reasons as [`item`](Self::item).
    fn values(&self, index: usize, draw: &Draw) -> Result<Vec<f32>> {
        let Some([c, h, w]) = self.latent_shape() else {
            return Ok(self.spec().to_unit_range(&self.image(index)?));
        };
        let mut out = vec![0.0; c * h * w];
        self.draw_latents(index, false, draw, &mut out)?;
        Ok(out)
    }

    /// The name of an image: its path relative to the folder with `/` separators, or `digits/0123` or `emoji/1f600`; empty if `index` is out of range.
    fn id(&self, index: usize) -> String;
}

/// An image of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The image.
    pub image: Image,
    /// How much each pixel counts in the loss: one channel of 8 bits, 0 takes no part and 255 counts fully. `None` if all count.
    pub mask: Option<Image>,
}

impl From<Image> for Item {
    fn from(image: Image) -> Self {
        Self { image, mask: None }
    }
}

/// Where a random crop lies in the larger image: 0 is the left or upper end, 1 the right or lower one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Horizontally, 0 to 1.
    pub x: f64,
    /// Vertically, 0 to 1.
    pub y: f64,
}

impl Place {
    /// The middle.
    pub const CENTRE: Self = Self { x: 0.5, y: 0.5 };
}
