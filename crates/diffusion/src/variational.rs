//! The variational bound, term by term.

use crate::{Clip, Diffusion, Prediction, mean_over_pixels};
use candle_core::{Result, Tensor};

/// The Kullback-Leibler divergence of two normal distributions, element by element, in nats.
///
/// Source: guided-diffusion `normal_kl`.
/// ```text
/// KL = 1/2 ( -1 + lv2 - lv1 + exp(lv1 - lv2) + (m1 - m2)^2 exp(-lv2) )
/// ```
/// # Shapes
/// - all broadcast against each other; `mean1` has the full shape
///
/// # Errors
/// Shapes that do not broadcast.
pub fn normal_kl(
    mean1: &Tensor,
    log_var1: &Tensor,
    mean2: &Tensor,
    log_var2: &Tensor,
) -> Result<Tensor> {
    let ratio = log_var1.broadcast_sub(log_var2)?;
    let spread = (ratio.exp()? - &ratio)?;
    let distance = (mean1.broadcast_sub(mean2)?)
        .sqr()?
        .broadcast_mul(&log_var2.neg()?.exp()?)?;
    (distance.broadcast_add(&spread)? - 1.0)? * 0.5
}

/// Log-likelihood in nats of images in [-1, 1] under normals cut into 256 bins, those of 8-bit images. Images of another depth get the same
/// bins.
///
/// Source: guided-diffusion `discretized_gaussian_log_likelihood`, with its tanh approximation of the normal distribution.
///
/// # Shapes
/// - `x`, `means`: `[B, C, H, W]` · `log_scales`: broadcasts to it · returns: the shape of `x`
///
/// # Errors
/// Shapes that do not broadcast.
pub fn discretized_gaussian_log_likelihood(
    x: &Tensor,
    means: &Tensor,
    log_scales: &Tensor,
) -> Result<Tensor> {
    let centred = (x - means)?;
    let inverse = log_scales.neg()?.exp()?;
    let upper = standard_normal_cdf(&(&centred + 1.0 / 255.0)?.broadcast_mul(&inverse)?)?;
    let lower = standard_normal_cdf(&(&centred - 1.0 / 255.0)?.broadcast_mul(&inverse)?)?;
    let log = |p: &Tensor| p.maximum(1e-12)?.log();
    let (log_upper, log_rest) = (log(&upper)?, log(&lower.affine(-1.0, 1.0)?)?);
    let inside = log(&(&upper - &lower)?)?;
    let not_last = x.gt(0.999)?.where_cond(&log_rest, &inside)?;
    x.lt(-0.999)?.where_cond(&log_upper, &not_last)
}

fn standard_normal_cdf(z: &Tensor) -> Result<Tensor> {
    let cubic = ((z.sqr()? * z)? * 0.044_715)?;
    let inner = ((z + cubic)? * (2.0 / std::f64::consts::PI).sqrt())?;
    (inner.tanh()? + 1.0)? * 0.5
}

impl Diffusion {
    /// The variational bound's term of each image, in bits per dimension.
    ///
    /// The decoder's negative log-likelihood at step 0, the divergence between the true and the predicted reverse step elsewhere.
    /// The caller detaches `prediction.output` where only the variance is to be learned from it.
    ///
    /// Source: guided-diffusion `_vb_terms_bpd`.
    ///
    /// # Shapes
    /// - `x0`, `xt`: `[B, C, H, W]` · `t`: `B` steps · `weights`: see [`mean_over_pixels`] · returns: `[B]`
    ///
    /// # Errors
    /// As [`Self::reverse`].
    pub fn variational_term(
        &self,
        prediction: &Prediction,
        x0: &Tensor,
        xt: &Tensor,
        t: &[usize],
        weights: Option<&Tensor>,
    ) -> Result<Tensor> {
        let truth = self.q_posterior(x0, xt, t)?;
        let model = self.reverse(prediction, xt, t, Clip::No)?;
        let to_bits = 1.0 / std::f64::consts::LN_2;
        let mean = |values: Tensor| mean_over_pixels(&values, weights)? * to_bits;
        let kl = mean(normal_kl(
            &truth.mean,
            &truth.log_variance,
            &model.mean,
            &model.log_variance,
        )?)?;
        if !t.contains(&0) {
            return Ok(kl);
        }
        let nll = mean(
            discretized_gaussian_log_likelihood(x0, &model.mean, &(&model.log_variance * 0.5)?)?
                .neg()?,
        )?;
        let first: Vec<u8> = t.iter().map(|&t| u8::from(t == 0)).collect();
        Tensor::from_vec(first, t.len(), x0.device())?.where_cond(&nll, &kl)
    }
}
