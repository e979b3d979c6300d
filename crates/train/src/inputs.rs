//! Class and augmentation labels of a step, for the student and for the source model.

use crate::error::Result;
use crate::images::StepImages;
use crate::recipe::PartDraw;
use crate::source::Source;
use candle_core::Tensor;
use sdft_diffusion::{Condition, Denoiser, Prediction, Trainable};
use sdft_noise::DropoutKey;
use std::ops::Range;

/// The class labels of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Labels {
    classes: u32,
    null: Option<u32>,
}

impl Labels {
    pub(crate) fn new(classes: usize, dropout: f64) -> Result<Option<Self>> {
        let classes = u32::try_from(classes).map_err(candle_core::Error::wrap)?;
        let null = (dropout > 0.0).then_some(classes);
        Ok((classes > 0).then_some(Self { classes, null }))
    }

    /// The label of image `i` where all classes are equally frequent.
    pub(crate) fn balanced(self, i: usize) -> u32 {
        // The remainder is smaller than a number of 32 bits.
        (i as u64 % u64::from(self.classes)) as u32
    }

    /// The label of auxiliary input `i` of a step: the null class, or balanced classes without one.
    fn auxiliary(self, i: usize) -> u32 {
        self.null.unwrap_or_else(|| self.balanced(i))
    }
}

/// What networks get in addition to noised images: for each image, then for each auxiliary input, then for each kept sample.
pub(crate) struct Inputs {
    labels: Option<Vec<u32>>,
    augment: Option<Tensor>,
}

impl Inputs {
    /// The inputs for a part of a batch. A network with `augment_dim` 0 gets no augmentation labels.
    ///
    /// # Errors
    /// Images without labels in a run with classes, or the other way round.
    pub(crate) fn of_part(
        labels: Option<Labels>,
        augment_dim: usize,
        images: &StepImages,
        part: &PartDraw,
    ) -> Result<Self> {
        let (first, m) = part
            .auxiliary
            .as_ref()
            .map_or((0, 0), |aux| (aux.first, aux.levels.len()));
        let kept = part.kept.as_ref().map_or(0..0, |kept| kept.range.clone());
        let labels = match (&images.labels, labels) {
            (None, None) => None,
            (Some(given), Some(labels)) => {
                let drops = part.drops_label.iter();
                let own = given
                    .iter()
                    .zip(drops)
                    .map(|(&label, &drops)| match labels.null {
                        Some(null) if drops => null,
                        _ => label,
                    });
                let of_aux = (first..first + m).map(|i| labels.auxiliary(i));
                let of_kept = kept.clone().map(|i| labels.auxiliary(i));
                Some(own.chain(of_aux).chain(of_kept).collect())
            }
            (given, labels) => {
                let name = |is: bool| if is { "labels" } else { "no labels" };
                return Err(candle_core::Error::Msg(format!(
                    "expected images with {}, found images with {}",
                    name(labels.is_some()),
                    name(given.is_some())
                ))
                .into());
            }
        };
        let augment = match &images.augment {
            Some(augment) if augment_dim > 0 => {
                Some(augment.pad_with_zeros(0, 0, m + kept.len())?)
            }
            _ => None,
        };
        Ok(Self { labels, augment })
    }

    /// Balanced classes for `n` images, and the labels of `others` auxiliary inputs and kept samples.
    pub(crate) fn balanced(labels: Option<Labels>, n: usize, others: usize) -> Self {
        let all = labels.map(|labels| {
            let of_images = (0..n).map(|i| labels.balanced(i));
            let of_others = (0..others).map(|i| labels.auxiliary(i));
            of_images.chain(of_others).collect()
        });
        Self {
            labels: all,
            augment: None,
        }
    }

    /// The label of one auxiliary input or kept sample, number `i` of its kind.
    pub(crate) fn other(labels: Option<Labels>, i: usize) -> Self {
        Self {
            labels: labels.map(|labels| vec![labels.auxiliary(i)]),
            augment: None,
        }
    }

    /// The rows of the source model: the images that it sees, and the auxiliary inputs, whose rows are `aux`.
    pub(crate) fn of_source(&self, seen: &[usize], aux: Range<usize>) -> Result<Self> {
        let rows: Vec<usize> = seen.iter().copied().chain(aux).collect();
        self.rows(&rows)
    }

    /// These rows.
    pub(crate) fn rows(&self, rows: &[usize]) -> Result<Self> {
        let labels = self.labels.as_ref();
        let augment = match &self.augment {
            Some(augment) if !rows.is_empty() => {
                let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
                let rows = Tensor::new(rows, augment.device())?;
                Some(augment.index_select(&rows, 0)?)
            }
            _ => None,
        };
        Ok(Self {
            labels: labels.map(|all| rows.iter().map(|&row| all[row]).collect()),
            augment,
        })
    }

    /// The same rows with the null class, if there is one.
    pub(crate) fn without_class(mut self, labels: Option<Labels>) -> Self {
        if let (Some(all), Some(null)) = (&mut self.labels, labels.and_then(|labels| labels.null)) {
            all.fill(null);
        }
        self
    }
}

/// A network with the labels and the dropout of a step, as the objective takes it.
pub(crate) struct Student<'a> {
    pub(crate) network: &'a dyn Trainable,
    pub(crate) inputs: &'a Inputs,
    pub(crate) dropout: Option<DropoutKey<'a>>,
}

impl Denoiser for Student<'_> {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> candle_core::Result<Prediction> {
        let condition = Condition {
            labels: self.inputs.labels.as_deref(),
            augment: self.inputs.augment.as_ref(),
            dropout: self.dropout,
        };
        self.network.predict(xt, t, &condition)
    }
}

/// The source model with the labels of a step.
pub(crate) struct Teacher<'a> {
    pub(crate) source: &'a Source,
    pub(crate) inputs: Inputs,
}

impl Denoiser for Teacher<'_> {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> candle_core::Result<Prediction> {
        let Inputs { labels, augment } = &self.inputs;
        self.source
            .predict(xt, t, labels.as_deref(), augment.as_ref())
    }
}
