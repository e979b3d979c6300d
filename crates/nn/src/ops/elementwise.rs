use super::dense::dense;
use super::op::{Op, eval, run};
use super::{check_same, check_types, elements, for_float};
use crate::kernels::{Real, elementwise};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, bail};

/// `a + b` for tensors of the same shape.
///
/// Its work runs where that of the other operations runs; candle's elementwise kernels bring threads of
/// their own, which wait by spinning.
///
/// # Errors
/// Different shapes or types.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    check_same("add", a, b)?;
    run(Pair::Add, [&dense(a)?, &dense(b)?])
}

/// `a + b` where nothing is recorded. Gradients of parameters keep PyTorch's order on a GPU, too.
///
/// # Errors
/// Different shapes or types.
pub(crate) fn add_gradients(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    check_same("add", a, b)?;
    if a.device().is_cuda() && a.is_contiguous() && b.is_contiguous() {
        let sum = eval(&Pair::Add, [&a.flatten_all()?, &b.flatten_all()?])?;
        return sum.reshape(a.shape());
    }
    eval(&Pair::Add, [&dense(a)?, &dense(b)?])
}

/// `x * factors` for constant factors of the same shape, which get no gradient; they are f32 beside half numbers.
///
/// # Errors
/// Different shapes or types.
pub(crate) fn mask(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    check_types("mask", x, &[factors])?;
    if x.shape() != factors.shape() {
        bail!(
            "mask: {:?} and {:?} have different shapes",
            x.shape(),
            factors.shape()
        );
    }
    run(Pair::Mask, [&dense(x)?, &dense(factors)?])
}

/// `x * sigmoid(x)`.
///
/// # Errors
/// A type that is not floating.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    check_types("silu", x, &[])?;
    run(Curve::Silu, [&dense(x)?])
}

/// `max(x, 0)`, on all threads; its gradient at 0 is 0.
///
/// # Shapes
/// - returns the shape of `x`
///
/// # Errors
/// A type that is not floating.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    check_types("relu", x, &[])?;
    run(Curve::Relu, [&dense(x)?])
}

/// Two tensors, element by element.
#[derive(Clone, Copy)]
enum Pair {
    Add,
    Mask,
    SiluGradient,
    ReluGradient,
}

impl Op<2> for Pair {
    fn name(&self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Mask => "mask",
            Self::SiluGradient => "silu gradient",
            Self::ReluGradient => "relu gradient",
        }
    }

    fn cpu(&self, [a, b]: [(&CpuStorage, &Layout); 2]) -> Result<(CpuStorage, Shape)> {
        for_float!(self.name(), a.0, T => {
            let shape = a.1.shape().clone();
            let (a, b) = (elements::<T>(self.name(), a)?, elements::<T>(self.name(), b)?);
            let y = match self {
                Self::Add => elementwise::add(a, b),
                Self::Mask => elementwise::mul(a, b),
                Self::SiluGradient => elementwise::silu_gradient(a, b),
                Self::ReluGradient => elementwise::relu_gradient(a, b),
            };
            Ok((T::storage(y), shape))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [a, b]: [(&CudaStorage, &Layout); 2]) -> Result<(CudaStorage, Shape)> {
        let kernel = match self {
            Self::Add => "add",
            Self::Mask => "mul",
            Self::SiluGradient => "silu_grad",
            Self::ReluGradient => "relu_grad",
        };
        sdft_cuda::pairwise(kernel, a, b)
    }

    fn gradients(
        &self,
        [_, factors]: [&Tensor; 2],
        dy: &Tensor,
        _: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        match self {
            Self::Add => Ok([Some(dy.clone()), Some(dy.clone())]),
            Self::Mask => Ok([Some(eval(&Self::Mask, [&dense(dy)?, factors])?), None]),
            _ => bail!("{}: second derivatives are not built", self.name()),
        }
    }

    fn reads(&self, _: [bool; 2]) -> [bool; 2] {
        // A mask's factors are read, what it is laid on is not.
        [false, matches!(self, Self::Mask)]
    }
}

/// One tensor, element by element.
#[derive(Clone, Copy)]
enum Curve {
    Silu,
    Relu,
}

impl Op<1> for Curve {
    fn name(&self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::Relu => "relu",
        }
    }

    fn cpu(&self, [x]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        for_float!(self.name(), x.0, T => {
            let shape = x.1.shape().clone();
            let x = elements::<T>(self.name(), x)?;
            let y = match self {
                Self::Silu => elementwise::silu(x),
                Self::Relu => elementwise::relu(x),
            };
            Ok((T::storage(y), shape))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::elementwise(self.name(), x)
    }

    fn gradients(
        &self,
        [x]: [&Tensor; 1],
        dy: &Tensor,
        _: [bool; 1],
    ) -> Result<[Option<Tensor>; 1]> {
        let op = match self {
            Self::Silu => Pair::SiluGradient,
            Self::Relu => Pair::ReluGradient,
        };
        Ok([Some(eval(&op, [x, &dense(dy)?])?)])
    }
}
