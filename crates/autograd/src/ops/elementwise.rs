//! Sums and activations, element by element.

use super::dense::dense;
use super::op::{Op, apply, compute};
use super::{check_dtypes, check_same, elements, for_element};
use candle_core::{CpuStorage, Layout, Result, Shape, Tensor, WithDType, bail};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, backend::BackendStorage};

/// `a + b` for tensors of the same shape.
///
/// Runs on the same thread pool as the other operations. candle's elementwise kernels have threads of their own, which spin while
/// they wait.
///
/// # Errors
/// Different shapes or types.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    check_same("add", a, b)?;
    apply(Pair::Add, [&dense(a)?, &dense(b)?])
}

/// `factor (a + b)` for tensors of the same shape.
///
/// # Errors
/// Different shapes or types.
pub fn add_scaled(a: &Tensor, b: &Tensor, factor: f64) -> Result<Tensor> {
    check_same("add_scaled", a, b)?;
    apply(AddScaled(factor), [&dense(a)?, &dense(b)?])
}

/// `a + b`, which is not recorded. On a GPU, gradients of parameters keep the memory order of PyTorch.
///
/// # Errors
/// Different shapes or types.
pub(crate) fn add_gradients(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    check_same("add", a, b)?;
    if a.device().is_cuda() && a.is_contiguous() && b.is_contiguous() {
        let sum = compute(&Pair::Add, [&a.flatten_all()?, &b.flatten_all()?])?;
        return sum.reshape(a.shape());
    }
    compute(&Pair::Add, [&dense(a)?, &dense(b)?])
}

/// `x * scale + offset` with two constants.
///
/// # Errors
/// A type that is not floating-point.
pub fn affine(x: &Tensor, scale: f64, offset: f64) -> Result<Tensor> {
    check_dtypes("affine", x, &[])?;
    apply(Affine { scale, offset }, [&dense(x)?])
}

/// `x * factors` for constant factors of the same shape, which get no gradient; f32 where `x` is half precision.
///
/// # Errors
/// Different shapes or types.
pub(super) fn mask(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    check_dtypes("mask", x, &[factors])?;
    if x.shape() != factors.shape() {
        bail!(
            "mask: {:?} and {:?} have different shapes",
            x.shape(),
            factors.shape()
        );
    }
    apply(Pair::Mask, [&dense(x)?, &dense(factors)?])
}

/// `x * sigmoid(x)`.
///
/// # Errors
/// A type that is not floating-point.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    check_dtypes("silu", x, &[])?;
    apply(Curve::Silu, [&dense(x)?])
}

/// `max(x, 0)`; its gradient at 0 is 0.
///
/// # Shapes
/// - returns the shape of `x`
///
/// # Errors
/// A type that is not floating-point.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    check_dtypes("relu", x, &[])?;
    apply(Curve::Relu, [&dense(x)?])
}

/// GELU by its approximation with tanh, PyTorch's `gelu(approximate="tanh")`.
///
/// # Shapes
/// - returns the shape of `x`
///
/// # Errors
/// A type that is not floating-point.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    check_dtypes("gelu", x, &[])?;
    apply(Curve::Gelu, [&dense(x)?])
}

/// Two tensors, element by element.
#[derive(Clone, Copy)]
enum Pair {
    Add,
    Mask,
    SiluGradient,
    ReluGradient,
    GeluGradient,
}

impl Op<2> for Pair {
    fn name(&self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Mask => "mask",
            Self::SiluGradient => "silu gradient",
            Self::ReluGradient => "relu gradient",
            Self::GeluGradient => "gelu gradient",
        }
    }

    fn cpu(&self, [a, b]: [(&CpuStorage, &Layout); 2]) -> Result<(CpuStorage, Shape)> {
        for_element!(self.name(), a.0, E, _R => {
            let shape = a.1.shape().clone();
            let (a, b) = (elements::<E>(self.name(), a)?, elements::<E>(self.name(), b)?);
            let y = match self {
                Self::Add => sdft_kernels::add(a, b),
                Self::Mask => sdft_kernels::mul(a, b),
                Self::SiluGradient => sdft_kernels::silu_gradient(a, b),
                Self::ReluGradient => sdft_kernels::relu_gradient(a, b),
                Self::GeluGradient => sdft_kernels::gelu_gradient(a, b),
            };
            Ok((E::to_cpu_storage_owned(y), shape))
        })
    }

    fn reads_bf16(&self) -> bool {
        // The factors of a mask are f32.
        !matches!(self, Self::Mask)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [a, b]: [(&CudaStorage, &Layout); 2]) -> Result<(CudaStorage, Shape)> {
        let kernel = match self {
            Self::Add => "add",
            Self::Mask => "mul",
            Self::SiluGradient => "silu_grad",
            Self::ReluGradient => "relu_grad",
            Self::GeluGradient => "gelu_grad",
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
            Self::Mask => Ok([Some(compute(&Self::Mask, [&dense(dy)?, factors])?), None]),
            _ => bail!("{}: second derivatives are not built", self.name()),
        }
    }

    fn saved(&self, _: [bool; 2]) -> [bool; 2] {
        // The gradient of a mask needs its factors only.
        [false, matches!(self, Self::Mask)]
    }
}

/// A sum times a factor.
struct AddScaled(f64);

impl Op<2> for AddScaled {
    fn name(&self) -> &'static str {
        "add_scaled"
    }

    fn cpu(&self, [a, b]: [(&CpuStorage, &Layout); 2]) -> Result<(CpuStorage, Shape)> {
        for_element!(self.name(), a.0, E, _R => {
            let shape = a.1.shape().clone();
            let (a, b) = (elements::<E>(self.name(), a)?, elements::<E>(self.name(), b)?);
            Ok((E::to_cpu_storage_owned(sdft_kernels::add_scaled(a, b, self.0)), shape))
        })
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [a, b]: [(&CudaStorage, &Layout); 2]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::add_scaled(a, b, self.0)
    }

    fn gradients(&self, _: [&Tensor; 2], dy: &Tensor, _: [bool; 2]) -> Result<[Option<Tensor>; 2]> {
        let gradient = compute(&Scale(self.0), [&dense(dy)?])?;
        Ok([Some(gradient.clone()), Some(gradient)])
    }

    fn saved(&self, _: [bool; 2]) -> [bool; 2] {
        [false; 2]
    }
}

/// A tensor times a factor.
struct Scale(f64);

impl Op<1> for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn cpu(&self, [x]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        for_element!(self.name(), x.0, E, _R => {
            let shape = x.1.shape().clone();
            let x = elements::<E>(self.name(), x)?;
            Ok((E::to_cpu_storage_owned(sdft_kernels::scale(x, self.0)), shape))
        })
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [x]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        sdft_cuda::scale(x, self.0)
    }
}

/// One tensor, element by element.
#[derive(Clone, Copy)]
enum Curve {
    Silu,
    Relu,
    Gelu,
}

impl Op<1> for Curve {
    fn name(&self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::Relu => "relu",
            Self::Gelu => "gelu",
        }
    }

    fn cpu(&self, [x]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        for_element!(self.name(), x.0, E, _R => {
            let shape = x.1.shape().clone();
            let x = elements::<E>(self.name(), x)?;
            let y = match self {
                Self::Silu => sdft_kernels::silu(x),
                Self::Relu => sdft_kernels::relu(x),
                Self::Gelu => sdft_kernels::gelu(x),
            };
            Ok((E::to_cpu_storage_owned(y), shape))
        })
    }

    fn reads_bf16(&self) -> bool {
        true
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
            Self::Gelu => Pair::GeluGradient,
        };
        Ok([Some(compute(&op, [x, &dense(dy)?])?)])
    }
}

struct Affine {
    scale: f64,
    offset: f64,
}

impl Op<1> for Affine {
    fn name(&self) -> &'static str {
        "affine"
    }

    fn cpu(&self, [x]: [(&CpuStorage, &Layout); 1]) -> Result<(CpuStorage, Shape)> {
        for_element!(self.name(), x.0, E, _R => {
            let shape = x.1.shape().clone();
            let x = elements::<E>(self.name(), x)?;
            Ok((E::to_cpu_storage_owned(sdft_kernels::affine(x, self.scale, self.offset)), shape))
        })
    }

    fn reads_bf16(&self) -> bool {
        true
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, [(x, layout)]: [(&CudaStorage, &Layout); 1]) -> Result<(CudaStorage, Shape)> {
        // In memory order: candle's kernel writes the elements in the order of the layout.
        let shape: Shape = match *layout.dims() {
            [b, c, h, w] => (b, h, w, c).into(),
            [b, c, n] => (b, n, c).into(),
            _ => layout.shape().clone(),
        };
        let memory = Layout::contiguous_with_offset(&shape, layout.start_offset());
        Ok((x.affine(&memory, self.scale, self.offset)?, shape))
    }

    fn gradients(&self, _: [&Tensor; 1], dy: &Tensor, _: [bool; 1]) -> Result<[Option<Tensor>; 1]> {
        let scale = Self {
            scale: self.scale,
            offset: 0.0,
        };
        Ok([Some(compute(&scale, [&dense(dy)?])?)])
    }

    fn saved(&self, _: [bool; 1]) -> [bool; 1] {
        [false]
    }
}
