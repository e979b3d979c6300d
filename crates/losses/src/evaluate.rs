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
        let inputs = Inputs::new(self, batch, aux)?;
        let student = predict_at(target, &inputs.x, &inputs.levels)?;
        let of_images = student.narrow(0, inputs.images)?;
        let own = base(self, diffusion, &of_images, &inputs.xt, batch)?;
        let mut terms = Terms {
            mse: own.mse,
            vb: own.vb,
            base_each: own.each,
            distill_each: None,
            aux_each: None,
            total: own.mean.clone(),
            base: own.mean,
            distill: None,
            aux: None,
            kept: None,
            pairwise: None,
        };
        let mut weighted = Vec::new();
        if let (Some(weight), Some(kept)) = (self.keep, batch.kept) {
            let (start, k) = (inputs.compared, kept.levels.len());
            let xt = inputs.x.narrow(0, start, k)?;
            let of_kept = NoisedBatch::new(kept.x0, kept.levels, kept.noise);
            let loss = base(self, diffusion, &student.narrow(start, k)?, &xt, &of_kept)?;
            let mean = (loss.mean * kept.factor)?;
            weighted.push((weight, mean.clone()));
            terms.kept = Some(mean);
        }
        if let Some(term) = self.pairwise {
            let x0 = self.known_x0(&of_images, &inputs, batch)?;
            terms.pairwise = Some(fine_error(&term, &x0, &self.known(batch.x0)?)?);
        }
        if self.distills() {
            let Some(source) = source else {
                bail!(
                    "the objective compares with the source model, but no source model was given"
                );
            };
            let compared = Compared {
                inputs: &inputs,
                student: &student,
                source,
                batch,
            };
            self.compare(&compared, aux, &mut terms, &mut weighted)?;
        }
        if let Some(pairs) = &terms.pairwise {
            weighted.push((1.0, pairs.clone()));
        }
        terms.total = total(&terms.base, &weighted)?;
        Ok(terms)
    }

    /// Adds the terms that compare student and source model, and their factors.
    fn compare(
        &self,
        compared: &Compared<'_>,
        aux: Option<&Auxiliary<'_>>,
        terms: &mut Terms,
        weighted: &mut Vec<(f64, Tensor)>,
    ) -> Result<()> {
        let Compared {
            inputs,
            student,
            source,
            batch,
        } = *compared;
        let seen = self.seen(batch)?;
        if self.distill.is_some() && seen.is_empty() {
            terms.distill = Some(terms.base.zeros_like()?);
        }
        let aux_rows = inputs.images..inputs.compared;
        let rows: Vec<usize> = seen.iter().copied().chain(aux_rows).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let levels: Vec<Level> = rows.iter().map(|&row| inputs.levels[row]).collect();
        let x = take(&inputs.x, &rows)?;
        let teacher = predict_at(source, &x, &levels)?;
        if let (Some(term), Some(pairs)) = (self.pairwise, &terms.pairwise)
            && self.compares_pairs()
        {
            let n = inputs.images;
            let own = self.known_x0(&student.narrow(0, n)?, inputs, batch)?;
            let of_source = self.known_x0(&teacher.narrow(0, n)?, inputs, batch)?;
            terms.pairwise = Some((pairs + distances_of_pairs(&term, &own, &of_source)?)?);
        }
        let student = Prediction::new(
            self.known(&take(&student.output, &rows)?)?,
            student.prediction_type,
        );
        let teacher = Prediction::new(self.known(&teacher.output)?, teacher.prediction_type);
        let mask = match batch.mask {
            None => None,
            Some(mask) => Some(with_ones(mask, &seen, levels.len() - seen.len())?),
        };
        let (space, x) = (self.distill_space, self.known(&x)?);
        let distances = distance(space, &student, &teacher, &x, &levels, mask.as_ref())?;
        if let Some(term) = self.distill
            && !seen.is_empty()
        {
            let each = distances.narrow(0, 0, seen.len())?;
            let mean = distill(&term, &each, &seen, batch)?;
            weighted.push((term.lambda, mean.clone()));
            (terms.distill, terms.distill_each) = (Some(mean), Some(each));
        }
        if let (Some(term), Some(aux)) = (self.aux, aux) {
            let each = distances.narrow(0, seen.len(), aux.levels.len())?;
            let mean = auxiliary(&each, aux)?;
            weighted.push((term.lambda, mean.clone()));
            (terms.aux, terms.aux_each) = (Some(mean), Some(each));
        }
        Ok(())
    }

    /// The predicted clean images, in the channels that the source model has learned.
    fn known_x0(
        &self,
        prediction: &Prediction,
        inputs: &Inputs,
        batch: &NoisedBatch<'_>,
    ) -> Result<Tensor> {
        let output = self.known(&prediction.output)?;
        let known = Prediction::new(output, prediction.prediction_type);
        known.x0(&self.known(&inputs.xt)?, batch.levels)
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

/// The inputs of a student as one batch: images, auxiliary inputs, kept samples.
struct Inputs {
    /// The noised images.
    xt: Tensor,
    /// All inputs, and the level of each.
    x: Tensor,
    levels: Vec<Level>,
    /// Number of images, and of images and auxiliary inputs: those that the source model can see.
    images: usize,
    compared: usize,
}

impl Inputs {
    fn new(
        objective: &Objective,
        batch: &NoisedBatch<'_>,
        aux: Option<&Auxiliary<'_>>,
    ) -> Result<Self> {
        let images = batch.x0.dim(0)?;
        let xt = q_sample(batch.x0, batch.levels, batch.noise)?;
        let (mut parts, mut levels) = (vec![xt.clone()], batch.levels.to_vec());
        if objective.aux.is_some() {
            let Some(aux) = aux else {
                bail!("the objective has an auxiliary term but no auxiliary inputs were given");
            };
            parts.push(aux.z.clone());
            levels.extend(aux.levels);
        }
        let compared = levels.len();
        if objective.keep.is_some() {
            let Some(kept) = batch.kept else {
                bail!("the objective keeps samples of the source model, but none were given");
            };
            parts.push(q_sample(kept.x0, kept.levels, kept.noise)?);
            levels.extend(kept.levels);
        }
        let x = match &parts[..] {
            [images] => images.clone(),
            all => Tensor::cat(all, 0)?,
        };
        Ok(Self {
            xt,
            x,
            levels,
            images,
            compared,
        })
    }
}

/// What a comparison with the source model is made of.
#[derive(Clone, Copy)]
struct Compared<'a> {
    inputs: &'a Inputs,
    student: &'a Prediction,
    source: &'a dyn Denoiser,
    batch: &'a NoisedBatch<'a>,
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
