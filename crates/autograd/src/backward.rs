//! The backward pass, which takes the gradients of parameters past candle's sums.

use crate::ops::add_gradients;
use candle_core::{Error, Result, Tensor, TensorId, backprop::GradStore, bail};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

type Gradients = HashMap<TensorId, Tensor>;

thread_local! {
    /// One collection for each running backward pass of this thread.
    static COLLECTED: RefCell<Vec<Collection>> = const { RefCell::new(Vec::new()) };
}

/// What a backward pass has so far.
#[derive(Default)]
struct Collection {
    gradients: Gradients,
    early: Option<Early>,
}

/// How gradients leave a pass before its end.
struct Early {
    pass_on: Rc<dyn Fn(TensorId, Tensor) -> Result<()>>,
    /// Parameters in candle's graph, whose gradients are complete at the end only.
    held: HashSet<TensorId>,
    passed: HashSet<TensorId>,
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
    let pass = Pass::begin(None);
    let mut grads = loss.backward()?;
    for (id, grad) in pass.end().gradients {
        if let Some(total) = total(grads.get_id(id), Some(grad))? {
            grads.insert_id(id, total);
        }
    }
    Ok(grads)
}

/// The gradients of [`backward`], each passed to `f` with its variable's id and `state` as soon as it is complete; returns the state.
///
/// The gradient of a parameter is complete when the operation that used it first has been differentiated, on every tape. So a caller can
/// work with the gradients of the last layers while those of the first are computed. Variables that candle's own graph uses come at the
/// end, as does one parameter of each [`crate::taped`] function without a variable in its input. Variables without a gradient do not come.
///
/// # Errors
/// Those of [`backward`] and of `f`.
pub fn backward_each<S: 'static>(
    loss: &Tensor,
    state: S,
    f: fn(&mut S, TensorId, Tensor) -> Result<()>,
) -> Result<S> {
    let state = Rc::new(RefCell::new(state));
    let shared = Rc::clone(&state);
    let pass_on = Rc::new(move |id, gradient| {
        let mut state = shared.try_borrow_mut().map_err(Error::wrap)?;
        f(&mut state, id, gradient)
    });
    let variables = loss.sorted_nodes().into_iter().filter(|x| x.is_variable());
    let held: HashSet<TensorId> = variables.map(Tensor::id).collect();
    let pass = Pass::begin(Some(Early {
        pass_on: pass_on.clone(),
        held: held.clone(),
        passed: HashSet::new(),
    }));
    let grads = loss.backward()?;
    let mut collected = pass.end();
    for id in collected.early.iter().flat_map(|early| &early.passed) {
        if grads.get_id(*id).is_some() {
            return late();
        }
    }
    for id in held {
        if let Some(grad) = total(grads.get_id(id), collected.gradients.remove(&id))? {
            pass_on(id, grad)?;
        }
    }
    for (id, grad) in collected.gradients {
        pass_on(id, grad)?;
    }
    drop((collected.early, pass_on));
    match Rc::into_inner(state) {
        Some(state) => Ok(state.into_inner()),
        None => bail!("the state of a backward pass is still in use"),
    }
}

/// A running pass; dropping it ends it, also after an error or a panic.
struct Pass;

impl Pass {
    fn begin(early: Option<Early>) -> Self {
        COLLECTED.with_borrow_mut(|all| {
            all.push(Collection {
                early,
                ..Collection::default()
            });
        });
        Self
    }

    fn end(self) -> Collection {
        let collected = COLLECTED.with_borrow_mut(|all| all.last_mut().map(std::mem::take));
        collected.unwrap_or_default()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        COLLECTED.with_borrow_mut(Vec::pop);
    }
}

/// The sum of candle's gradient and of what operations passed on directly.
fn total(candles: Option<&Tensor>, collected: Option<Tensor>) -> Result<Option<Tensor>> {
    match (candles, collected) {
        (Some(candles), Some(collected)) => add_gradients(candles, &collected).map(Some),
        (candles, collected) => Ok(collected.or_else(|| candles.cloned())),
    }
}

fn late<T>() -> Result<T> {
    bail!("a part of a gradient was computed after that had been passed on")
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
        let Some(Collection { gradients, early }) = all.last_mut() else {
            return Ok(Some(grad));
        };
        if early
            .as_ref()
            .is_some_and(|early| early.passed.contains(&id))
        {
            return late();
        }
        let total = match gradients.remove(&id) {
            Some(other) => add_gradients(&other, &grad)?,
            None => grad,
        };
        gradients.insert(id, total);
        Ok(None)
    })
}

/// Passes the gradient of a parameter on, to which no tape adds any more.
pub(crate) fn complete(id: TensorId) -> Result<()> {
    let passed = COLLECTED.with_borrow_mut(|all| {
        let Collection { gradients, early } = all.last_mut()?;
        let early = early.as_mut().filter(|early| !early.held.contains(&id))?;
        let grad = gradients.remove(&id)?;
        early.passed.insert(id);
        Some((Rc::clone(&early.pass_on), grad))
    });
    match passed {
        Some((pass_on, grad)) => pass_on(id, grad),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::{record, record_tape, use_parameters};
    use crate::{conv2d, linear, recompute, taped};
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

    /// What [`backward_each`] passes on, in order, and whether the pass was still running.
    fn passed(loss: &Tensor) -> Vec<(TensorId, Tensor, bool)> {
        backward_each(loss, Vec::new(), |all, id, grad| {
            let is_running = COLLECTED.with_borrow(|all| !all.is_empty());
            all.push((id, grad, is_running));
            Ok(())
        })
        .unwrap()
    }

    /// The places of these variables among the gradients, each of which comes once and is that of [`backward`]; `true` if it came early.
    fn order(loss: impl Fn() -> Tensor, vars: &[&Var]) -> Vec<(usize, bool)> {
        let (each, all) = (passed(&loss()), backward(&loss()).unwrap());
        assert_eq!(each.len(), vars.len());
        let of = |var: &&Var| {
            let place = each.iter().position(|(id, ..)| *id == var.id()).unwrap();
            let (_, grad, is_early) = &each[place];
            let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert_eq!(numbers(grad), numbers(all.get(var).unwrap()));
            (place, *is_early)
        };
        vars.iter().map(of).collect()
    }

    fn layers() -> [Var; 4] {
        [0.3, 0.7, 0.9, 1.1].map(|factor| numbers(&[3, 3], factor))
    }

    fn sum(y: &Tensor) -> Tensor {
        y.sqr().unwrap().sum_all().unwrap()
    }

    #[test]
    fn gradients_come_when_the_first_use_of_a_parameter_has_been_differentiated() {
        let (x, b) = (numbers(&[2, 3], 0.2), numbers(&[3], 0.5).detach());
        let [first, twice, last, outside] = &layers();
        let loss = || {
            let y = taped(&x, |x| {
                let h = linear(&linear(x, first, &b)?, twice, &b)?;
                linear(&linear(&linear(&h, twice, &b)?, last, &b)?, outside, &b)
            });
            (sum(&y.unwrap()) + sum(outside)).unwrap()
        };
        let seen = order(loss, &[last, twice, first, outside, &x]);
        assert_eq!(seen[..3], [(0, true), (1, true), (2, true)]);
        assert!(!seen[3].1 && !seen[4].1);
    }

    /// `f()` on a tape of its own, which is one operation of the tape around it.
    fn inside(f: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        let (y, own) = record_tape([], f)?;
        let id = y.id();
        use_parameters(own.parameters());
        record(&y, move |dy, gradients| {
            let all = own.backward(id, dy.clone(), |_, _| Ok(()))?;
            let mut all = all.into_iter();
            all.try_for_each(|(id, gradient)| gradients.add(id, gradient))
        });
        Ok(y)
    }

    #[test]
    fn parameters_wait_for_a_tape_that_is_an_operation_of_another_one() {
        let (x, b) = (numbers(&[2, 3], 0.2).detach(), numbers(&[3], 0.5).detach());
        let [anchor, other, ..] = &layers();
        let layers = |x: &Tensor| linear(&linear(x, anchor, &b)?, other, &b);
        let own = || sum(&taped(&x, |x| inside(|| layers(x))).unwrap());
        let plain = || sum(&taped(&x, layers).unwrap());
        let both: [&dyn Fn() -> Tensor; 2] = [&|| (own() + plain()).unwrap(), &|| {
            (plain() + own()).unwrap()
        }];
        for loss in both {
            assert_eq!(order(loss, &[other, anchor]), [(0, true), (1, false)]);
        }
    }

    #[test]
    fn parameters_of_several_tapes_wait_for_all_of_them() {
        let (x, b) = (numbers(&[2, 3], 0.2), numbers(&[3], 0.5).detach());
        let [first, both, last, _] = &layers();
        let through = |x: &Tensor, [v, w]: [&Var; 2]| {
            taped(x, |x| linear(&linear(x, v, &b)?, w, &b)).unwrap()
        };
        let loss = || sum(&through(&through(&x, [first, both]), [both, last]));
        let seen = order(loss, &[last, both, first, &x]);
        assert_eq!(seen[..3], [(0, true), (1, true), (2, true)]);
        // One that may still be differentiated, for all that this pass knows.
        let kept = through(&x, [both, both]);
        let seen = order(loss, &[last, first, both, &x]);
        assert!(seen[0].1 && seen[1].1 && !seen[2].1);
        drop(kept);
        assert!(order(loss, &[last, first, both, &x])[2].1);
        // Without a variable in its input a tape is tied to its first parameter.
        let x = x.detach();
        let loss = || sum(&through(&through(&x, [first, both]), [both, last]));
        let seen = order(loss, &[last, both, first]);
        assert_eq!(seen, [(0, true), (1, true), (2, false)]);
    }

    #[test]
    fn recomputed_parameters_come_after_their_block() {
        let (x, b) = (numbers(&[2, 3], 0.2), numbers(&[3], 0.5).detach());
        let [first, inside, again, last] = &layers();
        let loss = || {
            let y = taped(&x, |x| {
                let h = linear(&linear(x, first, &b)?, again, &b)?;
                let [v, w] = [inside, again].map(|var| var.as_tensor().clone());
                let b = b.clone();
                let block = move |h: &[Tensor]| linear(&linear(&h[0], &v, &b)?, &w, &b);
                let h = recompute(&[&h], block)?;
                linear(&h, last, &numbers(&[3], 0.5).detach())
            });
            sum(&y.unwrap())
        };
        let seen = order(loss, &[last, inside, again, first, &x]);
        assert_eq!(seen[..3], [(0, true), (1, true), (2, true)]);
        assert_eq!(seen[3..], [(3, true), (4, false)]);
    }

    #[test]
    fn a_gradient_that_changes_after_it_was_passed_on_is_an_error() {
        let w = numbers(&[3], 0.3);
        let pass = Pass::begin(Some(Early {
            pass_on: Rc::new(|_, _| Ok(())),
            held: HashSet::new(),
            passed: HashSet::new(),
        }));
        for _ in 0..2 {
            assert!(
                accumulate(w.id(), w.as_detached_tensor())
                    .unwrap()
                    .is_none()
            );
        }
        complete(w.id()).unwrap();
        let error = accumulate(w.id(), w.as_detached_tensor()).unwrap_err();
        assert!(error.to_string().contains("passed on"), "{error}");
        assert!(pass.end().gradients.is_empty());
    }

    #[test]
    fn an_error_of_the_receiver_ends_the_pass() {
        let (x, b) = (numbers(&[2, 3], 0.2), numbers(&[3], 0.5).detach());
        let [v, w, ..] = &layers();
        let y = taped(&x, |x| linear(&linear(x, v, &b)?, w, &b)).unwrap();
        let failed = backward_each(&sum(&y), 0, |n, _, _| {
            *n += 1;
            bail!("call {n}")
        });
        assert!(failed.unwrap_err().to_string().contains("call 1"));
        COLLECTED.with_borrow(|all| assert!(all.is_empty()));
    }
}
