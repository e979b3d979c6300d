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
    /// Factors of the distillation term that undo a random choice of the images it looks at ([`distill_factor`](crate::distill_factor)),
    /// one per image: the source model does not see images of factor 0. None means 1.
    pub distill: Option<&'a [f64]>,
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

/// Every part of the loss. Scalars and `[B]` tensors, all differentiable; a network that records itself, as ADM does, serves one of them.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Weighted squared error of each image.
    pub mse: Tensor,
    /// Variational term of each image, in bits per dimension (already rescaled where that was asked for).
    pub vb: Option<Tensor>,
    /// `mse + vb` of each image.
    pub base_each: Tensor,
    /// Mean squared difference to the source model of each image that it saw, unweighted.
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
    /// From the numbers of [`Terms::numbers`], and which of the last three terms there are.
    ///
    /// # Errors
    /// Another number of numbers.
    pub fn of(numbers: &[f64], [vb, distill, aux]: [bool; 3]) -> Result<Self> {
        let &[total, base, mse, of_vb, of_distill, of_aux] = numbers else {
            bail!("expected 6 numbers of a loss, found {}", numbers.len());
        };
        Ok(Self {
            total,
            base,
            mse,
            vb: vb.then_some(of_vb),
            distill: distill.then_some(of_distill),
            aux: aux.then_some(of_aux),
        })
    }
}

impl Terms {
    /// The scalars on the host; waits for the device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn report(&self) -> Result<Report> {
        Report::of(&self.numbers()?.to_vec1()?, self.present())
    }

    /// The scalars where they were computed, `[6]` f64: total, base, mse, vb, distill and aux, with zeros for terms that are not there.
    ///
    /// # Errors
    /// When the device fails.
    pub fn numbers(&self) -> Result<Tensor> {
        let number = |t: &Tensor| t.detach().to_dtype(DType::F64);
        let or_zero = |t: Option<Tensor>| match t {
            Some(t) => number(&t),
            None => Tensor::zeros((), DType::F64, self.total.device()),
        };
        let vb = self.vb.as_ref().map(Tensor::mean_all).transpose()?;
        let all = [
            number(&self.total)?,
            number(&self.base)?,
            number(&self.mse.mean_all()?)?,
            or_zero(vb)?,
            or_zero(self.distill.clone())?,
            or_zero(self.aux.clone())?,
        ];
        Tensor::stack(&all, 0)
    }

    /// Whether there are a variational term, a distillation on images and one on pure noise.
    pub fn present(&self) -> [bool; 3] {
        [
            self.vb.is_some(),
            self.distill.is_some(),
            self.aux.is_some(),
        ]
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
            distill,
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
        let base = match importance {
            Some(factors) => scale(&base_each, factors)?.mean_all()?,
            None => base_each.mean_all()?,
        };
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
        // What the source model looks at: the images whose factor is not 0, where there is an image term, and all auxiliary inputs.
        let factor = |i: usize| distill.map_or(1.0, |factors| factors[i]);
        if distill.is_some_and(|factors| factors.len() != n) {
            bail!("expected {n} distillation factors, one for each image");
        }
        let seen: Vec<usize> = match self.distill {
            Some(_) => (0..n).filter(|&i| factor(i) != 0.0).collect(),
            None => Vec::new(),
        };
        let rows: Vec<usize> = seen.iter().copied().chain(n..times.len()).collect();
        if self.distill.is_some() && seen.is_empty() {
            terms.distill = Some(terms.base.zeros_like()?);
        }
        if rows.is_empty() {
            return Ok(terms);
        }
        let row_times: Vec<usize> = rows.iter().map(|&row| times[row]).collect();
        let teacher = diffusion
            .predict(source, &take(&input, &rows)?, &row_times)?
            .eps
            .detach();
        let distance = (take(&student.eps, &rows)? - teacher)?
            .sqr()?
            .flatten_from(1)?
            .mean(1)?;
        if let Some(term) = self.distill
            && !seen.is_empty()
        {
            let each = distance.narrow(0, 0, seen.len())?;
            let weights = gather(
                &term.weighting.weights(&diffusion.schedule),
                &row_times[..seen.len()],
            )?;
            let weights: Vec<f64> = weights
                .iter()
                .zip(&seen)
                .map(|(w, &i)| w * factor(i) * importance.map_or(1.0, |factors| factors[i]))
                .collect();
            // The mean is over the batch, whoever was seen.
            let distill = (scale(&each, &weights)?.sum_all()? / n as f64)?;
            terms.total = (terms.total + (&distill * term.lambda)?)?;
            terms.distill_each = Some(each);
            terms.distill = Some(distill);
        }
        if let Some((term, aux)) = aux {
            let each = distance.narrow(0, seen.len(), aux.t.len())?;
            let aux = scale(&each, aux.weights)?.mean_all()?;
            terms.total = (terms.total + (&aux * term.lambda)?)?;
            terms.aux_each = Some(each);
            terms.aux = Some(aux);
        }
        Ok(terms)
    }
}

/// These rows, in this order; a view where they follow one another.
fn take(x: &Tensor, rows: &[usize]) -> Result<Tensor> {
    let consecutive = rows.windows(2).all(|pair| pair[1] == pair[0] + 1);
    if consecutive && let Some(&first) = rows.first() {
        return x.narrow(0, first, rows.len());
    }
    let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    // The channels of the noise are a view of the network's output, and candle selects from whole tensors only.
    x.contiguous()?
        .index_select(&Tensor::new(rows, x.device())?, 0)
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
