//! Group normalisation, an affine map and an activation in one operation.

#[cfg(feature = "cuda")]
use super::channels::check_joined;
use super::concat;
use super::dense::dense;
use super::modulate::modulate;
#[cfg(feature = "cuda")]
use super::norm_act_gpu::{Biased, Joined, Sums};
use super::op::{Op, apply, compute};
use super::{add_gradients, check_dtypes, elements, for_element};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{
    CpuStorage, Layout, Result, Shape, Storage, Tensor, WithDType, bail, op::BackpropOp,
};
use sdft_kernels::{Activation, NormShape, Statistics};
use std::sync::OnceLock;

/// Group normalisation with an affine map per image and channel, and optionally SiLU.
///
/// ```text
/// y = act( a · (x - mean) / sqrt(variance + eps) + b )      mean, variance over each group of channels
/// ```
/// # Shapes
/// - `x`: `[B, C, H, W]` or `[B, C, N]` · `a`, `b`: `[B, C]` · returns: the shape of `x`
///
/// # Errors
/// Channels that `groups` does not divide, or shapes or types that do not fit.
pub fn norm_act(
    x: &Tensor,
    a: &Tensor,
    b: &Tensor,
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    norm_act_of(x, &Tensor::stack(&[a, b], 0)?, groups, eps, activation)
}

/// Group normalisation with a learned `weight` and `bias`, an optional scale and shift per image, and optionally SiLU.
///
/// ```text
/// y = act( normalised(x) (1 + scale) + shift ),  normalised with weight and bias      scale, shift = halves of emb
/// ```
/// # Shapes
/// - `x`: `[B, C, H, W]` or `[B, C, N]` · `weight`, `bias`: `[C]` · `emb`: `[B, 2 C]` · returns: the shape of `x`
///
/// # Errors
/// Channels that `groups` does not divide, or shapes or types that do not fit.
pub fn group_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    emb: Option<&Tensor>,
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    let ab = modulate(weight, bias, emb, x.dim(0)?)?;
    norm_act_of(x, &ab, groups, eps, activation)
}

/// [`group_norm`] of `x` + `x_bias`, in the same passes, on a GPU.
///
/// # Shapes
/// - `x_bias`: `[C]` · others as [`group_norm`]
///
/// # Errors
/// As [`group_norm`], and the CPU, where convolutions add their bias without a pass of its own.
pub fn group_norm_biased(
    (x, x_bias): (&Tensor, &Tensor),
    weight: &Tensor,
    bias: &Tensor,
    emb: Option<&Tensor>,
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        check_dtypes("norm_act", x, &[x_bias])?;
        if x_bias.dims() != [x.dim(1)?] {
            bail!(
                "norm_act: input {:?} and its bias {:?} do not fit",
                x.shape(),
                x_bias.shape()
            );
        }
        let ab = modulate(weight, bias, emb, x.dim(0)?)?;
        let op = NormAct::new(x, x.dims(), &ab, groups, eps, activation)?;
        let inputs = [&dense(x)?, &ab.contiguous()?, &x_bias.contiguous()?];
        return apply(Biased(op), inputs);
    }
    let _ = (x_bias, weight, bias, emb, groups, eps, activation);
    bail!(
        "norm_act with a bias before it: expected a tensor on a GPU, found {:?}",
        x.shape()
    )
}

/// [`group_norm`] of the channels of `a` and, after them, those of `b`. A GPU reads both where they are, without joining them.
///
/// # Shapes
/// - `a`: `[B, C_a, H, W]` · `b`: `[B, C_b, H, W]` · `weight`, `bias`: `[C_a + C_b]` · returns: `[B, C_a + C_b, H, W]`
///
/// # Errors
/// As [`group_norm`] and [`concat()`].
pub fn group_norm_joined(
    [a, b]: [&Tensor; 2],
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if a.device().is_cuda() {
        let (batch, c, h, w) = check_joined("norm_act", a, b)?;
        let ab = modulate(weight, bias, None, batch)?;
        let op = NormAct::new(a, &[batch, c, h, w], &ab, groups, eps, activation)?;
        return apply(Joined(op), [&dense(a)?, &dense(b)?, &ab.contiguous()?]);
    }
    let x = concat(a, b)?;
    group_norm(&x, weight, bias, None, groups, eps, activation)
}

/// As [`norm_act`], with `a` and `b` in one tensor `[2, B, C]`.
fn norm_act_of(
    x: &Tensor,
    ab: &Tensor,
    groups: usize,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    let op = NormAct::new(x, x.dims(), ab, groups, eps, activation)?;
    apply(op, [&dense(x)?, &ab.contiguous()?])
}

pub(crate) struct NormAct {
    shape: NormShape,
    eps: f64,
    activation: Activation,
    /// Saved by the forward pass for the backward pass.
    pub(crate) statistics: OnceLock<SavedStatistics>,
}

/// Means and reciprocal standard deviations, where they were computed.
#[derive(Clone)]
pub(crate) enum SavedStatistics {
    Host(Statistics),
    #[cfg(feature = "cuda")]
    Device(sdft_cuda::Statistics),
}

impl NormAct {
    /// The norm of an input of this shape, of the type of `x`.
    fn new(
        x: &Tensor,
        dims: &[usize],
        ab: &Tensor,
        groups: usize,
        eps: f64,
        activation: Activation,
    ) -> Result<Self> {
        check_dtypes("norm_act", x, &[ab])?;
        if dims.len() < 2
            || dims[1..].contains(&0)
            || groups == 0
            || !dims[1].is_multiple_of(groups)
            || ab.dims() != [2, dims[0], dims[1]]
        {
            bail!(
                "norm_act: input {dims:?} and scale and shift {:?} do not fit {groups} groups",
                ab.shape(),
            );
        }
        let shape = NormShape {
            channels: dims[1],
            plane: dims[2..].iter().product(),
            groups,
        };
        Ok(Self {
            shape,
            eps,
            activation,
            statistics: OnceLock::new(),
        })
    }
}

impl Op<2> for NormAct {
    fn name(&self) -> &'static str {
        "norm_act"
    }

    fn cpu(&self, [x, ab]: [(&CpuStorage, &Layout); 2]) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape().clone();
        for_element!(self.name(), x.0, E, R => {
            let ab = elements::<R>(self.name(), ab)?;
            let (a, b) = ab.split_at(ab.len() / 2);
            let x = elements(self.name(), x)?;
            let (y, statistics) = sdft_kernels::norm_act::<E>(&self.shape, x, [a, b], self.eps, self.activation);
            // The operation is made for one call, so this is empty.
            let _ = self.statistics.set(SavedStatistics::Host(statistics));
            Ok((E::to_cpu_storage_owned(y), shape))
        })
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x, ab]: [(&CudaStorage, &Layout); 2]) -> Result<(CudaStorage, Shape)> {
        let input = sdft_cuda::NormInput {
            x,
            more: None,
            bias: None,
        };
        self.forward_gpu(input, ab)
    }

    fn gradients(
        &self,
        inputs: [&Tensor; 2],
        dy: &Tensor,
        wanted: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        self.add_gradients(inputs, dy, wanted, [None, None])
    }

    fn add_gradients(
        &self,
        [x, ab]: [&Tensor; 2],
        dy: &Tensor,
        wanted: [bool; 2],
        [earlier, earlier_dab]: [Option<Tensor>; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        let dy = &dense(dy)?;
        let (dx, dab) = match self.statistics.get() {
            None => bail!("norm_act: backward without forward"),
            Some(SavedStatistics::Host(statistics)) => {
                let gradient = Gradient {
                    shape: self.shape,
                    activation: self.activation,
                    statistics: statistics.clone(),
                    dab: OnceLock::new(),
                };
                let dx = match earlier {
                    Some(earlier) => compute(&gradient, [x, ab, dy, &dense(&earlier)?])?,
                    None => compute(&gradient, [x, ab, dy])?,
                };
                let Some(dab) = gradient.dab.into_inner() else {
                    bail!("norm_act: a gradient without that of its parameters");
                };
                let storage = Storage::Cpu(dab);
                let dab = Tensor::from_storage(storage, ab.shape(), BackpropOp::none(), false);
                (dx, dab)
            }
            #[cfg(feature = "cuda")]
            Some(SavedStatistics::Device(statistics)) => {
                let sums = Sums::new(self, statistics);
                let ([dx, _], dab) = sums.gradients([x, ab, dy], wanted[0], [earlier, None])?;
                (dx.unwrap_or_else(|| x.clone()), dab)
            }
        };
        let dab = match earlier_dab {
            Some(earlier) => add_gradients(&earlier, &dab)?,
            None => dab,
        };
        Ok([wanted[0].then_some(dx), wanted[1].then_some(dab)])
    }
}

#[cfg(feature = "cuda")]
impl NormAct {
    /// The result of any input, of which the statistics are saved.
    pub(crate) fn forward_gpu(
        &self,
        input: sdft_cuda::NormInput<'_>,
        ab: (&CudaStorage, &Layout),
    ) -> Result<(CudaStorage, Shape)> {
        let (y, shape, statistics) = sdft_cuda::norm_forward(&self.on_gpu(), self.eps, input, ab)?;
        // The operation is made for one call, so this is empty.
        let _ = self.statistics.set(SavedStatistics::Device(statistics));
        Ok((y, shape))
    }

    pub(crate) fn on_gpu(&self) -> sdft_cuda::Norm {
        sdft_cuda::Norm {
            groups: self.shape.groups,
            silu: self.activation == Activation::Silu,
        }
    }
}

/// The gradient of `x`, and that plus an earlier one.
struct Gradient {
    shape: NormShape,
    activation: Activation,
    statistics: Statistics,
    /// The gradient of `a` and `b`, computed with it.
    dab: OnceLock<CpuStorage>,
}

impl Gradient {
    const NAME: &str = "norm_act gradient";

    fn on_cpu(
        &self,
        [x, ab, dy]: [(&CpuStorage, &Layout); 3],
        earlier: Option<(&CpuStorage, &Layout)>,
    ) -> Result<(CpuStorage, Shape)> {
        let shape = x.1.shape().clone();
        for_element!(Self::NAME, x.0, E, R => {
            let ab = elements::<R>(Self::NAME, ab)?;
            let (a, b) = ab.split_at(ab.len() / 2);
            let earlier = earlier.map(|earlier| elements(Self::NAME, earlier)).transpose()?;
            let (dx, dab) = sdft_kernels::norm_act_gradient::<E>(
                &self.shape,
                elements(Self::NAME, x)?,
                [a, b],
                &self.statistics,
                self.activation,
                elements(Self::NAME, dy)?,
                earlier,
            );
            // The operation is made for one call, so this is empty.
            let _ = self.dab.set(R::to_cpu_storage_owned(dab));
            Ok((E::to_cpu_storage_owned(dx), shape))
        })
    }
}

impl Op<3> for Gradient {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn cpu(&self, inputs: [(&CpuStorage, &Layout); 3]) -> Result<(CpuStorage, Shape)> {
        self.on_cpu(inputs, None)
    }

    fn reads_bf16(&self) -> bool {
        true
    }
}

impl Op<4> for Gradient {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn cpu(
        &self,
        [x, ab, dy, earlier]: [(&CpuStorage, &Layout); 4],
    ) -> Result<(CpuStorage, Shape)> {
        self.on_cpu([x, ab, dy], Some(earlier))
    }

    fn reads_bf16(&self) -> bool {
        true
    }
}
