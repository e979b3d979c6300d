//! The frozen source model, and the inputs that it gets in addition to noised images.

use candle_core::{Result, Tensor, bail};
use sdft_diffusion::{Condition, Denoiser, Network, Prediction};

/// The frozen source model of a run.
pub enum Source {
    /// A model that is called with noised images alone.
    Plain(Box<dyn Denoiser>),
    /// A network that takes labels, or has learned only some channels of the images.
    Conditional {
        /// The network.
        network: Box<dyn Network>,
        /// Its class for each label of the student, that of the null class included; `None` if it is unconditional.
        labels: Option<Vec<u32>>,
        /// Whether it takes augmentation labels.
        takes_augment: bool,
        /// The first channels of the images, which it has learned, if the images have more: only these are distilled.
        channels: Option<usize>,
    },
}

impl From<Box<dyn Denoiser>> for Source {
    fn from(model: Box<dyn Denoiser>) -> Self {
        Self::Plain(model)
    }
}

impl Source {
    /// The channels that it has learned, if the images have more.
    pub fn channels(&self) -> Option<usize> {
        match self {
            Self::Plain(_) => None,
            Self::Conditional { channels, .. } => *channels,
        }
    }

    /// Its prediction for images that have these labels for the student.
    ///
    /// # Errors
    /// Shapes that do not fit the network, or a label that it has no class for.
    pub fn predict(
        &self,
        xt: &Tensor,
        t: &[f32],
        labels: Option<&[u32]>,
        augment: Option<&Tensor>,
    ) -> Result<Prediction> {
        let (network, known, takes_augment) = match self {
            Self::Plain(model) => return model.predict(xt, t),
            Self::Conditional {
                network,
                labels,
                takes_augment,
                ..
            } => (network, labels, *takes_augment),
        };
        let own = match (known, labels) {
            (None, _) => None,
            (Some(known), Some(labels)) => Some(own_labels(known, labels)?),
            (Some(_), None) => bail!("the source model has classes, but the images have no labels"),
        };
        let condition = Condition {
            labels: own.as_deref(),
            augment: augment.filter(|_| takes_augment),
            dropout: None,
        };
        network.predict_with(xt, t, &condition)
    }
}

/// The source's classes for labels of the student.
fn own_labels(known: &[u32], labels: &[u32]) -> Result<Vec<u32>> {
    let own = |&label: &u32| match known.get(label as usize) {
        Some(&own) => Ok(own),
        None => bail!(
            "label {label}: the source model has a class for labels below {}",
            known.len()
        ),
    };
    labels.iter().map(own).collect()
}
