use crate::error::Result;
use crate::order::Order;
use crate::source::ImageSource;
use rayon::prelude::*;
use sdft_imaging::to_unit_range;
use sdft_noise::{Draw, Purpose};
use std::sync::Arc;

/// How images are varied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augment {
    /// Flip horizontally half of the time.
    pub flip: bool,
    /// Shift by up to this many pixels in both directions, repeating the border.
    pub shift: usize,
}

/// Images ready for the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// `[B, 3, H, W]` in [-1, 1], row-major.
    pub data: Vec<f32>,
    /// Its shape.
    pub shape: [usize; 4],
    /// Which images of the source these are.
    pub indices: Vec<usize>,
}

/// The batches of a run: batch `k` is a pure function of the seed and `k`, and sample `i` of it of the seed and `k B + i`.
pub struct Batches {
    source: Arc<dyn ImageSource>,
    order: Order,
    seed: u64,
    batch: usize,
    augment: Augment,
}

impl Batches {
    /// Batches of `batch` images.
    ///
    /// # Errors
    /// A source without images.
    pub fn new(source: Arc<dyn ImageSource>, seed: u64, batch: usize, augment: Augment) -> Result<Self> {
        if source.is_empty() {
            return Err(crate::DataError::Folder { path: "data".into(), problem: "there are no images".into() });
        }
        let order = Order::new(seed, source.len());
        Ok(Self { source, order, seed, batch: batch.max(1), augment })
    }

    /// Batch `step`.
    ///
    /// # Errors
    /// An image that can no longer be read.
    pub fn batch(&self, step: u64) -> Result<Batch> {
        let first = step * self.batch as u64;
        let indices: Vec<usize> = (0..self.batch as u64).map(|i| self.order.image(first + i)).collect();
        let images: Vec<(Vec<f32>, usize, usize)> =
            indices.par_iter().enumerate().map(|(i, &index)| self.sample(first + i as u64, index)).collect::<Result<_>>()?;
        let (height, width) = images.first().map_or((0, 0), |(_, h, w)| (*h, *w));
        let data: Vec<f32> = images.into_iter().flat_map(|(data, ..)| data).collect();
        Ok(Batch { data, shape: [self.batch, 3, height, width], indices })
    }

    fn sample(&self, number: u64, index: usize) -> Result<(Vec<f32>, usize, usize)> {
        let mut image = self.source.image(index)?;
        if self.augment.flip && Draw::new(self.seed, Purpose::Flip, 0, number).uniform(0) < 0.5 {
            image = image.flip_horizontal();
        }
        if self.augment.shift > 0 {
            let draw = Draw::new(self.seed, Purpose::Shift, 0, number);
            let reach = self.augment.shift;
            let by = |i| draw.below(i, 2 * reach as u64 + 1).cast_signed() as isize - reach.cast_signed();
            image = image.shift(by(0), by(1));
        }
        let (height, width) = (image.height, image.width);
        Ok((to_unit_range(&image), height, width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digits, DigitsSource, Style};

    fn batches(batch: usize, augment: Augment) -> Batches {
        let source = DigitsSource::new(Digits::embedded().unwrap(), Style::Ember, &[1, 4, 7], 5).unwrap();
        Batches::new(Arc::new(source), 9, batch, augment).unwrap()
    }

    #[test]
    fn samples_do_not_depend_on_how_they_are_batched() {
        let augment = Augment { flip: true, shift: 1 };
        let large = batches(8, augment).batch(3).unwrap();
        let small = batches(4, augment);
        let halves: Vec<f32> = [6, 7].into_iter().flat_map(|k| small.batch(k).unwrap().data).collect();
        assert_eq!(large.data, halves);
        assert_eq!(large.shape, [8, 3, 16, 16]);
    }

    #[test]
    fn batches_larger_than_the_source_go_round() {
        let batch = batches(40, Augment::default()).batch(0).unwrap();
        let mut first: Vec<usize> = batch.indices[..15].to_vec();
        first.sort_unstable();
        assert_eq!(first, (0..15).collect::<Vec<_>>());
    }

    #[test]
    fn augmentation_varies_and_can_be_off() {
        let plain = batches(15, Augment::default()).batch(0).unwrap();
        let shifted = batches(15, Augment { flip: false, shift: 1 }).batch(0).unwrap();
        assert_eq!(plain.indices, shifted.indices);
        let changed = (0..15).filter(|i| plain.data[i * 768..][..768] != shifted.data[i * 768..][..768]).count();
        assert!((8..15).contains(&changed), "{changed}");
    }
}
