//! The parts of a loss, as tensors and as numbers.

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
    /// From the numbers of [`Terms::numbers`] and [`Terms::present`].
    ///
    /// # Errors
    /// Not 6 numbers.
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

    /// The scalars where they were computed, `[6]` f64: total, base, mse, vb, distill and aux, with 0 for missing terms.
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

    /// Whether the loss has a variational term, a distillation on images and one on pure noise.
    pub fn present(&self) -> [bool; 3] {
        [
            self.vb.is_some(),
            self.distill.is_some(),
            self.aux.is_some(),
        ]
    }
}
