//! Class and augmentation labels of a step, for the student and for the source model.

use crate::error::Result;
use crate::images::StepImages;
use crate::recipe::PartDraw;
use crate::source::Source;
use candle_core::Tensor;
use sdft_diffusion::{Condition, Denoiser, Prediction, Trainable};
use sdft_noise::DropoutKey;

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

/// What networks get in addition to noised images: for each image, and then for each auxiliary input.
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
                Some(own.chain(of_aux).collect())
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
            Some(augment) if augment_dim > 0 => Some(augment.pad_with_zeros(0, 0, m)?),
            _ => None,
        };
        Ok(Self { labels, augment })
    }

    /// Balanced classes for `n` images, and the labels of `n_aux` auxiliary inputs.
    pub(crate) fn balanced(labels: Option<Labels>, n: usize, n_aux: usize) -> Self {
        let all = labels.map(|labels| {
            let of_images = (0..n).map(|i| labels.balanced(i));
            let of_aux = (0..n_aux).map(|i| labels.auxiliary(i));
            of_images.chain(of_aux).collect()
        });
        Self {
            labels: all,
            augment: None,
        }
    }

    /// The rows of the source model: the images that it sees of `n`, and all auxiliary inputs.
    pub(crate) fn of_source(&self, seen: &[usize], n: usize) -> Result<Self> {
        let rows = |len: usize| -> Vec<usize> { seen.iter().copied().chain(n..len).collect() };
        let labels = self.labels.as_ref();
        let augment = match &self.augment {
            None => None,
            Some(augment) => {
                let rows: Vec<u32> = rows(augment.dim(0)?)
                    .iter()
                    .map(|&row| row as u32)
                    .collect();
                match rows.len() {
                    0 => None,
                    n => {
                        let rows = Tensor::from_vec(rows, n, augment.device())?;
                        Some(augment.index_select(&rows, 0)?)
                    }
                }
            }
        };
        Ok(Self {
            labels: labels.map(|all| rows(all.len()).into_iter().map(|row| all[row]).collect()),
            augment,
        })
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
