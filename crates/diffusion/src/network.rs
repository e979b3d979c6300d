//! A network that was made from a file: everything that the program does with one.

use crate::{BottleneckNet, Change, Condition, Edited, FeatureNet, Prediction};
use candle_core::{Result, Tensor};

/// A denoiser of any architecture, frozen: it predicts with and without labels, returns its deepest features, and takes changed ones.
///
/// As a [`Denoiser`](crate::Denoiser) it evaluates without labels and dropout.
pub trait Network: BottleneckNet + FeatureNet + Send + Sync {
    /// The prediction for `xt` at the original timesteps `t`, as [`Denoiser::predict`](crate::Denoiser::predict), with class labels,
    /// augmentation labels or dropout.
    ///
    /// # Errors
    /// Shapes that do not fit the network; labels that are missing, unexpected or out of range.
    fn predict_with(&self, xt: &Tensor, t: &[f32], condition: &Condition<'_>)
    -> Result<Prediction>;

    /// Both predictions as [`BottleneckNet::predict_edited`], with class labels, augmentation labels or dropout.
    ///
    /// # Errors
    /// As [`BottleneckNet::predict_edited`] and [`Self::predict_with`].
    fn predict_edited_with(
        &self,
        xt: &Tensor,
        t: &[f32],
        condition: &Condition<'_>,
        change: &mut Change<'_>,
    ) -> Result<Edited>;

    /// Number of classes of a class-conditional network, 0 for none. A null class that is a row of the network's table counts.
    fn n_classes(&self) -> usize;
}
