//! The whole loss of one batch.

use crate::equations::{auxiliary, base, distance, distill, total};
use crate::{
    Auxiliary, NoisedBatch, Objective, Pairwise, Terms, high_frequencies, pairwise_divergence,
};
use candle_core::{Result, Tensor, bail};
use sdft_diffusion::{Denoiser, Diffusion, Level, Prediction, predict_at, q_sample};

impl Objective {
    /// The loss of one batch, Eq. (6).
    ///
    /// Both networks are called for the noise levels of the batch, for any process; `diffusion` is needed for the
    /// variational term only. Images, auxiliary inputs and kept samples go through the student in this order, as one batch. The source
    /// model sees the images of [`Self::seen`] and the auxiliary inputs.
    ///
    /// # Shapes
    /// - see [`NoisedBatch`] and [`Auxiliary`]
    ///
    /// # Errors
    /// A distillation term without a source model or, for the auxiliary term, without inputs; a term of kept samples without samples;
    /// shapes that do not fit.
    pub fn evaluate(
        &self,
        diffusion: &Diffusion,
        target: &dyn Denoiser,
        source: Option<&dyn Denoiser>,
        batch: &NoisedBatch<'_>,
        aux: Option<&Auxiliary<'_>>,
    ) -> Result<Terms> {
        let n = batch.x0.dim(0)?;
        let xt = q_sample(batch.x0, batch.levels, batch.noise)?;
        let aux = match (self.aux, aux) {
            (Some(term), Some(aux)) => Some((term, aux)),
            (None, _) => None,
            (Some(_), None) => {
                bail!("the objective has an auxiliary term but no auxiliary inputs were given")
            }
        };
        let kept = match (self.keep, batch.kept) {
            (Some(weight), Some(kept)) => Some((weight, kept)),
            (None, _) => None,
            (Some(_), None) => {
                bail!("the objective keeps samples of the source model, but none were given")
            }
        };
        let (mut inputs, mut levels) = (vec![xt.clone()], batch.levels.to_vec());
        if let Some((_, aux)) = aux {
            inputs.push(aux.z.clone());
            levels.extend(aux.levels);
        }
        let compared = levels.len();
        if let Some((_, kept)) = kept {
            inputs.push(q_sample(kept.x0, kept.levels, kept.noise)?);
            levels.extend(kept.levels);
        }
        let input = match &inputs[..] {
            [images] => images.clone(),
            all => Tensor::cat(all, 0)?,
        };
        let student = predict_at(target, &input, &levels)?;
        let of_images = student.narrow(0, n)?;
        let base_of_images = base(self, diffusion, &of_images, &xt, batch)?;
        let mut terms = Terms {
            mse: base_of_images.mse,
            vb: base_of_images.vb,
            base_each: base_of_images.each,
            distill_each: None,
            aux_each: None,
            total: base_of_images.mean.clone(),
            base: base_of_images.mean,
            distill: None,
            aux: None,
            kept: None,
            pairwise: None,
        };
        let mut weighted = Vec::new();
        if let Some((weight, kept)) = kept {
            let own = NoisedBatch::new(kept.x0, kept.levels, kept.noise);
            let (start, k) = (compared, kept.levels.len());
            let of_kept = student.narrow(start, k)?;
            let loss = base(self, diffusion, &of_kept, &input.narrow(0, start, k)?, &own)?;
            let mean = (loss.mean * kept.factor)?;
            weighted.push((weight, mean.clone()));
            terms.kept = Some(mean);
        }
        let x0 = |prediction: &Prediction| -> Result<Tensor> {
            let known =
                Prediction::new(self.known(&prediction.output)?, prediction.prediction_type);
            known.x0(&self.known(&xt)?, batch.levels)
        };
        let mut pairs = match self.pairwise {
            None => None,
            Some(term) => Some(fine_error(&term, &x0(&of_images)?, &self.known(batch.x0)?)?),
        };
        if self.distills() {
            let Some(source) = source else {
                bail!(
                    "the objective compares with the source model, but no source model was given"
                );
            };
            let seen = self.seen(batch)?;
            if self.distill.is_some() && seen.is_empty() {
                terms.distill = Some(terms.base.zeros_like()?);
            }
            let rows: Vec<usize> = seen.iter().copied().chain(n..compared).collect();
            if !rows.is_empty() {
                let levels: Vec<Level> = rows.iter().map(|&row| levels[row]).collect();
                let input = take(&input, &rows)?;
                let teacher = predict_at(source, &input, &levels)?;
                let student = Prediction::new(
                    self.known(&take(&student.output, &rows)?)?,
                    student.prediction_type,
                );
                let teacher =
                    Prediction::new(self.known(&teacher.output)?, teacher.prediction_type);
                if let (Some(term), Some(pairs)) = (self.pairwise, &mut pairs)
                    && self.compares_pairs()
                {
                    let [student, source] = [x0(&of_images)?, x0(&teacher.narrow(0, n)?)?];
                    *pairs = (&*pairs + distances_of_pairs(&term, &student, &source)?)?;
                }
                let input = self.known(&input)?;
                let space = self.distill_space;
                let mask = match batch.mask {
                    None => None,
                    Some(mask) => Some(with_ones(mask, &seen, levels.len() - seen.len())?),
                };
                let distances =
                    distance(space, &student, &teacher, &input, &levels, mask.as_ref())?;
                if let Some(term) = self.distill
                    && !seen.is_empty()
                {
                    let each = distances.narrow(0, 0, seen.len())?;
                    let mean = distill(&term, &each, &seen, batch)?;
                    weighted.push((term.lambda, mean.clone()));
                    (terms.distill, terms.distill_each) = (Some(mean), Some(each));
                }
                if let Some((term, aux)) = aux {
                    let each = distances.narrow(0, seen.len(), aux.levels.len())?;
                    let mean = auxiliary(&each, aux)?;
                    weighted.push((term.lambda, mean.clone()));
                    (terms.aux, terms.aux_each) = (Some(mean), Some(each));
                }
            }
        }
        if let Some(pairs) = pairs {
            weighted.push((1.0, pairs.clone()));
            terms.pairwise = Some(pairs);
        }
        terms.total = total(&terms.base, &weighted)?;
        Ok(terms)
    }

    /// The channels that the source model has learned.
    fn known(&self, x: &Tensor) -> Result<Tensor> {
        match self.distill_channels {
            Some(channels) => x.narrow(1, 0, channels),
            None => Ok(x.clone()),
        }
    }

    /// The images that the source model sees; its inputs are these and then the auxiliary inputs. A caller that gives the source model a
    /// class for each input needs them.
    ///
    /// # Errors
    /// Another number of factors than images.
    pub fn seen(&self, batch: &NoisedBatch<'_>) -> Result<Vec<usize>> {
        match self.distill {
            _ if self.compares_pairs() => Ok((0..batch.levels.len()).collect()),
            Some(_) => batch.seen(),
            None => Ok(Vec::new()),
        }
    }
}

/// DDPM-PA's squared error of high frequencies, with its factor.
fn fine_error(term: &Pairwise, student: &Tensor, x0: &Tensor) -> Result<Tensor> {
    if term.hf_mse_weight == 0.0 {
        return Tensor::zeros((), student.dtype(), student.device());
    }
    let error = (high_frequencies(student)? - high_frequencies(x0)?)?;
    error.sqr()?.mean_all()? * term.hf_mse_weight
}

/// DDPM-PA's distances between images and between their high frequencies, with their factors.
fn distances_of_pairs(term: &Pairwise, student: &Tensor, source: &Tensor) -> Result<Tensor> {
    let mut sum = Tensor::zeros((), student.dtype(), student.device())?;
    if term.weight > 0.0 {
        sum = (sum + (pairwise_divergence(student, source)? * term.weight)?)?;
    }
    if term.hf_weight > 0.0 {
        let (student, source) = (high_frequencies(student)?, high_frequencies(source)?);
        sum = (sum + (pairwise_divergence(&student, &source)? * term.hf_weight)?)?;
    }
    Ok(sum)
}

/// The masks of these images, and ones for `n` auxiliary inputs after them.
fn with_ones(mask: &Tensor, seen: &[usize], n: usize) -> Result<Tensor> {
    let [_, _, height, width] = *mask.dims() else {
        bail!("mask: expected [B, 1, H, W], found {:?}", mask.dims());
    };
    let ones = Tensor::ones((n, 1, height, width), mask.dtype(), mask.device())?;
    match seen {
        [] => Ok(ones),
        seen => Tensor::cat(&[&take(mask, seen)?, &ones], 0),
    }
}

/// These rows, in this order; a view if they are consecutive.
fn take(x: &Tensor, rows: &[usize]) -> Result<Tensor> {
    let consecutive = rows.windows(2).all(|pair| pair[1] == pair[0] + 1);
    if consecutive && let Some(&first) = rows.first() {
        return x.narrow(0, first, rows.len());
    }
    let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    // The prediction is a view of the network's output, and candle selects from contiguous tensors only.
    x.contiguous()?
        .index_select(&Tensor::new(rows, x.device())?, 0)
}
