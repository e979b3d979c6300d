//! The backward pass, which takes the gradients of parameters past candle's sums.

use crate::ops::add_gradients;
use candle_core::{Result, Tensor, TensorId, backprop::GradStore};
use std::cell::RefCell;
use std::collections::HashMap;

type Gradients = HashMap<TensorId, Tensor>;

thread_local! {
    /// One collection for each running backward pass of this thread.
    static COLLECTED: RefCell<Vec<Gradients>> = const { RefCell::new(Vec::new()) };
}

/// The gradients of the scalar `loss` with respect to all variables it depends on, like [`Tensor::backward`].
///
/// Call this instead of [`Tensor::backward`] where a network is [`crate::taped`]; for other graphs the results are the same. candle adds
/// every gradient to a tensor of zeros; here the operations of this crate pass those of parameters on directly, which saves four passes
/// over each. A tape is consumed, so a second pass over the same values is an error.
///
/// # Errors
/// An operation without a gradient, or one that fails.
pub fn backward(loss: &Tensor) -> Result<GradStore> {
    let (mut grads, collected) = collect(loss)?;
    for (id, grad) in collected {
        let total = match grads.get_id(id) {
            Some(other) => add_gradients(other, &grad)?,
            None => grad,
        };
        grads.insert_id(id, total);
    }
    Ok(grads)
}

/// A running pass; dropping it ends it, also after an error or a panic.
struct Pass;

impl Pass {
    fn begin() -> Self {
        COLLECTED.with_borrow_mut(|all| all.push(Gradients::new()));
        Self
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        COLLECTED.with_borrow_mut(Vec::pop);
    }
}

/// candle's gradients, and those that operations passed on directly.
fn collect(loss: &Tensor) -> Result<(GradStore, Gradients)> {
    let pass = Pass::begin();
    let grads = loss.backward()?;
    let collected = COLLECTED.with_borrow_mut(|all| all.last_mut().map(std::mem::take));
    drop(pass);
    Ok((grads, collected.unwrap_or_default()))
}

/// Takes the gradient of a parameter; returns it if the tensor is no parameter, or outside [`backward`].
pub(crate) fn collect_gradient(x: &Tensor, grad: Tensor) -> Result<Option<Tensor>> {
    if x.is_variable() {
        accumulate(x.id(), grad)
    } else {
        Ok(Some(grad))
    }
}

/// Whether [`backward`] runs on this thread.
pub(crate) fn is_collecting() -> bool {
    COLLECTED.with_borrow(|all| !all.is_empty())
}

/// Adds to the gradient of a parameter; returns it unchanged outside [`backward`].
pub(crate) fn accumulate(id: TensorId, grad: Tensor) -> Result<Option<Tensor>> {
    COLLECTED.with_borrow_mut(|all| {
        let Some(collected) = all.last_mut() else {
            return Ok(Some(grad));
        };
        let total = match collected.remove(&id) {
            Some(other) => add_gradients(&other, &grad)?,
            None => grad,
        };
        collected.insert(id, total);
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
        COLLECTED.with_borrow(|all| assert!(all.is_empty()));
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
        COLLECTED.with_borrow(|all| assert!(all.is_empty()));
        let grads = backward(&x.sum_all().unwrap()).unwrap();
        assert_eq!(grads.get(&x).unwrap().to_vec1::<f64>().unwrap(), [1.0; 4]);
    }
}
