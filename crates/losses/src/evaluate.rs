use crate::objective::{Objective, Variational, gather};
use candle_core::{DType, Result, Tensor, bail};
use sdft_diffusion::{Denoiser, Diffusion, Prediction};

/// Target images and the noise they are seen through.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Clean images `[B, C, H, W]` in [-1, 1].
    pub x0: &'a Tensor,
    /// Steps of the process, one per image.
    pub t: &'a [usize],
    /// Gaussian noise, shaped like `x0`.
    pub noise: &'a Tensor,
    /// Factors that undo a non-uniform choice of `t`, one per image; none means 1.
    pub importance: Option<&'a [f64]>,
}

/// Pure noise as an input of both networks, Eq. (5).
#[derive(Clone, Copy, Debug)]
pub struct Auxiliary<'a> {
    /// Gaussian noise `[A, C, H, W]`.
    pub z: &'a Tensor,
    /// Steps of the process, one per input.
    pub t: &'a [usize],
    /// The weight of each input: `w_aux(t)` where `t` is drawn uniformly, the mean of `w_aux` where it is drawn in proportion to it.
    pub weights: &'a [f64],
}

/// Every part of the loss. Scalars and `[B]` tensors, all differentiable.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Weighted squared error of each image.
    pub mse: Tensor,
    /// Variational term of each image, in bits per dimension (already rescaled where that was asked for).
    pub vb: Option<Tensor>,
    /// `mse + vb` of each image.
    pub base_each: Tensor,
    /// Mean squared difference to the source model of each image, unweighted.
    pub distill_each: Option<Tensor>,
    /// The same for each auxiliary input.
    pub aux_each: Option<Tensor>,
    /// L_base.
    pub base: Tensor,
    /// L_distill, weighted, before lambda.
    pub distill: Option<Tensor>,
    /// L_aux, weighted, before lambda_aux.
    pub aux: Option<Tensor>,
    /// L, Eq. (6).
    pub total: Tensor,
}

/// The loss in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// L.
    pub total: f64,
    /// L_base.
    pub base: f64,
    /// Mean of the weighted squared error.
    pub mse: f64,
    /// Mean of the variational term.
    pub vb: Option<f64>,
    /// L_distill before lambda.
    pub distill: Option<f64>,
    /// L_aux before lambda_aux.
    pub aux: Option<f64>,
}

impl Report {
    /// Adds `share` times another report, as the losses of parts of a batch add up.
    pub fn add(&mut self, other: &Self, share: f64) {
        let optional = |sum: &mut Option<f64>, value: Option<f64>| {
            if let Some(value) = value {
                *sum = Some(sum.unwrap_or(0.0) + share * value);
            }
        };
        self.total += share * other.total;
        self.base += share * other.base;
        self.mse += share * other.mse;
        optional(&mut self.vb, other.vb);
        optional(&mut self.distill, other.distill);
        optional(&mut self.aux, other.aux);
    }
}

impl Terms {
    /// The scalars on the host.
    ///
    /// # Errors
    /// When the device fails.
    pub fn report(&self) -> Result<Report> {
        let number = |t: &Tensor| t.to_dtype(DType::F64)?.to_scalar::<f64>();
        Ok(Report {
            total: number(&self.total)?,
            base: number(&self.base)?,
            mse: number(&self.mse.mean_all()?)?,
            vb: self
                .vb
                .as_ref()
                .map(|vb| number(&vb.mean_all()?))
                .transpose()?,
            distill: self.distill.as_ref().map(number).transpose()?,
            aux: self.aux.as_ref().map(number).transpose()?,
        })
    }
}

impl Objective {
    /// The loss of one batch, Eq. (6).
    ///
    /// Images and auxiliary inputs go through each network as one batch. Distances are means over channels and pixels, of the noise
    /// channels only: the variance logits are not distilled.
    ///
    /// # Shapes
    /// - see [`Batch`] and [`Auxiliary`]
    ///
    /// # Errors
    /// A distillation term without a source model or, for the auxiliary term, without inputs; shapes that do not fit.
    pub fn evaluate(
        &self,
        diffusion: &Diffusion,
        target: &dyn Denoiser,
        source: Option<&dyn Denoiser>,
        batch: &Batch<'_>,
        aux: Option<&Auxiliary<'_>>,
    ) -> Result<Terms> {
        let Batch {
            x0,
            t,
            noise,
            importance,
        } = *batch;
        let n = x0.dim(0)?;
        let xt = diffusion.q_sample(x0, t, noise)?;
        let aux = match (self.aux, aux) {
            (Some(term), Some(aux)) => Some((term, aux)),
            (None, _) => None,
            (Some(_), None) => {
                bail!("the objective has an auxiliary term but no auxiliary inputs were given")
            }
        };
        let (input, times) = match aux {
            Some((_, aux)) => (Tensor::cat(&[&xt, aux.z], 0)?, [t, aux.t].concat()),
            None => (xt.clone(), t.to_vec()),
        };
        let student = diffusion.predict(target, &input, &times)?;
        let on_images = student.narrow(0, n)?;

        let error = (noise - &on_images.eps)?.sqr()?.flatten_from(1)?.mean(1)?;
        let mse = scale(&error, &gather(&self.base.weights(&diffusion.schedule), t)?)?;
        let vb = match self.variational {
            Variational::Off => None,
            kind => {
                // The variational term teaches the variance only: the noise enters as a constant.
                let frozen = Prediction {
                    eps: on_images.eps.detach(),
                    variance: on_images.variance.clone(),
                };
                let vb = diffusion.variational_term(&frozen, x0, &xt, t)?;
                let factor = match kind {
                    Variational::Rescaled => diffusion.n_steps() as f64 / 1000.0,
                    Variational::Plain | Variational::Off => 1.0,
                };
                Some((vb * factor)?)
            }
        };
        let base_each = match &vb {
            Some(vb) => (&mse + vb)?,
            None => mse.clone(),
        };
        let mean = |each: &Tensor| match importance {
            Some(factors) => scale(each, factors)?.mean_all(),
            None => each.mean_all(),
        };
        let base = mean(&base_each)?;
        let mut terms = Terms {
            mse,
            vb,
            base_each,
            distill_each: None,
            aux_each: None,
            total: base.clone(),
            base,
            distill: None,
            aux: None,
        };
        if !self.distills() {
            return Ok(terms);
        }
        let Some(source) = source else {
            bail!("the objective distills, but no source model was given");
        };
        // Without the image term the source only has to look at the auxiliary inputs.
        let first = if self.distill.is_some() { 0 } else { n };
        let seen = input.dim(0)? - first;
        let teacher = diffusion
            .predict(source, &input.narrow(0, first, seen)?, &times[first..])?
            .eps
            .detach();
        let distance = (student.eps.narrow(0, first, seen)? - teacher)?
            .sqr()?
            .flatten_from(1)?
            .mean(1)?;
        if let Some(term) = self.distill {
            let each = distance.narrow(0, 0, n)?;
            let distill = mean(&scale(
                &each,
                &gather(&term.weighting.weights(&diffusion.schedule), t)?,
            )?)?;
            terms.total = (terms.total + (&distill * term.lambda)?)?;
            terms.distill_each = Some(each);
            terms.distill = Some(distill);
        }
        if let Some((term, aux)) = aux {
            let each = distance.narrow(0, n - first, aux.t.len())?;
            let aux = scale(&each, aux.weights)?.mean_all()?;
            terms.total = (terms.total + (&aux * term.lambda)?)?;
            terms.aux_each = Some(each);
            terms.aux = Some(aux);
        }
        Ok(terms)
    }
}

/// Multiplies each entry of `[B]` by its f64 weight, cast only here.
fn scale(each: &Tensor, weights: &[f64]) -> Result<Tensor> {
    if each.dims() != [weights.len()] {
        bail!("{} weights for {:?} losses", weights.len(), each.dims());
    }
    each * Tensor::new(weights, &candle_core::Device::Cpu)?
        .to_dtype(each.dtype())?
        .to_device(each.device())?
}
