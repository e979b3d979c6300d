//! The terms of the loss, one function for each equation of the paper.

use crate::{Auxiliary, Distillation, NoisedBatch, Objective, Variational, weights_at};
use candle_core::{Result, Tensor, bail};
use sdft_diffusion::{Diffusion, Level, Prediction, PredictionType, mean_over_pixels};

/// The parts of the base loss.
#[derive(Clone, Debug)]
pub struct Base {
    /// Weighted squared error of each image, `[B]`.
    pub mse: Tensor,
    /// Variational term of each image, `[B]`, in bits per dimension.
    pub vb: Option<Tensor>,
    /// `mse + vb` of each image.
    pub each: Tensor,
    /// L_base.
    pub mean: Tensor,
}

/// Eq. (2): `L_base = E lambda(t) || target - f_theta(x_t, t) ||^2`, plus the variational term; means over the pixels that take part.
///
/// `f` is the quantity that the network predicts; for the noise the target is `eps`, as in the paper, plus [`NoisedBatch::shift`].
///
/// # Shapes
/// - `student`, `xt`: `[B, C, H, W]`
///
/// # Errors
/// Shapes that differ; a variational term at a level that is no step of `diffusion`.
pub fn base(
    objective: &Objective,
    diffusion: &Diffusion,
    student: &Prediction,
    xt: &Tensor,
    batch: &NoisedBatch<'_>,
) -> Result<Base> {
    let kind = student.prediction_type;
    let target =
        match batch.shift {
            None => kind.target(batch.x0, batch.levels, batch.noise)?,
            // Guidance changes the noise that the network is to predict, at the same noised image.
            Some(shift) => Prediction::new((batch.noise + shift)?, PredictionType::Epsilon)
                .convert(kind, xt, batch.levels)?,
        };
    let error = mean_square(&(target - &student.output)?, batch.mask)?;
    let mse = scale(&error, &weights_at(objective.base, batch.levels))?;
    let vb = variational(objective.variational, diffusion, student, xt, batch)?;
    let each = match &vb {
        Some(vb) => (&mse + vb)?,
        None => mse.clone(),
    };
    let mean = match batch.importance {
        Some(factors) => scale(&each, factors)?.mean_all()?,
        None => each.mean_all()?,
    };
    Ok(Base {
        mse,
        vb,
        each,
        mean,
    })
}

/// The variational term of Eq. (2). It teaches the variance only: the prediction enters as a constant.
fn variational(
    kind: Variational,
    diffusion: &Diffusion,
    student: &Prediction,
    xt: &Tensor,
    batch: &NoisedBatch<'_>,
) -> Result<Option<Tensor>> {
    let factor = match kind {
        Variational::Off => return Ok(None),
        Variational::Plain => 1.0,
        Variational::Rescaled => diffusion.n_steps() as f64 / 1000.0,
    };
    let frozen = Prediction {
        output: student.output.detach(),
        ..student.clone()
    };
    let steps: Option<Vec<usize>> = batch.levels.iter().map(|level| level.step).collect();
    let Some(t) = steps else {
        bail!(
            "the variational term needs the steps of a discrete process, found levels between steps"
        );
    };
    let vb = diffusion.variational_term(&frozen, batch.x0, xt, &t, batch.mask)?;
    Ok(Some((vb * factor)?))
}

/// `|| f_src(x_t, t) - f_theta(x_t, t) ||^2` of Eq. (3) and (5) for each input, a mean over channels and pixels with the weights `mask`
/// `[B, 1, H, W]`, `[B]`.
///
/// `f` is the quantity `space`; the variance logits are not compared, and no gradient reaches the source model.
///
/// # Errors
/// Shapes that differ.
pub fn distance(
    space: PredictionType,
    student: &Prediction,
    source: &Prediction,
    xt: &Tensor,
    levels: &[Level],
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    let student = student.convert(space, xt, levels)?;
    let source = source.convert(space, xt, levels)?.detach();
    mean_square(&(student - source)?, mask)
}

/// Eq. (3): `L_distill = E w(t) || f_src(x_t, t) - f_theta(x_t, t) ||^2`, `x_t` a noised target image.
///
/// `distances` are those of the images that the source model saw; `seen` has their places in the batch. The mean is over the whole batch.
///
/// # Errors
/// Not one distance for each image that was seen.
pub fn distill(
    term: &Distillation,
    distances: &Tensor,
    seen: &[usize],
    batch: &NoisedBatch<'_>,
) -> Result<Tensor> {
    let w = weights_at(term.weighting, batch.levels);
    let weights: Vec<f64> = seen.iter().map(|&i| batch.weigh(w[i], i)).collect();
    scale(distances, &weights)?.sum_all()? / batch.levels.len() as f64
}

/// Eq. (5): `L_aux = E w_aux(t) || f_src(z, t) - f_theta(z, t) ||^2`, `z ~ N(0, I)`.
///
/// # Errors
/// Not one distance for each input.
pub fn auxiliary(distances: &Tensor, aux: &Auxiliary<'_>) -> Result<Tensor> {
    scale(distances, aux.weights)?.mean_all()
}

/// Eq. (6): `L = L_base + lambda L_distill + lambda_aux L_aux`; each term comes with its factor.
///
/// # Errors
/// Terms that are not scalars.
pub fn total(base: &Tensor, terms: &[(f64, Tensor)]) -> Result<Tensor> {
    let mut total = base.clone();
    for (lambda, term) in terms {
        total = (total + (term * *lambda)?)?;
    }
    Ok(total)
}

/// The mean of squares over everything but the batch, `[B]`.
fn mean_square(x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    mean_over_pixels(&x.sqr()?, mask)
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
