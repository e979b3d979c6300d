//! Group normalisation on a GPU: its gradient, the bias of the convolution before it in the same passes, and two maps as one.

use super::conv2d_gradients::BiasGradient;
use super::dense::dense;
use super::norm_act::{NormAct, SavedStatistics};
use super::op::{Op, channels_second, compute, gpu_part, gpu_tensor};
use super::{add_gradients, check_same};
use candle_core::{CpuStorage, CudaStorage, Layout, Result, Shape, Storage, Tensor, bail};
use sdft_cuda::NormInput;
use std::ops::Deref;

type Part<'a> = (&'a CudaStorage, &'a Layout);

fn on_gpus_only() -> Result<(CpuStorage, Shape)> {
    bail!("this part of a norm is computed on a GPU only")
}

/// The gradients of a norm, by way of the gradient of `a` and `b` and sums over each group, one after the other in one flat tensor.
pub(crate) struct Sums {
    norm: sdft_cuda::Norm,
    statistics: sdft_cuda::Statistics,
    /// The channels that follow those of the input.
    more: Option<Tensor>,
    /// What the input still lacks.
    bias: Option<Tensor>,
}

impl Sums {
    pub(crate) fn new(op: &NormAct, statistics: &sdft_cuda::Statistics) -> Self {
        Self {
            norm: op.on_gpu(),
            statistics: statistics.clone(),
            more: None,
            bias: None,
        }
    }

    /// The gradients of `x` and of the channels after it if `wanted`, added to earlier ones, and that of `ab`.
    pub(crate) fn gradients(
        &self,
        [x, ab, dy]: [&Tensor; 3],
        wanted: bool,
        earlier: [Option<Tensor>; 2],
    ) -> Result<([Option<Tensor>; 2], Tensor)> {
        let sums = compute(self, [x, ab, dy])?;
        let dab = sums.narrow(0, 0, ab.elem_count())?.reshape(ab.shape())?;
        let dx = match wanted {
            true => self.spread([x, ab, dy, &sums], earlier)?,
            false => [None, None],
        };
        Ok((dx, dab))
    }

    /// The gradient of each map.
    fn spread(
        &self,
        [x, ab, dy, sums]: [&Tensor; 4],
        earlier: [Option<Tensor>; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        let maps = [Some(x), self.more.as_ref()];
        let mut earlier_maps = [const { None }; 2];
        for ((to, earlier), map) in earlier_maps.iter_mut().zip(earlier).zip(maps) {
            if let (Some(earlier), Some(map)) = (earlier, map) {
                check_same("norm_act gradient", map, &earlier)?;
                *to = Some(dense(&earlier)?);
            }
        }
        let guards = [ab, dy, sums].map(Tensor::storage_and_layout);
        let earlier = earlier_maps
            .each_ref()
            .map(|map| map.as_ref().map(Tensor::storage_and_layout));
        let x_guard = x.storage_and_layout();
        let (dx, dmore) = self.with_input(gpu_part(&x_guard)?, |input| {
            sdft_cuda::norm_gradient(
                &self.norm,
                &self.statistics,
                input,
                gpu_part(&guards[0])?,
                gpu_part(&guards[1])?,
                gpu_part(&guards[2])?,
                [optional(&earlier[0])?, optional(&earlier[1])?],
            )
        })?;
        let map = |(storage, shape)| channels_second(gpu_tensor(storage, shape), true);
        Ok([Some(map(dx)?), dmore.map(map).transpose()?])
    }

    /// Calls `f` with the whole input.
    fn with_input<T>(&self, x: Part<'_>, f: impl FnOnce(NormInput<'_>) -> Result<T>) -> Result<T> {
        let rest = [&self.more, &self.bias];
        let guards = rest.map(|rest| rest.as_ref().map(Tensor::storage_and_layout));
        f(NormInput {
            x,
            more: optional(&guards[0])?,
            bias: optional(&guards[1])?,
        })
    }
}

fn optional<'a, G: Deref<Target = Storage>>(
    guard: &'a Option<(G, &'a Layout)>,
) -> Result<Option<Part<'a>>> {
    guard.as_ref().map(gpu_part).transpose()
}

impl Op<3> for Sums {
    fn name(&self) -> &'static str {
        "norm_act sums"
    }

    fn cpu(&self, _: [(&CpuStorage, &Layout); 3]) -> Result<(CpuStorage, Shape)> {
        on_gpus_only()
    }

    fn cuda(&self, [x, ab, dy]: [Part<'_>; 3]) -> Result<(CudaStorage, Shape)> {
        self.with_input(x, |input| {
            sdft_cuda::norm_sums(&self.norm, &self.statistics, input, ab, dy)
        })
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
        let input = NormInput {
            x,
            more: None,
            bias: Some(bias),
        };
        self.0.forward_gpu(input, ab)
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
        let inputs = [x, ab, &dense(dy)?];
        let ([dx, _], dab) = sums.gradients(inputs, of_x || of_bias, [None, None])?;
        let of_bias = match &dx {
            Some(dx) if of_bias => Some(compute(&BiasGradient(bias.elem_count()), [dx])?),
            _ => None,
        };
        Ok([dx.filter(|_| of_x), of_ab.then_some(dab), of_bias])
    }
}

/// A norm of two maps, the first inputs, whose channels follow one another.
pub(crate) struct Joined(pub(crate) NormAct);

impl Op<3> for Joined {
    fn name(&self) -> &'static str {
        "norm_act"
    }

    fn cpu(&self, _: [(&CpuStorage, &Layout); 3]) -> Result<(CpuStorage, Shape)> {
        on_gpus_only()
    }

    fn cuda(&self, [x, more, ab]: [Part<'_>; 3]) -> Result<(CudaStorage, Shape)> {
        let input = NormInput {
            x,
            more: Some(more),
            bias: None,
        };
        self.0.forward_gpu(input, ab)
    }

    fn gradients(
        &self,
        inputs: [&Tensor; 3],
        dy: &Tensor,
        wanted: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        self.add_gradients(inputs, dy, wanted, [const { None }; 3])
    }

    fn add_gradients(
        &self,
        [x, more, ab]: [&Tensor; 3],
        dy: &Tensor,
        [of_x, of_more, of_ab]: [bool; 3],
        [earlier, earlier_more, earlier_dab]: [Option<Tensor>; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let Some(SavedStatistics::Device(statistics)) = self.0.statistics.get() else {
            bail!("norm_act: backward without forward");
        };
        let sums = Sums {
            more: Some(more.clone()),
            ..Sums::new(&self.0, statistics)
        };
        let inputs = [x, ab, &dense(dy)?];
        let ([dx, dmore], dab) =
            sums.gradients(inputs, of_x || of_more, [earlier, earlier_more])?;
        let dab = match earlier_dab {
            Some(earlier) => add_gradients(&earlier, &dab)?,
            None => dab,
        };
        Ok([
            dx.filter(|_| of_x),
            dmore.filter(|_| of_more),
            of_ab.then_some(dab),
        ])
    }
}
