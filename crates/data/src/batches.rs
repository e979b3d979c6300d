//! The batch of each step.

use std::{fmt, sync::Arc};

use rayon::prelude::*;
use sdft_imaging::Image;
use sdft_noise::{Draw, Purpose};

use crate::{DataError, ImageSource, Order, Place, Result};

/// Minimum number of samples for each thread; smaller parts are not faster.
const GRAIN: usize = 4;

/// Random augmentation of the images.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Augment {
    /// Mirror left to right with probability 1/2.
    pub flip: bool,
    /// Mirror top to bottom with probability 1/2.
    pub flip_vertical: bool,
    /// Shift by up to `shift` pixels in x and in y, independently and uniformly; edge pixels are repeated.
    pub shift: usize,
    /// Zoom around the centre by a factor between `1 / (1 + scale)` and `1 + scale`, uniform in its logarithm; edge pixels are repeated.
    pub scale: f64,
    /// The probability of each of the transforms of EDM's augmentation, 0 to 1; 0 is off. It adds augmentation labels to the batches.
    pub edm: f64,
}

/// A batch of images for a model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Batch {
    /// The step of the batch.
    pub step: u64,
    /// The indices of its images in the source.
    pub indices: Vec<usize>,
    /// `[B, C, H, W]`.
    pub shape: [usize; 4],
    /// The images, channels first, in [-1, 1].
    pub data: Vec<f32>,
    /// The class of each image, if the source has classes.
    pub labels: Option<Vec<u32>>,
    /// How much each pixel counts in the loss, `[B, H, W]`, 0 to 1; `None` if all count.
    pub mask: Option<Vec<f32>>,
    /// The augmentation labels of each image, `[B, 9]`, if the images are augmented as in EDM.
    pub augment: Option<Vec<f32>>,
}

/// The batches of a run: images of a source in the run's [`Order`], augmented.
///
/// Sample `i` of step `k` is sample `g = k * batch + i` of the run, and its random numbers have the address `(seed, purpose, g)`. So two
/// batches of 4 equal one batch of 8, and a batch may be split over devices or accumulation steps. A source smaller than the batch is
/// visited more than once.
pub struct Batches {
    source: Arc<dyn ImageSource>,
    order: Order,
    seed: u64,
    batch: usize,
    augment: Augment,
}

impl Batches {
    /// Batches of `batch` images for the run with `seed`.
    ///
    /// # Errors
    /// Fails if the source is empty, `batch` is 0, or `shift` is not smaller than the images.
    pub fn new(
        source: Arc<dyn ImageSource>,
        seed: u64,
        batch: usize,
        augment: Augment,
    ) -> Result<Self> {
        let order = Order::new(seed, source.len())?;
        if batch == 0 {
            return Err(DataError::Option {
                option: "batch size",
                expected: "at least 1".to_owned(),
                found: "0".to_owned(),
            });
        }
        let spec = source.spec();
        if augment.shift >= spec.width.min(spec.height) {
            return Err(DataError::Option {
                option: "shift",
                expected: format!("less than the image size of {spec}"),
                found: augment.shift.to_string(),
            });
        }
        Ok(Self {
            source,
            order,
            seed,
            batch,
            augment,
        })
    }

    /// Number of images in a batch.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.batch
    }

    /// The source.
    #[must_use]
    pub fn source(&self) -> &dyn ImageSource {
        &*self.source
    }

    /// How many times every image has been used before `step`.
    #[must_use]
    pub fn epoch(&self, step: u64) -> u64 {
        self.order.epoch(self.first_sample(step))
    }

    /// The batch of `step`.
    ///
    /// # Errors
    /// Fails if an image cannot be read any more; the error names it.
    pub fn batch(&self, step: u64) -> Result<Batch> {
        let first = self.first_sample(step);
        let spec = *self.source.spec();
        let indices: Vec<usize> = (0..self.batch as u64)
            .map(|i| self.order.index(first.wrapping_add(i)))
            .collect();
        let mut data = vec![0.0; self.batch * spec.len()];
        data.par_chunks_mut(spec.len())
            .zip(&indices)
            .enumerate()
            .with_min_len(GRAIN)
            .try_for_each(|(i, (out, &index))| {
                let image = self.sample(index, first.wrapping_add(i as u64))?;
                out.copy_from_slice(&spec.to_unit_range(&image));
                Ok::<(), DataError>(())
            })?;
        let [c, h, w] = spec.shape();
        Ok(Batch {
            step,
            labels: indices.iter().map(|&i| self.source.label(i)).collect(),
            indices,
            shape: [self.batch, c, h, w],
            data,
            mask: None,
            augment: None,
        })
    }

    fn first_sample(&self, step: u64) -> u64 {
        step.wrapping_mul(self.batch as u64)
    }

    /// Image `index`, augmented as sample `g` of the run.
    fn sample(&self, index: usize, g: u64) -> Result<Image> {
        let mut image = self.source.item(index, Place::CENTRE)?.image;
        let spec = self.source.spec();
        if [image.channels, image.height, image.width] != spec.shape() {
            return Err(DataError::Size {
                id: self.source.id(index),
                expected: spec.to_string(),
                found: format!(
                    "{}x{}, {} channels",
                    image.height, image.width, image.channels
                ),
            });
        }
        if self.augment.flip && Draw::new(self.seed, Purpose::Flip, 0, g).below(0, 2) == 1 {
            image = image.flip_horizontal();
        }
        if self.augment.shift > 0 {
            let draw = Draw::new(self.seed, Purpose::Shift, 0, g);
            let reach = self.augment.shift as u64;
            let by = |i| draw.below(i, 2 * reach + 1) as isize - reach as isize;
            image = image.shift(by(0), by(1));
        }
        Ok(image)
    }
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("images", &self.source.len())
            .field("spec", self.source.spec())
            .field("seed", &self.seed)
            .field("batch", &self.batch)
            .field("augment", &self.augment)
            .finish()
    }
}
