//! Classifier-free guidance.

use crate::{Condition, Denoiser, Network, Prediction};
use candle_core::{Result, Tensor, bail};

/// A class-conditional network with classifier-free guidance, as a [`Denoiser`]. Samplers and translators take it like any other.
///
/// ```text
/// output = null + guidance (conditional - null)
/// ```
/// The combination is linear, so it is the same for predictions of noise, image and velocity, and for both views of an EDM network. A
/// learned variance is the conditional one. With a guidance of 1 the network is evaluated once, on the conditional batch only; otherwise
/// once on a batch of twice the size.
///
/// Source: Ho and Salimans 2022, with diffusers' scale: 1 is no guidance.
#[derive(Clone, Copy)]
pub struct Guided<'a> {
    /// The network.
    pub net: &'a dyn Network,
    /// The class of each image.
    pub labels: &'a [u32],
    /// The label of the null class; a guidance other than 1 requires one.
    pub null: Option<u32>,
    /// The scale: 0 is the null class alone, 1 the conditional prediction, more than 1 moves away from the null class.
    pub guidance: f64,
}

impl Denoiser for Guided<'_> {
    /// # Errors
    /// As [`Network::predict_with`]; a guidance that is not finite, or without a null class.
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        let predict = |xt: &Tensor, t: &[f32], labels: &[u32]| {
            let condition = Condition {
                labels: Some(labels),
                ..Condition::default()
            };
            self.net.predict_with(xt, t, &condition)
        };
        if self.guidance == 1.0 {
            return predict(xt, t, self.labels);
        }
        if !self.guidance.is_finite() {
            bail!(
                "guidance: expected a finite number, found {}",
                self.guidance
            );
        }
        let Some(null) = self.null else {
            bail!(
                "guidance {}: expected a network with a null class, found none; use a guidance of 1",
                self.guidance
            );
        };
        let n = xt.dim(0)?;
        if self.labels.len() != n {
            bail!("expected {n} class labels, found {}", self.labels.len());
        }
        let labels = [self.labels, &vec![null; n]].concat();
        let both = predict(&Tensor::cat(&[xt, xt], 0)?, &[t, t].concat(), &labels)?;
        let (conditional, null) = (both.narrow(0, n)?, both.narrow(n, n)?.output);
        let output = (&null + ((&conditional.output - &null)? * self.guidance)?)?;
        Ok(Prediction {
            output,
            ..conditional
        })
    }
}
