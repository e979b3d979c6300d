use crate::{Denoiser, Prediction};
use candle_core::{Result, Tensor, bail};

/// The exact denoiser of data drawn from a normal distribution: no network, known answers.
///
/// ```text
/// x0 ~ N(mean, std^2)   =>   E[eps | x_t] = sqrt(1 - ab) (x_t - sqrt(ab) mean) / (ab std^2 + 1 - ab)
/// ```
/// with `ab` = alpha_bar of the original step. With `std` 0 every deterministic sampler returns `mean` exactly.
#[derive(Clone, Debug)]
pub struct GaussianDenoiser {
    alpha_bar: Vec<f64>,
    mean: f64,
    std: f64,
}

impl GaussianDenoiser {
    /// For data of this mean and standard deviation in every pixel; `alpha_bar` is that of the original process.
    pub fn new(alpha_bar: &[f64], mean: f64, std: f64) -> Self {
        Self {
            alpha_bar: alpha_bar.to_vec(),
            mean,
            std,
        }
    }

    /// Where the exact deterministic flow takes `x` from noise level `alpha_bar` `from` to `to`.
    ///
    /// # Errors
    /// When the tensor cannot be computed with.
    pub fn flow(&self, x: &Tensor, from: f64, to: f64) -> Result<Tensor> {
        let spread = |ab: f64| (ab * self.std * self.std + 1.0 - ab).sqrt();
        let scale = spread(to) / spread(from);
        x.affine(scale, self.mean * (to.sqrt() - scale * from.sqrt()))
    }
}

impl Denoiser for GaussianDenoiser {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        if t.len() != xt.dim(0)? {
            bail!("{} timesteps for a batch of {}", t.len(), xt.dim(0)?);
        }
        let mut parts = Vec::with_capacity(t.len());
        for (i, &t) in t.iter().enumerate() {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "negative becomes 0, which is checked"
            )]
            let step = t as usize;
            let Some(&ab) = self.alpha_bar.get(step).filter(|_| step as f32 == t) else {
                bail!("timestep {t} is not one of 0..{}", self.alpha_bar.len());
            };
            let scale = (1.0 - ab).sqrt() / (ab * self.std * self.std + 1.0 - ab);
            parts.push(
                xt.narrow(0, i, 1)?
                    .affine(scale, -scale * ab.sqrt() * self.mean)?,
            );
        }
        Ok(Prediction {
            eps: Tensor::cat(&parts, 0)?,
            variance: None,
        })
    }
}
