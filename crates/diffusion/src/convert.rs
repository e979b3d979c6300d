//! Noise, clean image and velocity from one another.

use crate::{Diffusion, Prediction, PredictionType};
use candle_core::{Result, Tensor};

impl Diffusion {
    /// The clean image that `xt` and `eps` imply, `(x_t - sqrt(1 - ab) eps) / sqrt(ab)`.
    ///
    /// # Errors
    /// As [`Self::q_sample`].
    pub fn x0_from_eps(&self, xt: &Tensor, t: &[usize], eps: &Tensor) -> Result<Tensor> {
        let s = &self.schedule;
        let a = xt.broadcast_mul(&self.gather(s.sqrt_recip_alpha_bar(), t, xt)?)?;
        a - eps.broadcast_mul(&self.gather(s.sqrt_recipm1_alpha_bar(), t, xt)?)?
    }

    /// The noise that `xt` and `x0` imply, `(x_t - sqrt(ab) x0) / sqrt(1 - ab)`.
    ///
    /// # Errors
    /// As [`Self::q_sample`].
    pub fn eps_from_x0(&self, xt: &Tensor, t: &[usize], x0: &Tensor) -> Result<Tensor> {
        let s = &self.schedule;
        let difference = (xt.broadcast_mul(&self.gather(s.sqrt_recip_alpha_bar(), t, xt)?)? - x0)?;
        difference.broadcast_div(&self.gather(s.sqrt_recipm1_alpha_bar(), t, xt)?)
    }

    /// The velocity of `x0` and `eps`, `sqrt(ab) eps - sqrt(1 - ab) x0`.
    ///
    /// Source: diffusers `get_velocity`.
    ///
    /// # Errors
    /// As [`Self::q_sample`].
    pub fn velocity(&self, x0: &Tensor, t: &[usize], eps: &Tensor) -> Result<Tensor> {
        let s = &self.schedule;
        let a = eps.broadcast_mul(&self.gather(s.sqrt_alpha_bar(), t, eps)?)?;
        a - x0.broadcast_mul(&self.gather(s.sqrt_one_minus_alpha_bar(), t, x0)?)?
    }

    /// The noise in `xt` according to a prediction.
    ///
    /// # Errors
    /// As [`Self::q_sample`].
    pub fn eps(&self, prediction: &Prediction, xt: &Tensor, t: &[usize]) -> Result<Tensor> {
        let (s, output) = (&self.schedule, &prediction.output);
        match prediction.prediction_type {
            PredictionType::Epsilon => Ok(output.clone()),
            // Unlike `eps_from_x0` this is finite where no signal is left.
            PredictionType::Sample => {
                let signal =
                    output.broadcast_mul(&self.gather(s.sqrt_alpha_bar(), t, output)?)?;
                (xt - signal)?.broadcast_div(&self.gather(s.sqrt_one_minus_alpha_bar(), t, xt)?)
            }
            PredictionType::V => self.mix(
                t,
                (s.sqrt_alpha_bar(), output),
                (s.sqrt_one_minus_alpha_bar(), xt),
            ),
        }
    }

    /// The clean image behind `xt` according to a prediction.
    ///
    /// # Errors
    /// As [`Self::q_sample`].
    pub fn x0(&self, prediction: &Prediction, xt: &Tensor, t: &[usize]) -> Result<Tensor> {
        let (s, output) = (&self.schedule, &prediction.output);
        match prediction.prediction_type {
            PredictionType::Epsilon => self.x0_from_eps(xt, t, output),
            PredictionType::Sample => Ok(output.clone()),
            PredictionType::V => {
                let a = xt.broadcast_mul(&self.gather(s.sqrt_alpha_bar(), t, xt)?)?;
                a - output.broadcast_mul(&self.gather(s.sqrt_one_minus_alpha_bar(), t, xt)?)?
            }
        }
    }

    /// The velocity at `xt` according to a prediction.
    ///
    /// # Errors
    /// As [`Self::q_sample`].
    pub fn v(&self, prediction: &Prediction, xt: &Tensor, t: &[usize]) -> Result<Tensor> {
        match prediction.prediction_type {
            PredictionType::V => Ok(prediction.output.clone()),
            PredictionType::Epsilon | PredictionType::Sample => {
                let x0 = self.x0(prediction, xt, t)?;
                self.velocity(&x0, t, &self.eps(prediction, xt, t)?)
            }
        }
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
        match space {
            PredictionType::Epsilon => self.eps(prediction, xt, t),
            PredictionType::Sample => self.x0(prediction, xt, t),
            PredictionType::V => self.v(prediction, xt, t),
        }
    }

    /// The value that a perfect prediction of `kind` has, from the image and the noise themselves.
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
        match kind {
            PredictionType::Epsilon => Ok(eps.clone()),
            PredictionType::Sample => Ok(x0.clone()),
            PredictionType::V => self.velocity(x0, t, eps),
        }
    }
}
