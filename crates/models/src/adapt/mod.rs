//! Fits a source model to images of other channels, and to other classes.

use crate::error::ModelError;
use crate::{Architecture, Classes, LoadedModel};
use sdft_nn::Params;

mod channels;
mod classes;
mod label_table;

/// The images and classes that a network is fitted to.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Channels of the images.
    pub channels: usize,
    /// The classes; `None` is an unconditional network.
    pub classes: Option<Classes>,
    /// Height and width of the images.
    pub size: [usize; 2],
}

/// A source model that was fitted to a target.
#[derive(Clone, Debug)]
pub struct Adapted {
    /// The architecture that is trained.
    pub architecture: Architecture,
    /// The weights that training starts from.
    pub params: Params,
    /// The frozen source model.
    pub frozen: Frozen,
    /// The changes, for the user; empty if there are none.
    pub notes: Vec<String>,
}

/// The frozen source model: for images of the target's channels, with its own classes.
#[derive(Clone, Debug)]
pub struct Frozen {
    /// Its architecture.
    pub architecture: Architecture,
    /// Its weights.
    pub params: Params,
    /// The label that it takes for each label of the target; `None` if it is unconditional.
    ///
    /// This is its null class if it has one, and otherwise the class that the target's row was made from.
    pub labels: Option<Vec<u32>>,
    /// The channels that it has learned, if the images have more: what it predicts for others means nothing.
    pub channels: Option<usize>,
}

impl Frozen {
    /// The labels that it takes for images with these labels of the target.
    ///
    /// # Errors
    /// A label that the target does not have.
    pub fn labels_for(&self, labels: &[u32]) -> candle_core::Result<Option<Vec<u32>>> {
        let Some(known) = &self.labels else {
            return Ok(None);
        };
        let label = |&label: &u32| match known.get(label as usize) {
            Some(&own) => Ok(own),
            None => candle_core::bail!("expected labels below {}, found {label}", known.len()),
        };
        labels.iter().map(label).collect::<Result<_, _>>().map(Some)
    }
}

/// Fits a model to a target: channels first, then classes. Without a difference, weights and architecture are the model's own.
///
/// From M to N channels, input kernels are summed for N = 1, and repeated and divided by N for M = 1; output kernels and biases are averaged
/// for N = 1 and repeated for M = 1. Otherwise the first min(M, N) channels stay; the kernels of other inputs are zero, and other outputs are
/// the mean of the model's. Predictions and variances are separate groups. EQUATIONS.md derives which outputs are equal then.
///
/// A class keeps the row of the model's class of the same name. Other rows start at zero if the model is unconditional, so that it computes
/// the same for every label, and at the mean of the model's classes otherwise. A model with classes becomes unconditional with its null
/// class, or with the mean of its classes, as a constant.
///
/// # Errors
/// A size that the network does not run at; classes that its kind of class embedding cannot have.
pub fn adapt(model: &LoadedModel, target: &Target) -> Result<Adapted, ModelError> {
    model.architecture.check_size(target.size)?;
    let (architecture, params, note) =
        channels::fitted(&model.architecture, &model.params, target.channels)?;
    let source = classes::Source {
        architecture,
        params,
        classes: model.classes.as_ref(),
    };
    let mut adapted = classes::fitted(source, target.classes.as_ref())?;
    let own = model.architecture.in_channels();
    adapted.frozen.channels = (own > 1 && own < target.channels).then_some(own);
    adapted.notes.splice(0..0, note);
    Ok(adapted)
}
