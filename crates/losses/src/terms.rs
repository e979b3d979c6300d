//! The parts of a loss, as tensors and as numbers.

use crate::{Objective, Variational};
use candle_core::{DType, Result, Tensor, bail};

/// Every part of the loss, as differentiable scalars and `[B]` tensors.
///
/// A network that records itself, as ADM does, allows one backward pass: take the gradients of one of them.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Weighted squared error of each image.
    pub mse: Tensor,
    /// Variational term of each image, in bits per dimension, rescaled with [`Variational::Rescaled`](crate::Variational).
    pub vb: Option<Tensor>,
    /// `mse + vb` of each image.
    pub base_each: Tensor,
    /// Mean squared difference to the source model, unweighted, of each image that it saw.
    pub distill_each: Option<Tensor>,
    /// The same for each auxiliary input.
    pub aux_each: Option<Tensor>,
    /// L_base.
    pub base: Tensor,
    /// L_distill, weighted, before lambda.
    pub distill: Option<Tensor>,
    /// L_aux, weighted, before lambda_aux.
    pub aux: Option<Tensor>,
    /// Base loss of the kept samples, before its factor.
    pub kept: Option<Tensor>,
    /// DDPM-PA's terms, with their factors.
    pub pairwise: Option<Tensor>,
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
    /// Base loss of the kept samples, before its factor.
    pub kept: Option<f64>,
    /// DDPM-PA's terms, with their factors.
    pub pairwise: Option<f64>,
    /// The distance of the weights to those of the source model, with its factors ([`Anchor`](crate::Anchor)).
    pub anchor: Option<f64>,
}

/// The terms that a loss can leave out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The variational term.
    pub vb: bool,
    /// The distillation on images.
    pub distill: bool,
    /// The distillation on pure noise.
    pub aux: bool,
    /// The kept samples.
    pub kept: bool,
    /// DDPM-PA's terms.
    pub pairwise: bool,
    /// The distance of the weights.
    pub anchor: bool,
}

impl Objective {
    /// The terms that this objective has.
    pub fn present(&self) -> Present {
        Present {
            vb: self.variational != Variational::Off,
            distill: self.distill.is_some(),
            aux: self.aux.is_some(),
            kept: self.keep.is_some(),
            pairwise: self.pairwise.is_some(),
            anchor: false,
        }
    }
}

impl Report {
    /// From the numbers of [`Terms::numbers`] and [`Terms::present`].
    ///
    /// # Errors
    /// Not 9 numbers.
    pub fn of(numbers: &[f64], present: Present) -> Result<Self> {
        let &[total, base, mse, vb, distill, aux, kept, pairwise, anchor] = numbers else {
            bail!("expected 9 numbers of a loss, found {}", numbers.len());
        };
        Ok(Self {
            total,
            base,
            mse,
            vb: present.vb.then_some(vb),
            distill: present.distill.then_some(distill),
            aux: present.aux.then_some(aux),
            kept: present.kept.then_some(kept),
            pairwise: present.pairwise.then_some(pairwise),
            anchor: present.anchor.then_some(anchor),
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

    /// The scalars where they were computed, `[9]` f64: total, base, mse, vb, distill, aux, kept, pairwise and anchor, with 0 for missing
    /// terms. The anchor does not depend on images, so it is always 0 here.
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
            or_zero(self.kept.clone())?,
            or_zero(self.pairwise.clone())?,
            or_zero(None)?,
        ];
        Tensor::stack(&all, 0)
    }

    /// The terms that the loss has.
    pub fn present(&self) -> Present {
        Present {
            vb: self.vb.is_some(),
            distill: self.distill.is_some(),
            aux: self.aux.is_some(),
            kept: self.kept.is_some(),
            pairwise: self.pairwise.is_some(),
            anchor: false,
        }
    }
}
