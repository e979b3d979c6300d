//! Noise, clean image and velocity from one another, at the steps of a process.

use crate::{Diffusion, Prediction, PredictionType, level};
use candle_core::{Result, Tensor};

/// The functions of [`Level`](crate::Level)s, called with steps of this process.
impl Diffusion {
    /// A noised image.
    ///
    /// Source: guided-diffusion `q_sample`.
    /// ```text
    /// x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps
    /// ```
    /// # Shapes
    /// - `x0`, `eps`: `[B, C, H, W]` · `t`: `B` steps of this process
    ///
    /// # Errors
    /// Shapes that differ, an entry of `t` beyond the last step.
    pub fn q_sample(&self, x0: &Tensor, t: &[usize], eps: &Tensor) -> Result<Tensor> {
        level::q_sample(x0, &self.levels(t)?, eps)
    }

    /// The clean image that `xt` and `eps` imply, `(x_t - sqrt(1 - ab) eps) / sqrt(ab)`.
    ///
    /// # Errors
    /// As [`Self::q_sample`].
    pub fn x0_from_eps(&self, xt: &Tensor, t: &[usize], eps: &Tensor) -> Result<Tensor> {
        level::x0_from_eps(xt, &self.levels(t)?, eps)
    }

    /// The noise that `xt` and `x0` imply, `(x_t - sqrt(ab) x0) / sqrt(1 - ab)`.
    ///
    /// # Errors
    /// As [`Self::q_sample`].
    pub fn eps_from_x0(&self, xt: &Tensor, t: &[usize], x0: &Tensor) -> Result<Tensor> {
        level::eps_from_x0(xt, &self.levels(t)?, x0)
    }

    /// The velocity of `x0` and `eps`, `sqrt(ab) eps - sqrt(1 - ab) x0`.
    ///
    /// # Errors
    /// As [`Self::q_sample`].
    pub fn velocity(&self, x0: &Tensor, t: &[usize], eps: &Tensor) -> Result<Tensor> {
        level::velocity(x0, &self.levels(t)?, eps)
    }

    /// The noise in `xt` according to a prediction.
    ///
    /// # Errors
    /// As [`Self::q_sample`].
    pub fn eps(&self, prediction: &Prediction, xt: &Tensor, t: &[usize]) -> Result<Tensor> {
        prediction.eps(xt, &self.levels(t)?)
    }

    /// The clean image behind `xt` according to a prediction.
    ///
    /// # Errors
    /// As [`Self::q_sample`].
    pub fn x0(&self, prediction: &Prediction, xt: &Tensor, t: &[usize]) -> Result<Tensor> {
        prediction.x0(xt, &self.levels(t)?)
    }

    /// The velocity at `xt` according to a prediction.
    ///
    /// # Errors
    /// As [`Self::q_sample`].
    pub fn v(&self, prediction: &Prediction, xt: &Tensor, t: &[usize]) -> Result<Tensor> {
        prediction.v(xt, &self.levels(t)?)
    }

    /// A prediction as the quantity `space`.
    ///
    /// # Errors
    /// As [`Self::q_sample`].
    pub fn convert(
        &self,
        prediction: &Prediction,
        space: PredictionType,
        xt: &Tensor,
        t: &[usize],
    ) -> Result<Tensor> {
        prediction.convert(space, xt, &self.levels(t)?)
    }

    /// The value that a perfect prediction of `kind` has, from the image and the noise.
    ///
    /// # Errors
    /// As [`Self::q_sample`].
    pub fn target(
        &self,
        kind: PredictionType,
        x0: &Tensor,
        t: &[usize],
        eps: &Tensor,
    ) -> Result<Tensor> {
        kind.target(x0, &self.levels(t)?, eps)
    }
}
