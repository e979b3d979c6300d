//! The traits through which everything above sees a network.

use crate::Prediction;
use candle_core::{Result, Tensor};

/// A network that predicts noise, clean image or velocity from a noised image.
///
/// Samplers, losses and translators use networks through this trait only. A [`Prediction`] names its quantity.
pub trait Denoiser {
    /// The prediction for `xt` at the times `t`.
    ///
    /// # Shapes
    /// - `xt`: `[B, C, H, W]` · `t`: `B` entries
    ///
    /// # Units
    /// - `xt`: the noised image `sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps`, data in [-1, 1]
    /// - `t`: in the [`TimeUnit`](crate::TimeUnit) of the process that the network was trained on: steps, 0 = least noise, or EDM's sigma
    ///
    /// # Errors
    /// When the shapes do not fit the network.
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction>;
}

/// A function of `xt` and `t` is a denoiser. It returns a [`Prediction`], or a tensor: the predicted noise.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use sdft_diffusion::{Denoiser, PredictionType};
///
/// let half = |xt: &Tensor, _: &[f32]| xt * 0.5;
/// let xt = Tensor::ones((1, 3, 4, 4), candle_core::DType::F32, &Device::Cpu)?;
/// assert_eq!(half.predict(&xt, &[10.0])?.prediction_type, PredictionType::Epsilon);
/// # Ok::<(), candle_core::Error>(())
/// ```
impl<F, P> Denoiser for F
where
    F: Fn(&Tensor, &[f32]) -> Result<P>,
    P: Into<Prediction>,
{
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        self(xt, t).map(Into::into)
    }
}

/// The predictions of a network from its deepest features, unchanged and changed.
#[derive(Clone, Debug)]
pub struct Edited {
    /// The usual prediction.
    pub plain: Prediction,
    /// The prediction from the changed features; `None` if nothing was changed.
    pub changed: Option<Prediction>,
    /// The deepest features `h`, `[B, F, H', W']`, before the change.
    pub h: Tensor,
}

impl Edited {
    /// Predicts from `h` and, if `change` returns other features, from those too.
    ///
    /// # Errors
    /// Those of both functions, and changed features of another shape.
    pub fn new(
        h: Tensor,
        emb: &Tensor,
        change: &mut Change<'_>,
        predict: impl Fn(&Tensor) -> Result<Prediction>,
    ) -> Result<Self> {
        let changed = match change(&h, emb)? {
            None => None,
            Some(other) if other.dims() == h.dims() => Some(predict(&other)?),
            Some(other) => candle_core::bail!(
                "features of the middle: expected {:?}, found {:?}",
                h.dims(),
                other.dims()
            ),
        };
        Ok(Self {
            plain: predict(&h)?,
            changed,
            h,
        })
    }

    /// The changed prediction, or the usual one if nothing was changed.
    pub fn changed(&self) -> &Prediction {
        self.changed.as_ref().unwrap_or(&self.plain)
    }
}

/// Returns the features that replace the deepest ones, or `None` to keep them; called with `h` `[B, F, H', W']` and the embedding of
/// time `[B, E]`.
pub type Change<'a> = dyn FnMut(&Tensor, &Tensor) -> Result<Option<Tensor>> + 'a;

/// The sizes that a block on the deepest features must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bottleneck {
    /// Channels F of the deepest features.
    pub channels: usize,
    /// Length E of the embedding of time.
    pub embedding: usize,
}

/// A network whose deepest features can be changed in a forward pass, while skip connections and embedding stay the same.
pub trait BottleneckNet: Denoiser {
    /// Both predictions for `xt` at the times `t`; the part before the change is computed once.
    ///
    /// # Shapes
    /// - as [`Denoiser::predict`]
    ///
    /// # Errors
    /// As [`Denoiser::predict`]; features of another shape than the network's.
    fn predict_edited(&self, xt: &Tensor, t: &[f32], change: &mut Change<'_>) -> Result<Edited>;

    /// The sizes of the deepest features and of the embedding.
    fn bottleneck(&self) -> Bottleneck;
}

/// A differentiable view of a noised image: the middle of a classifier for energies, or of a U-Net for editing.
pub trait FeatureNet {
    /// Features `[B, F, ..]` of `xt` `[B, C, H, W]` at the times `t`; gradients flow back to `xt`.
    ///
    /// # Errors
    /// When the shapes do not fit the network.
    fn features(&self, xt: &Tensor, t: &[f32]) -> Result<Tensor>;
}
