use candle_core::{Result, Tensor, bail};

/// What a network says about a noised image.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// The noise, `[B, C, H, W]`.
    pub eps: Tensor,
    /// Logits of the variance between its two bounds, `[B, C, H, W]`, from networks that learn it.
    pub variance: Option<Tensor>,
}

impl Prediction {
    /// Splits a network's output: `channels` of noise, and the same number of variance logits if there are twice as many.
    ///
    /// # Errors
    /// When the output has neither `channels` nor `2 channels` channels.
    pub fn split(output: &Tensor, channels: usize) -> Result<Self> {
        let found = output.dim(1)?;
        if found == channels {
            return Ok(Self {
                eps: output.clone(),
                variance: None,
            });
        }
        if found != 2 * channels {
            bail!(
                "a denoiser of {channels} channels puts out {channels} or {}, found {found}",
                2 * channels
            );
        }
        Ok(Self {
            eps: output.narrow(1, 0, channels)?,
            variance: Some(output.narrow(1, channels, channels)?),
        })
    }

    /// The part of the batch from `start`.
    ///
    /// # Errors
    /// When the range lies outside the batch.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        Ok(Self {
            eps: self.eps.narrow(0, start, len)?,
            variance: self
                .variance
                .as_ref()
                .map(|v| v.narrow(0, start, len))
                .transpose()?,
        })
    }

    /// The same numbers, cut off from the graph of gradients.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self {
            eps: self.eps.detach(),
            variance: self.variance.as_ref().map(Tensor::detach),
        }
    }
}

/// Anything that predicts the noise in a noised image: all that samplers, losses and translators know of a network.
pub trait Denoiser {
    /// The prediction for `xt` at the original timesteps `t`.
    ///
    /// # Shapes
    /// - `xt`: `[B, C, H, W]` · `t`: `B` entries
    ///
    /// # Units
    /// - `xt` in noised image space (data in [-1, 1]); `t` counts the steps of the process that the network was trained on,
    ///   0 = least noise, as whole numbers unless the process rescales them
    ///
    /// # Errors
    /// When the shapes do not fit the network.
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction>;

    /// The noise alone.
    ///
    /// # Errors
    /// As [`Self::predict`].
    fn predict_eps(&self, xt: &Tensor, t: &[f32]) -> Result<Tensor> {
        Ok(self.predict(xt, t)?.eps)
    }
}

/// A differentiable view of a noised image: the middle of a classifier for energies, or of a U-Net for editing.
pub trait FeatureNet {
    /// Features `[B, F, ..]` of `xt` `[B, C, H, W]` at the original timesteps `t`; gradients flow back to `xt`.
    ///
    /// # Errors
    /// When the shapes do not fit the network.
    fn features(&self, xt: &Tensor, t: &[f32]) -> Result<Tensor>;
}
