//! How one parameter of a network follows from an adapter's tensors.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};

/// A change of a parameter `W`. `T` is the adapter's tensors, or their names.
#[derive(Clone, Debug)]
pub(crate) enum Change<T> {
    /// The tensor takes the place of `W`.
    Whole(T),
    /// `W + s B A`, where rows of `W` are its outputs. `a` has the shape of `W` with the rank as its outputs, `b` that of a 1x1 convolution.
    LowRank { a: T, b: T },
    /// `gamma W` for each output, or gamma times another tensor in the place of `W`.
    Scaled { gamma: T, own: Option<T> },
}

impl<T> Change<T> {
    /// The same change of other tensors.
    pub(crate) fn map<U, E>(
        &self,
        f: impl Fn(&T) -> std::result::Result<U, E>,
    ) -> std::result::Result<Change<U>, E> {
        Ok(match self {
            Self::Whole(tensor) => Change::Whole(f(tensor)?),
            Self::LowRank { a, b } => Change::LowRank { a: f(a)?, b: f(b)? },
            Self::Scaled { gamma, own } => Change::Scaled {
                gamma: f(gamma)?,
                own: own.as_ref().map(f).transpose()?,
            },
        })
    }
}

impl Change<Tensor> {
    /// The changed parameter. `scale` is the factor of a low-rank change.
    pub(crate) fn value(&self, base: &Tensor, scale: f64) -> Result<Tensor> {
        match self {
            Self::Whole(tensor) => Ok(tensor.clone()),
            Self::LowRank { a, b } => base + product(a, b, scale)?.reshape(base.shape())?,
            Self::Scaled { gamma, own } => {
                let value = own.as_ref().unwrap_or(base);
                value.broadcast_mul(&per_output(gamma, value.rank())?)
            }
        }
    }

    /// What the changed parameter differs from `base` by.
    pub(crate) fn difference(&self, base: &Tensor, scale: f64) -> Result<Tensor> {
        match self {
            Self::LowRank { a, b } => product(a, b, scale)?.reshape(base.shape()),
            _ => self.value(base, scale)? - base,
        }
    }

    /// What does not fit between the change and a parameter of this shape: the tensor, the expected and the found shape.
    pub(crate) fn misfit(&self, shape: &[usize]) -> Option<(Vec<usize>, Vec<usize>)> {
        let differs = |tensor: &Tensor, expected: Vec<usize>| {
            (tensor.dims() != expected).then(|| (expected, tensor.dims().to_vec()))
        };
        let outputs = shape.first().copied().unwrap_or(1);
        match self {
            Self::Whole(tensor) => differs(tensor, shape.to_vec()),
            Self::LowRank { a, b } => {
                let rank = a.dims().first().copied().unwrap_or(0);
                let [expected_a, expected_b] = factor_shapes(shape, rank);
                differs(a, expected_a).or_else(|| differs(b, expected_b))
            }
            Self::Scaled { gamma, own } => differs(gamma, vec![outputs]).or_else(|| {
                let own = own.as_ref();
                own.and_then(|own| differs(own, shape.to_vec()))
            }),
        }
    }
}

impl Change<Var> {
    /// Adds the gradients of the adapter's tensors, from the gradient of the changed parameter.
    pub(crate) fn pull_back(
        &self,
        gradient: &Tensor,
        base: &Tensor,
        scale: f64,
        gradients: &mut GradStore,
    ) -> Result<()> {
        match self {
            Self::Whole(var) => add(gradients, var, gradient.clone()),
            Self::LowRank { a, b } => {
                let gradient = matrix(gradient)?;
                let (of_a, of_b) = (matrix(&detached(a))?, matrix(&detached(b))?);
                let da = (of_b.t()?.matmul(&gradient)? * scale)?;
                let db = (gradient.matmul(&of_a.t()?)? * scale)?;
                add(gradients, a, da.reshape(a.shape())?)?;
                add(gradients, b, db.reshape(b.shape())?)
            }
            Self::Scaled { gamma, own } => {
                let value = own.as_ref().map_or_else(|| base.clone(), detached);
                let each = (gradient * &value)?;
                let sums = matrix(&each)?.sum(1)?;
                if let Some(own) = own {
                    let gamma = per_output(&detached(gamma), gradient.rank())?;
                    add(gradients, own, gradient.broadcast_mul(&gamma)?)?;
                }
                add(gradients, gamma, sums)
            }
        }
    }
}

/// The shapes of A and B for a parameter of this shape.
///
/// Source: peft's LoRA layers: A is a convolution of the same kernel to `rank` channels, B a 1x1 convolution.
pub(crate) fn factor_shapes(shape: &[usize], rank: usize) -> [Vec<usize>; 2] {
    let (mut a, mut b) = (shape.to_vec(), vec![1; shape.len()]);
    if let (Some(first), [outputs, inputs, ..]) = (a.first_mut(), &mut b[..]) {
        *first = rank;
        (*outputs, *inputs) = (shape[0], rank);
    }
    [a, b]
}

/// `s B A` as a matrix.
fn product(a: &Tensor, b: &Tensor, scale: f64) -> Result<Tensor> {
    matrix(b)?.matmul(&matrix(a)?)? * scale
}

/// The values of an output as a row.
fn matrix(tensor: &Tensor) -> Result<Tensor> {
    let outputs = tensor.dim(0)?;
    tensor.reshape((outputs, tensor.elem_count() / outputs.max(1)))
}

/// A value for each output, in a shape that multiplies a tensor of `rank` dimensions.
fn per_output(gamma: &Tensor, rank: usize) -> Result<Tensor> {
    let mut shape = vec![1; rank];
    if let Some(first) = shape.first_mut() {
        *first = gamma.elem_count();
    }
    gamma.reshape(shape)
}

pub(crate) fn detached(var: &Var) -> Tensor {
    var.as_tensor().detach()
}

fn add(gradients: &mut GradStore, var: &Var, gradient: Tensor) -> Result<()> {
    let sum = match gradients.get(var) {
        Some(other) => (other + gradient)?,
        None => gradient,
    };
    gradients.insert(var, sum);
    Ok(())
}
