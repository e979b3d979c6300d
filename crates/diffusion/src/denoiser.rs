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

/// What a network says with its deepest features as they are, and with changed ones.
#[derive(Clone, Debug)]
pub struct Edited {
    /// The usual prediction.
    pub plain: Prediction,
    /// The prediction from the changed features; none if nothing was changed.
    pub changed: Option<Prediction>,
    /// The deepest features `h`, `[B, F, H', W']`, before the change.
    pub h: Tensor,
}

impl Edited {
    /// The changed prediction, or the usual one where nothing was changed.
    pub fn changed(&self) -> &Prediction {
        self.changed.as_ref().unwrap_or(&self.plain)
    }
}

/// Puts other features in the place of the deepest ones; sees them `[B, F, H', W']` and the embedding of time `[B, E]`.
pub type Change<'a> = dyn FnMut(&Tensor, &Tensor) -> Result<Option<Tensor>> + 'a;

/// A network whose deepest features can be changed on the way, everything else (skip connections, embedding) being the same.
pub trait BottleneckNet: Denoiser {
    /// Both predictions for `xt` at the original timesteps `t`; the part before the change is computed once.
    ///
    /// # Shapes
    /// - as [`Denoiser::predict`]
    ///
    /// # Errors
    /// As [`Denoiser::predict`]; features of another shape than the network's.
    fn predict_edited(&self, xt: &Tensor, t: &[f32], change: &mut Change<'_>) -> Result<Edited>;

    /// Channels of the deepest features, and length of the embedding of time.
    fn bottleneck(&self) -> (usize, usize);
}

/// A differentiable view of a noised image: the middle of a classifier for energies, or of a U-Net for editing.
pub trait FeatureNet {
    /// Features `[B, F, ..]` of `xt` `[B, C, H, W]` at the original timesteps `t`; gradients flow back to `xt`.
    ///
    /// # Errors
    /// When the shapes do not fit the network.
    fn features(&self, xt: &Tensor, t: &[f32]) -> Result<Tensor>;
}
