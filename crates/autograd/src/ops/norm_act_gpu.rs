//! Group normalisation on a GPU: its gradient, and the bias of the convolution before it in the same passes.

use super::check_same;
use super::conv2d_gradients::BiasGradient;
use super::dense::dense;
use super::norm_act::{NormAct, SavedStatistics};
use super::op::{Op, compute};
use candle_core::{CpuStorage, CudaStorage, Layout, Result, Shape, Storage, Tensor, bail};

type Part<'a> = (&'a CudaStorage, &'a Layout);

fn on_gpus_only() -> Result<(CpuStorage, Shape)> {
    bail!("this part of a norm is computed on a GPU only")
}

/// The gradient of `a` and `b`, and sums over each group, in one flat tensor.
pub(crate) struct Sums {
    norm: sdft_cuda::Norm,
    statistics: sdft_cuda::Statistics,
    /// What the input still lacks.
    bias: Option<Tensor>,
}

impl Sums {
    pub(crate) fn new(op: &NormAct, statistics: &sdft_cuda::Statistics) -> Self {
        Self {
            norm: op.on_gpu(),
            statistics: statistics.clone(),
            bias: None,
        }
    }

    /// The gradient of `x` if it is wanted, added to an earlier one, and that of `ab`.
    pub(crate) fn gradients(
        self,
        [x, ab, dy]: [&Tensor; 3],
        wanted: bool,
        earlier: Option<&Tensor>,
    ) -> Result<(Option<Tensor>, Tensor)> {
        let sums = compute(&self, [x, ab, dy])?;
        let dab = sums.narrow(0, 0, ab.elem_count())?.reshape(ab.shape())?;
        let dx = match earlier {
            _ if !wanted => None,
            None => Some(compute(&Spread(self), [x, ab, dy, &sums])?),
            Some(earlier) => {
                check_same("norm_act gradient", x, earlier)?;
                Some(compute(
                    &Spread(self),
                    [x, ab, dy, &sums, &dense(earlier)?],
                )?)
            }
        };
        Ok((dx, dab))
    }

    /// Calls `f` with the bias on the device.
    fn with_bias<T>(&self, f: impl FnOnce(Option<Part<'_>>) -> Result<T>) -> Result<T> {
        let Some(bias) = &self.bias else {
            return f(None);
        };
        let (storage, layout) = bias.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => f(Some((storage, layout))),
            _ => bail!("norm_act: the bias is not on the GPU"),
        }
    }
}

impl Op<3> for Sums {
    fn name(&self) -> &'static str {
        "norm_act sums"
    }

    fn cpu(&self, _: [(&CpuStorage, &Layout); 3]) -> Result<(CpuStorage, Shape)> {
        on_gpus_only()
    }

    fn cuda(&self, [x, ab, dy]: [Part<'_>; 3]) -> Result<(CudaStorage, Shape)> {
        self.with_bias(|bias| sdft_cuda::norm_sums(&self.norm, &self.statistics, (x, bias), ab, dy))
    }
}

/// The gradient of `x` from [`Sums`], and with a fifth input the sum with an earlier one.
struct Spread(Sums);

impl Spread {
    fn run(
        &self,
        [x, ab, dy, sums]: [Part<'_>; 4],
        earlier: Option<Part<'_>>,
    ) -> Result<(CudaStorage, Shape)> {
        let Sums {
            norm, statistics, ..
        } = &self.0;
        self.0.with_bias(|bias| {
            sdft_cuda::norm_gradient(norm, statistics, (x, bias), ab, dy, sums, earlier)
        })
    }
}

impl Op<4> for Spread {
    fn name(&self) -> &'static str {
        "norm_act gradient"
    }

    fn cpu(&self, _: [(&CpuStorage, &Layout); 4]) -> Result<(CpuStorage, Shape)> {
        on_gpus_only()
    }

    fn cuda(&self, inputs: [Part<'_>; 4]) -> Result<(CudaStorage, Shape)> {
        self.run(inputs, None)
    }
}

impl Op<5> for Spread {
    fn name(&self) -> &'static str {
        "norm_act gradient"
    }

    fn cpu(&self, _: [(&CpuStorage, &Layout); 5]) -> Result<(CpuStorage, Shape)> {
        on_gpus_only()
    }

    fn cuda(&self, [x, ab, dy, sums, earlier]: [Part<'_>; 5]) -> Result<(CudaStorage, Shape)> {
        self.run([x, ab, dy, sums], Some(earlier))
    }
}

/// A norm of the first input plus a bias, the third.
pub(crate) struct Biased(pub(crate) NormAct);

impl Op<3> for Biased {
    fn name(&self) -> &'static str {
        "norm_act"
    }

    fn cpu(&self, _: [(&CpuStorage, &Layout); 3]) -> Result<(CpuStorage, Shape)> {
        on_gpus_only()
    }

    fn cuda(&self, [x, ab, bias]: [Part<'_>; 3]) -> Result<(CudaStorage, Shape)> {
        let Self(op) = self;
        let (y, shape, statistics) =
            sdft_cuda::norm_forward(&op.on_gpu(), op.eps, (x, Some(bias)), ab)?;
        // The operation is made for one call, so this is empty.
        let _ = op.statistics.set(SavedStatistics::Device(statistics));
        Ok((y, shape))
    }

    fn gradients(
        &self,
        [x, ab, bias]: [&Tensor; 3],
        dy: &Tensor,
        [of_x, of_ab, of_bias]: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let Some(SavedStatistics::Device(statistics)) = self.0.statistics.get() else {
            bail!("norm_act: backward without forward");
        };
        let sums = Sums {
            bias: Some(bias.clone()),
            ..Sums::new(&self.0, statistics)
        };
        let (dx, dab) = sums.gradients([x, ab, &dense(dy)?], of_x || of_bias, None)?;
        let of_bias = match &dx {
            Some(dx) if of_bias => Some(compute(&BiasGradient(bias.elem_count()), [dx])?),
            _ => None,
        };
        Ok([dx.filter(|_| of_x), of_ab.then_some(dab), of_bias])
    }
}
