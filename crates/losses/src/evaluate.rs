//! The whole loss of one batch.

use crate::equations::{auxiliary, base, distance, distill, total};
use crate::{Auxiliary, NoisedBatch, Objective, Terms};
use candle_core::{Result, Tensor, bail};
use sdft_diffusion::{Denoiser, Diffusion, Level, Prediction, predict_at, q_sample};

impl Objective {
    /// The loss of one batch, Eq. (6).
    ///
    /// Both networks are called for the noise levels of the batch, for any process; `diffusion` is needed for the
    /// variational term only. Images and auxiliary inputs go through each network as one batch. The source model sees only the images whose factor is not 0.
    ///
    /// # Shapes
    /// - see [`NoisedBatch`] and [`Auxiliary`]
    ///
    /// # Errors
    /// A distillation term without a source model or, for the auxiliary term, without inputs; shapes that do not fit.
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
        let (input, levels) = match aux {
            Some((_, aux)) => (
                Tensor::cat(&[&xt, aux.z], 0)?,
                [batch.levels, aux.levels].concat(),
            ),
            None => (xt.clone(), batch.levels.to_vec()),
        };
        let student = predict_at(target, &input, &levels)?;
        let base = base(self, diffusion, &student.narrow(0, n)?, &xt, batch)?;
        let mut terms = Terms {
            mse: base.mse,
            vb: base.vb,
            base_each: base.each,
            distill_each: None,
            aux_each: None,
            total: base.mean.clone(),
            base: base.mean,
            distill: None,
            aux: None,
        };
        if !self.distills() {
            return Ok(terms);
        }
        let Some(source) = source else {
            bail!("the objective distills, but no source model was given");
        };
        let seen = self.seen(batch)?;
        if self.distill.is_some() && seen.is_empty() {
            terms.distill = Some(terms.base.zeros_like()?);
        }
        let rows: Vec<usize> = seen.iter().copied().chain(n..levels.len()).collect();
        if rows.is_empty() {
            return Ok(terms);
        }
        let levels: Vec<Level> = rows.iter().map(|&row| levels[row]).collect();
        let input = take(&input, &rows)?;
        let teacher = predict_at(source, &input, &levels)?;
        let known = |x: &Tensor| match self.distill_channels {
            Some(channels) => x.narrow(1, 0, channels),
            None => Ok(x.clone()),
        };
        let student = Prediction::new(
            known(&take(&student.output, &rows)?)?,
            student.prediction_type,
        );
        let teacher = Prediction::new(known(&teacher.output)?, teacher.prediction_type);
        let input = known(&input)?;
        let space = self.distill_space;
        let mask = match batch.mask {
            None => None,
            Some(mask) => Some(with_ones(mask, &seen, levels.len() - seen.len())?),
        };
        let distances = distance(space, &student, &teacher, &input, &levels, mask.as_ref())?;

        let mut weighted = Vec::new();
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
        terms.total = total(&terms.base, &weighted)?;
        Ok(terms)
    }

    /// The images that the source model sees; its inputs are these and then the auxiliary inputs. A caller that gives the source model a
    /// class for each input needs them.
    ///
    /// # Errors
    /// Another number of factors than images.
    pub fn seen(&self, batch: &NoisedBatch<'_>) -> Result<Vec<usize>> {
        match self.distill {
            Some(_) => batch.seen(),
            None => Ok(Vec::new()),
        }
    }
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
