//! EGSDE's energies and their gradients.

use crate::LowPass;
use candle_core::{D, Result, Tensor, Var};
use sdft_diffusion::FeatureNet;
use sdft_nn::backward;

/// The energy of what tells the domains apart, `S`: a translation moves away from the source's features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainSpecific {
    /// The cosine of the features at each place, mean over the places.
    Cosine,
    /// Minus the summed squared difference of the features.
    NegL2,
}

/// The energy of what the domains share, `D`: a translation keeps the source's coarse image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainIndependent {
    /// The summed squared difference of the low-passed images.
    NegL2,
    /// Minus the cosine of the low-passed images at each place, mean over the places.
    Cosine,
}

/// EGSDE's two energies of an image `y`, given the noised source `xt`.
///
/// Source: EGSDE `functions/denoising.py`. The defaults of [`Energies::new`] are those of every published task.
pub struct Energies<'a> {
    /// The classifier of noised images, source against target.
    pub classifier: &'a dyn FeatureNet,
    /// The filter that leaves what the domains share.
    pub low_pass: LowPass,
    /// `lambda_s`; at 0 the classifier is not called.
    pub lambda_s: f64,
    /// `lambda_i`; at 0 the filter is not applied.
    pub lambda_i: f64,
    /// The form of `S`.
    pub specific: DomainSpecific,
    /// The form of `D`.
    pub independent: DomainIndependent,
}

/// The energies' gradients with respect to `y`; `None` where the factor is 0.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// `grad_y S(y, xt)`, without its factor.
    pub specific: Option<Tensor>,
    /// `grad_y D(y, xt)`, without its factor.
    pub independent: Option<Tensor>,
}

impl<'a> Energies<'a> {
    /// `lambda_s` 500 on the cosine of features, `lambda_i` 2 on the squared difference of coarse images.
    pub fn new(classifier: &'a dyn FeatureNet, low_pass: LowPass) -> Self {
        Self {
            classifier,
            low_pass,
            lambda_s: 500.0,
            lambda_i: 2.0,
            specific: DomainSpecific::Cosine,
            independent: DomainIndependent::NegL2,
        }
    }

    /// `S(y, xt)` of each image, `[B]`.
    ///
    /// # Shapes
    /// - `y`, `xt`: `[B, C, H, W]` in noised image space · `t`: `B` original timesteps
    ///
    /// # Errors
    /// Images that do not fit the classifier.
    pub fn specific(&self, y: &Tensor, xt: &Tensor, t: &[f32]) -> Result<Tensor> {
        let features = |x: &Tensor| self.classifier.features(x, t);
        let (of_y, of_source) = (features(y)?, features(&xt.detach())?);
        match self.specific {
            DomainSpecific::Cosine => cosine(&of_y, &of_source),
            DomainSpecific::NegL2 => squared_difference(&of_y, &of_source)?.neg(),
        }
    }

    /// `D(y, xt)` of each image, `[B]`.
    ///
    /// # Shapes
    /// - `y`, `xt`: `[B, C, H, W]` in noised image space
    ///
    /// # Errors
    /// Images of another size than the filter's.
    pub fn independent(&self, y: &Tensor, xt: &Tensor) -> Result<Tensor> {
        let (of_y, of_source) = (self.low_pass.apply(y)?, self.low_pass.apply(&xt.detach())?);
        match self.independent {
            DomainIndependent::NegL2 => squared_difference(&of_y, &of_source),
            DomainIndependent::Cosine => cosine(&of_y, &of_source)?.neg(),
        }
    }

    /// The gradients of both energies with respect to `y`. Each image's is its own: the sum over the batch is taken.
    ///
    /// # Errors
    /// As [`Self::specific`] and [`Self::independent`].
    pub fn gradients(&self, y: &Tensor, xt: &Tensor, t: &[f32]) -> Result<Gradients> {
        Ok(Gradients {
            specific: gradient(self.lambda_s, y, |y| self.specific(y, xt, t))?,
            independent: gradient(self.lambda_i, y, |y| self.independent(y, xt))?,
        })
    }

    /// `lambda_s grad S + lambda_i grad D`, which EGSDE adds to the predicted noise times `sqrt(1 - alpha_bar_t)`.
    pub(crate) fn push(&self, y: &Tensor, xt: &Tensor, t: &[f32]) -> Result<Option<Tensor>> {
        let Gradients {
            specific,
            independent,
        } = self.gradients(y, xt, t)?;
        let specific = specific.map(|g| g * self.lambda_s).transpose()?;
        let independent = independent.map(|g| g * self.lambda_i).transpose()?;
        match (specific, independent) {
            (Some(a), Some(b)) => Ok(Some((a + b)?)),
            (a, b) => Ok(a.or(b)),
        }
    }
}

fn gradient(
    factor: f64,
    y: &Tensor,
    energy: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Option<Tensor>> {
    if factor == 0.0 {
        return Ok(None);
    }
    let y = Var::from_tensor(&y.detach())?;
    let mut gradients = backward(&energy(y.as_tensor())?.sum_all()?)?;
    // An energy that does not depend on the image has no gradient.
    match gradients.remove(y.as_tensor()) {
        Some(gradient) => Ok(Some(gradient.detach())),
        None => Ok(Some(y.zeros_like()?)),
    }
}

/// Sum over everything but the batch.
fn squared_difference(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    (a - b)?.sqr()?.flatten_from(1)?.sum(1)
}

/// Cosine over channels at each place, mean over the places.
fn cosine(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let product = (unit(a)? * unit(b)?)?.sum(1)?;
    product.flatten_from(1)?.mean(D::Minus1)
}

/// Divided by the length over channels, which counts as 1e-10 at least.
fn unit(x: &Tensor) -> Result<Tensor> {
    let x = x.flatten_from(2)?;
    // The minimum is taken under the root, so the gradient of a zero vector stays finite.
    let length = x.sqr()?.sum_keepdim(1)?.maximum(1e-20)?.sqrt()?;
    x.broadcast_div(&length)
}
