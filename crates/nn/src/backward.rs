//! The backward pass, with the gradients of parameters kept out of candle's sums.

use crate::ops::add_gradients;
use candle_core::{Result, Tensor, TensorId, backprop::GradStore};
use std::cell::RefCell;
use std::collections::HashMap;

type Kept = HashMap<TensorId, Tensor>;

thread_local! {
    /// One collection for each backward pass under way on this thread.
    static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
}

/// The gradients of `loss`, as [`Tensor::backward`] gives them.
///
/// candle adds every gradient to a tensor of zeros; the operations of this crate hand those of parameters over directly, which saves
/// four passes over each of them. Needed where a network is recorded ([`crate::taped`]): what it kept is given back on the way, so a
/// second pass through the same values is an error.
///
/// The pass belongs to the thread that calls it.
///
/// # Errors
/// When an operation has no gradient or fails.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    let (mut grads, kept) = collect(loss)?;
    for (id, grad) in kept {
        let total = match grads.get_id(id) {
            Some(other) => add_gradients(other, &grad)?,
            None => grad,
        };
        grads.insert_id(id, total);
    }
    Ok(grads)
}

/// A pass under way; it is over when this goes, however that comes.
struct Pass;

impl Pass {
    fn begin() -> Self {
        KEPT.with_borrow_mut(|all| all.push(Kept::new()));
        Self
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        KEPT.with_borrow_mut(Vec::pop);
    }
}

/// candle's gradients, and those that operations kept.
fn collect(loss: &Tensor) -> Result<(GradStore, Kept)> {
    let pass = Pass::begin();
    let grads = loss.backward()?;
    let kept = KEPT.with_borrow_mut(|all| all.last_mut().map(std::mem::take));
    drop(pass);
    Ok((grads, kept.unwrap_or_default()))
}

/// Takes the gradient of a parameter on the way; it comes back where the tensor is no parameter, or nobody collects.
pub(crate) fn keep(parameter: &Tensor, grad: Tensor) -> Result<Option<Tensor>> {
    if parameter.is_variable() {
        hand_over(parameter.id(), grad)
    } else {
        Ok(Some(grad))
    }
}

/// Whether [`backward`] is under way on this thread.
pub(crate) fn is_collecting() -> bool {
    KEPT.with_borrow(|all| !all.is_empty())
}

/// Takes the gradient of a parameter where somebody collects; else it comes back.
pub(crate) fn hand_over(id: TensorId, grad: Tensor) -> Result<Option<Tensor>> {
    KEPT.with_borrow_mut(|all| {
        let Some(kept) = all.last_mut() else {
            return Ok(Some(grad));
        };
        let total = match kept.remove(&id) {
            Some(other) => add_gradients(&other, &grad)?,
            None => grad,
        };
        kept.insert(id, total);
        Ok(None)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv2d;
    use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Var};

    fn numbers(shape: &[usize], factor: f64) -> Var {
        let n = shape.iter().product::<usize>() as f64;
        let values = Tensor::arange(0.0, n, &Device::Cpu).unwrap();
        let values = (values * factor).unwrap().sin().unwrap();
        Var::from_tensor(&values.reshape(shape).unwrap()).unwrap()
    }

    #[test]
    fn parameters_used_twice_and_by_other_operations_get_the_sum() {
        let (x, w, b) = (
            numbers(&[1, 2, 4, 4], 0.3),
            numbers(&[2, 2, 3, 3], 0.7),
            numbers(&[2], 0.9),
        );
        let y = conv2d(&conv2d(&x, &w, &b, 1, [1; 2]).unwrap(), &w, &b, 1, [1; 2]).unwrap();
        let loss =
            (y.sqr().unwrap().sum_all().unwrap() + w.sqr().unwrap().sum_all().unwrap()).unwrap();
        let (ours, candles) = (backward(&loss).unwrap(), loss.backward().unwrap());
        for var in [&x, &w, &b] {
            let (a, b) = (ours.get(var).unwrap(), candles.get(var).unwrap());
            let error = (a - b).unwrap().abs().unwrap().max_all().unwrap();
            let error = error.to_scalar::<f64>().unwrap();
            assert!(error <= 1e-12, "{error:e}");
        }
        KEPT.with_borrow(|all| assert!(all.is_empty()));
    }

    struct WithoutGradient;

    impl CustomOp1 for WithoutGradient {
        fn name(&self) -> &'static str {
            "without gradient"
        }

        fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
            Ok((CpuStorage::F64(vec![0.0]), Shape::from(())))
        }
    }

    #[test]
    fn a_failed_pass_leaves_nothing_behind() {
        let x = numbers(&[4], 0.1);
        let failed = backward(&x.apply_op1(WithoutGradient).unwrap());
        assert!(failed.is_err());
        KEPT.with_borrow(|all| assert!(all.is_empty()));
        let grads = backward(&x.sum_all().unwrap()).unwrap();
        assert_eq!(grads.get(&x).unwrap().to_vec1::<f64>().unwrap(), [1.0; 4]);
    }
}
