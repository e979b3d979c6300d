//! The batch of each step.

use std::{fmt, sync::Arc};

use rayon::prelude::*;
use sdft_imaging::{Depth, Image, ImageSpec, Samples};
use sdft_noise::{Draw, Purpose};

use crate::{
    DataError, ImageSource, Item, Order, Place, Result,
    augment::{AugmentPlan, apply},
};

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

/// The batches of a run: images of a source in the run's [`Order`], augmented together with their masks.
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
    /// Fails if the source is empty, `batch` is 0, `shift` is not smaller than the images, `scale` is negative, or `edm` is no probability.
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
        if !(augment.scale.is_finite() && augment.scale >= 0.0) {
            return Err(DataError::Option {
                option: "scale",
                expected: "0 or a positive number".to_owned(),
                found: augment.scale.to_string(),
            });
        }
        if !(0.0..=1.0).contains(&augment.edm) {
            return Err(DataError::Option {
                option: "augment",
                expected: "a probability from 0 to 1".to_owned(),
                found: augment.edm.to_string(),
            });
        }
        if source.latent_shape().is_some() {
            check_latents(&augment)?;
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
        let [c, h, w] = self.source.shape();
        let len = c * h * w;
        let indices: Vec<usize> = (0..self.batch as u64)
            .map(|i| self.order.index(first.wrapping_add(i)))
            .collect();
        let mut data = vec![0.0; self.batch * len];
        let besides = data
            .par_chunks_mut(len)
            .zip(&indices)
            .enumerate()
            .with_min_len(GRAIN)
            .map(|(i, (out, &index))| self.sample(index, first.wrapping_add(i as u64), out))
            .collect::<Result<Vec<Besides>>>()?;
        let has_masks = besides.iter().any(|sample| sample.mask.is_some());
        let mask = has_masks.then(|| {
            let masks = besides.iter().flat_map(|sample| match &sample.mask {
                Some(mask) => mask.clone(),
                None => vec![1.0; h * w],
            });
            masks.collect()
        });
        let augment: Option<Vec<[f32; 9]>> = besides.iter().map(|sample| sample.augment).collect();
        Ok(Batch {
            step,
            labels: indices.iter().map(|&i| self.source.label(i)).collect(),
            indices,
            shape: [self.batch, c, h, w],
            data,
            mask,
            augment: augment.map(|labels| labels.concat()),
        })
    }

    fn first_sample(&self, step: u64) -> u64 {
        step.wrapping_mul(self.batch as u64)
    }

    /// Writes image `index`, augmented as sample `g` of the run, to `out`.
    fn sample(&self, index: usize, g: u64, out: &mut [f32]) -> Result<Besides> {
        let address = |purpose| Draw::new(self.seed, purpose, 0, g);
        if self.source.latent_shape().is_some() {
            let (mirrored, draw) = (self.is_flipped(g), address(Purpose::Latent));
            let mask = self.source.draw_latents(index, mirrored, &draw, out)?;
            return Ok(Besides {
                mask,
                augment: None,
            });
        }
        let place = address(Purpose::Crop);
        let place = Place {
            x: place.uniform(0),
            y: place.uniform(1),
        };
        let Item {
            mut image,
            mut mask,
        } = self.source.item(index, place)?;
        self.check(index, &image, mask.as_ref())?;
        let augment = self.augment;
        if self.is_flipped(g) {
            image = image.flip_horizontal();
            mask = mask.map(|mask| mask.flip_horizontal());
        }
        if augment.shift > 0 {
            let draw = address(Purpose::Shift);
            let reach = augment.shift as u64;
            let by = |i| draw.below(i, 2 * reach + 1) as isize - reach as isize;
            image = image.shift(by(0), by(1));
            mask = mask.map(|mask| mask.shift(by(0), by(1)));
        }
        let spec = self.source.spec();
        let mut pixels = spec.to_unit_range(&image);
        let mut mask = mask.map(shares);
        let plan = AugmentPlan {
            flip_vertical: augment.flip_vertical,
            scale: augment.scale,
            edm: augment.edm,
        };
        let augment = apply(
            &plan,
            self.seed,
            g,
            &mut pixels,
            spec.shape(),
            mask.as_mut(),
        );
        out.copy_from_slice(&pixels);
        Ok(Besides { mask, augment })
    }

    /// Whether sample `g` of the run is mirrored left to right.
    fn is_flipped(&self, g: u64) -> bool {
        self.augment.flip && Draw::new(self.seed, Purpose::Flip, 0, g).below(0, 2) == 1
    }

    /// Checks that an image and its mask have the source's form.
    fn check(&self, index: usize, image: &Image, mask: Option<&Image>) -> Result<()> {
        let spec = self.source.spec();
        let mask_spec = ImageSpec::new(1, Depth::U8, spec.width, spec.height);
        let pairs = [(Some(image), *spec, ""), (mask, mask_spec, "the mask of ")];
        for (found, expected, what) in pairs {
            let Some(found) = found else { continue };
            let form = ImageSpec::new(found.channels, found.depth(), found.width, found.height);
            let same = form.shape() == expected.shape() && form.depth == expected.depth;
            if !same || found.samples.len() != expected.len() {
                return Err(DataError::Size {
                    id: format!("{what}{}", self.source.id(index)),
                    expected: expected.to_string(),
                    found: form.to_string(),
                });
            }
        }
        Ok(())
    }
}

/// A mask as shares of 1.
pub(crate) fn shares(mask: Image) -> Vec<f32> {
    match mask.samples {
        Samples::U8(values) => values.iter().map(|&v| f32::from(v) / 255.0).collect(),
        _ => Vec::new(),
    }
}

/// Fails if images are augmented in a way that was not there when their latents were computed.
fn check_latents(augment: &Augment) -> Result<()> {
    let refuse = |option, expected: &str, found: String| {
        Err(DataError::Option {
            option,
            expected: format!("{expected}, because latents are computed once for each image"),
            found,
        })
    };
    if augment.shift > 0 {
        return refuse("shift", "0", augment.shift.to_string());
    }
    if augment.flip_vertical {
        return refuse("flip_vertical", "false", "true".to_owned());
    }
    if augment.scale != 0.0 {
        return refuse("scale", "0", augment.scale.to_string());
    }
    if augment.edm != 0.0 {
        return refuse("augment", "0", augment.edm.to_string());
    }
    Ok(())
}

/// What a sample has besides its pixels.
struct Besides {
    /// `[H, W]`, 0 to 1.
    mask: Option<Vec<f32>>,
    /// The labels of EDM's augmentation.
    augment: Option<[f32; 9]>,
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
