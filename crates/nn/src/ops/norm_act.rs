use super::Input::{self, Shared};
use super::{elements, for_float, same_float};
use crate::backward::done_with;
use crate::kernels::Real;
use crate::kernels::norm::{self, Activation, NormShape, Statistics};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::sync::OnceLock;

/// Group normalisation, an affine map per image and channel, and optionally SiLU, in one operation.
///
/// ```text
/// y = act( a · (x - mean) / sqrt(variance + eps) + b )      mean, variance over each group of channels
/// ```
/// The learned scale and shift of ADM's residual block fold into `a` and `b`.
///
/// # Shapes
/// - `x`: `[B, C, H, W]` or `[B, C, N]` · `a`, `b`: `[B, C]` · returns: the shape of `x`
///
/// # Errors
/// Channels that the number of groups does not divide, shapes that do not fit, a type other than f32 or f64.
pub fn norm_act(
    x: &Tensor,
    a: &Tensor,
    b: &Tensor,
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    norm_act_of(Shared(x), a, b, groups, eps, activation)
}

/// As [`norm_act`], with a say on whose the input is.
pub(crate) fn norm_act_of(
    input: Input<'_>,
    a: &Tensor,
    b: &Tensor,
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    let x = input.tensor();
    same_float("norm_act", &[x, a, b])?;
    let dims = x.dims();
    if dims.len() < 2
        || dims[1..].contains(&0)
        || groups == 0
        || !dims[1].is_multiple_of(groups)
        || a.dims() != &dims[..2]
        || b.dims() != &dims[..2]
    {
        bail!(
            "norm_act: input {:?}, scale {:?} and shift {:?} do not fit {groups} groups",
            x.shape(),
            a.shape(),
            b.shape()
        );
    }
    let shape = NormShape {
        channels: dims[1],
        plane: dims[2..].iter().product(),
        groups,
    };
    let op = NormAct {
        shape,
        eps,
        activation,
        statistics: OnceLock::new(),
        only_here: input.is_only_here(),
    };
    x.contiguous()?
        .apply_op3(&a.contiguous()?, &b.contiguous()?, op)
}

struct NormAct {
    shape: NormShape,
    eps: f64,
    activation: Activation,
    /// Left by the forward pass for the backward pass.
    statistics: OnceLock<Statistics>,
    /// No other operation reads the input.
    only_here: bool,
}

impl CustomOp3 for NormAct {
    fn name(&self) -> &'static str {
        "norm_act"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_float!(self.name(), x, T => {
            let (y, statistics) = norm::forward::<T>(
                &self.shape,
                elements(self.name(), x, x_layout)?,
                elements(self.name(), a, a_layout)?,
                elements(self.name(), b, b_layout)?,
                self.eps,
                self.activation,
            );
            // The operation is made for one call, so nothing was there before.
            let _ = self.statistics.set(statistics);
            Ok((T::storage(y), x_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(statistics) = self.statistics.get() else {
            bail!("norm_act: backward without forward");
        };
        let all = x.apply_op3_no_bwd(
            &stack(a, b)?,
            &dy.contiguous()?,
            &Gradient {
                of: self,
                statistics,
            },
        )?;
        if self.only_here {
            done_with(x)?;
        }
        let (nx, na) = (x.elem_count(), a.elem_count());
        // Frozen parameters collect nothing.
        let part = |of: &Tensor, start: usize, len: usize| {
            of.track_op()
                .then(|| all.narrow(0, start, len)?.reshape(of.shape()))
                .transpose()
        };
        Ok((part(x, 0, nx)?, part(a, nx, na)?, part(b, nx + na, na)?))
    }
}

fn stack(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Tensor::stack(&[a, b], 0)?.detach().contiguous()
}

/// Gradients of `x`, `a` and `b`, one after the other in one flat tensor.
struct Gradient<'a> {
    of: &'a NormAct,
    statistics: &'a Statistics,
}

impl CustomOp3 for Gradient<'_> {
    fn name(&self) -> &'static str {
        "norm_act gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        ab: &CpuStorage,
        ab_layout: &Layout,
        dy: &CpuStorage,
        dy_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        for_float!(self.name(), x, T => {
            let ab = elements::<T>(self.name(), ab, ab_layout)?;
            let (a, b) = ab.split_at(ab.len() / 2);
            let all = norm::backward::<T>(
                &self.of.shape,
                elements(self.name(), x, x_layout)?,
                a,
                b,
                self.statistics,
                self.of.activation,
                elements(self.name(), dy, dy_layout)?,
            );
            let len = all.len();
            Ok((T::storage(all), len.into()))
        })
    }
}
