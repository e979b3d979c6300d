//! A record of what operations did, walked backwards.
//!
//! candle adds every gradient to a tensor of zeros and keeps every value until the pass is over. On a tape the first gradient of a
//! value is taken as it comes, and what an operation kept for its gradient goes as soon as that has been computed. A whole network
//! on a tape is one operation of candle's graph.

use crate::backward::{hand_over, is_collecting};
use crate::ops::add_gradients;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, TensorId,
    backend::BackendStorage, bail,
};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

/// From the gradient of a result to those of the inputs that want one.
type Back = Box<dyn FnOnce(&Tensor) -> Result<Vec<(TensorId, Tensor)>> + Send>;

struct Entry {
    output: TensorId,
    back: Back,
}

#[derive(Default)]
pub(crate) struct Tape {
    entries: Vec<Entry>,
    /// Values whose gradient is wanted.
    tracked: HashSet<TensorId>,
    /// Some parameter that was used, which candle's graph can hold on to.
    variable: Option<Tensor>,
}

/// What operations on this thread do about gradients.
enum Mode {
    /// They are recorded.
    Recording(Tape),
    /// Nobody will ask.
    Paused,
}

thread_local! {
    /// Innermost last.
    static MODES: RefCell<Vec<Mode>> = const { RefCell::new(Vec::new()) };
}

/// What an operation has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Become part of candle's graph.
    Graph,
    /// Be recorded.
    Record,
    /// Compute.
    Compute,
}

pub(crate) fn role() -> Role {
    MODES.with_borrow(|modes| match modes.last() {
        None => Role::Graph,
        Some(Mode::Recording(_)) => Role::Record,
        Some(Mode::Paused) => Role::Compute,
    })
}

/// A mode under way; it is over when this goes, however that comes.
struct Entered;

impl Entered {
    fn begin(mode: Mode) -> Self {
        MODES.with_borrow_mut(|modes| modes.push(mode));
        Self
    }

    fn end(self) -> Option<Mode> {
        let mode = MODES.with_borrow_mut(Vec::pop);
        std::mem::forget(self);
        mode
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        MODES.with_borrow_mut(Vec::pop);
    }
}

/// Whether the gradient of `x` is wanted on the tape that is recording.
///
/// # Errors
/// A value of candle's graph that came in from outside: its gradient would be lost without a word.
pub(crate) fn is_tracked(x: &Tensor) -> Result<bool> {
    MODES.with_borrow_mut(|modes| {
        let Some(Mode::Recording(tape)) = modes.last_mut() else {
            return Ok(false);
        };
        if x.is_variable() {
            tape.variable.get_or_insert_with(|| x.clone());
            return Ok(true);
        }
        if x.track_op() {
            bail!(
                "a value of shape {:?} from outside leads to variables; it has to be an input of the recorded function",
                x.shape()
            );
        }
        Ok(tape.tracked.contains(&x.id()))
    })
}

/// Notes that `y` was made and how its gradient goes on.
pub(crate) fn record(
    y: &Tensor,
    back: impl FnOnce(&Tensor) -> Result<Vec<(TensorId, Tensor)>> + Send + 'static,
) {
    MODES.with_borrow_mut(|modes| {
        if let Some(Mode::Recording(tape)) = modes.last_mut() {
            tape.tracked.insert(y.id());
            tape.entries.push(Entry {
                output: y.id(),
                back: Box::new(back),
            });
        }
    });
}

/// Runs `f` without recording it: inside, the operations of this crate compute and keep nothing for gradients, as under
/// `torch.no_grad`.
///
/// Operations of candle still record on variables. Detach their result to drop that record.
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    let _mode = Entered::begin(Mode::Paused);
    f()
}

/// Records `f`, in which the gradients of `leaves` are wanted.
pub(crate) fn recorded(
    leaves: impl IntoIterator<Item = TensorId>,
    f: impl FnOnce() -> Result<Tensor>,
) -> Result<(Tensor, Tape)> {
    let mode = Entered::begin(Mode::Recording(Tape {
        tracked: leaves.into_iter().collect(),
        ..Tape::default()
    }));
    let y = f()?;
    match mode.end() {
        Some(Mode::Recording(tape)) => Ok((y, tape)),
        _ => bail!("a tape was lost"),
    }
}

impl Tape {
    /// Whether the gradient of `y` leads anywhere.
    pub(crate) fn leads_from(&self, y: &Tensor) -> bool {
        self.tracked.contains(&y.id())
    }

    /// The gradients of leaves and parameters, given that of `y`.
    pub(crate) fn walk(self, y: TensorId, dy: Tensor) -> Result<HashMap<TensorId, Tensor>> {
        let mut gradients = HashMap::from([(y, dy)]);
        for Entry { output, back } in self.entries.into_iter().rev() {
            let Some(dy) = gradients.remove(&output) else {
                continue;
            };
            for (id, gradient) in back(&dy)? {
                let total = match gradients.remove(&id) {
                    Some(other) => add_gradients(&other, &gradient)?,
                    None => gradient,
                };
                gradients.insert(id, total);
            }
        }
        Ok(gradients)
    }
}

/// `f(x)` as a single operation of candle's graph, made of this crate's operations alone.
///
/// Inside, gradients go through the operations of this crate only; those of candle would lose them. Parameters that `f` uses get
/// their gradients from [`crate::backward`]. What was recorded serves one backward pass.
///
/// # Errors
/// Those of `f`; a value that leads to variables and comes in beside `x`.
pub fn taped(x: &Tensor, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    if role() != Role::Graph {
        return f(x);
    }
    let leaf = x.detach();
    let wanted = x.track_op().then(|| leaf.id());
    let (y, tape) = recorded(wanted, || f(&leaf))?;
    let anchor = match (wanted, &tape.variable) {
        _ if !tape.leads_from(&y) => return Ok(y),
        (Some(_), _) => x.clone(),
        (None, Some(variable)) => variable.clone(),
        (None, None) => return Ok(y),
    };
    anchor.apply_op1(Whole {
        leaf: wanted,
        trains: tape.variable.is_some(),
        once: Mutex::new(Some((y, tape))),
    })
}

struct Whole {
    leaf: Option<TensorId>,
    /// Whether parameters get gradients, which only [`crate::backward`] can hand out.
    trains: bool,
    /// The result and its record, until the backward pass takes them.
    once: Mutex<Option<(Tensor, Tape)>>,
}

impl Whole {
    /// A copy of the result for candle; results are small beside what is inside.
    fn result<T>(&self, f: impl FnOnce(&Storage, &Layout) -> Result<T>) -> Result<(T, Shape)> {
        match self.once.lock().ok().as_deref() {
            Some(Some((y, _))) => {
                let (storage, layout) = y.storage_and_layout();
                Ok((f(&storage, layout)?, y.shape().clone()))
            }
            _ => bail!("a recorded function is there for one call"),
        }
    }
}

impl CustomOp1 for Whole {
    fn name(&self) -> &'static str {
        "recorded function"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.result(|storage, layout| match storage {
            // To its own type: a copy without gaps.
            Storage::Cpu(y) => y.to_dtype(layout, y.dtype()),
            _ => bail!("expected a result on the CPU"),
        })
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.result(|storage, layout| match storage {
            Storage::Cuda(y) => y.to_dtype(layout, y.dtype()),
            _ => bail!("expected a result on the GPU"),
        })
    }

    fn bwd(&self, anchor: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if self.trains && !is_collecting() {
            bail!(
                "the gradients of this network's parameters are taken by sdft_nn::backward(&loss), not by Tensor::backward"
            );
        }
        let taken = self.once.lock().ok().and_then(|mut once| once.take());
        let Some((y, tape)) = taken else {
            bail!("what a network kept for its gradient was used up by an earlier backward pass");
        };
        let id = y.id();
        drop(y);
        let mut gradients = tape.walk(id, dy.contiguous()?)?;
        let of_leaf = match self.leaf {
            None => None,
            // candle expects an answer for every tracked input, also for one that the function does not look at.
            Some(leaf) => Some(match gradients.remove(&leaf) {
                Some(gradient) => gradient,
                None => anchor.zeros_like()?,
            }),
        };
        for (id, gradient) in gradients {
            hand_over(id, gradient)?;
        }
        Ok(of_leaf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{add, backward, conv2d, upsample_nearest_2x};
    use candle_core::{DType, Device, Var};

    fn wave(shape: &[usize]) -> Tensor {
        let n = shape.iter().product::<usize>();
        let values = (0..n).map(|i| (0.37 * i as f64).sin()).collect::<Vec<_>>();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn network(x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
        // The parameters and the input are used twice each.
        let h = conv2d(x, w, b, 1, [1; 2])?;
        let h = add(&h, x)?;
        upsample_nearest_2x(&conv2d(&h, w, b, 1, [1; 2])?)
    }

    #[test]
    fn a_tape_gives_the_gradients_of_the_graph() {
        let [x, w, b] = [&[2, 2, 4, 4][..], &[2, 2, 3, 3], &[2]]
            .map(|shape| Var::from_tensor(&wave(shape)).unwrap());
        let loss = |y: Tensor| y.sqr().unwrap().sum_all().unwrap();
        let plain = backward(&loss(network(&x, &w, &b).unwrap())).unwrap();
        let on_tape = loss(taped(&x, |x| network(x, &w, &b)).unwrap());
        let on_tape_gradients = backward(&on_tape).unwrap();
        for var in [&x, &w, &b] {
            let (a, b) = (plain.get(var).unwrap(), on_tape_gradients.get(var).unwrap());
            let error = (a - b).unwrap().abs().unwrap().max_all().unwrap();
            assert!(error.to_scalar::<f64>().unwrap() < 1e-12);
        }
        let error = backward(&on_tape).unwrap_err().to_string();
        assert!(error.contains("used up"), "{error}");
    }

    #[test]
    fn parameters_get_gradients_when_the_input_has_none_and_the_other_way_round() {
        let (x, w, b) = (wave(&[1, 2, 4, 4]), wave(&[2, 2, 3, 3]), wave(&[2]));
        let sum = |y: Tensor| y.sum_all().unwrap();
        let w_var = Var::from_tensor(&w).unwrap();
        let y = sum(taped(&x, |x| network(x, &w_var, &b)).unwrap());
        assert!(backward(&y).unwrap().get(&w_var).is_some());
        let y = sum(taped(&x, |x| network(x, &w_var, &b)).unwrap());
        let error = y.backward().unwrap_err().to_string();
        assert!(error.contains("sdft_nn::backward"), "{error}");
        let x_var = Var::from_tensor(&x).unwrap();
        let y = sum(taped(&x_var, |x| network(x, &w, &b)).unwrap());
        assert!(y.backward().unwrap().get(&x_var).is_some());
        let plain = taped(&x, |x| network(x, &w, &b)).unwrap();
        assert!(!plain.track_op());
    }

    #[test]
    fn without_gradients_nothing_is_recorded_and_the_numbers_are_the_same() {
        let [x, w, b] = [&[1, 2, 4, 4][..], &[2, 2, 3, 3], &[2]]
            .map(|shape| Var::from_tensor(&wave(shape)).unwrap());
        let values = |y: &Tensor| y.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let recorded = taped(&x, |x| network(x, &w, &b)).unwrap();
        let plain = no_grad(|| taped(&x, |x| network(x, &w, &b))).unwrap();
        assert!(recorded.track_op() && !plain.track_op());
        assert_eq!(values(&plain), values(&recorded));
        assert_eq!(role(), Role::Graph);
    }

    #[test]
    fn a_wrong_backward_fails_before_anything_is_used_up() {
        let (x, w, b) = (wave(&[1, 2, 4, 4]), wave(&[2, 2, 3, 3]), wave(&[2]));
        let w = Var::from_tensor(&w).unwrap();
        let y = taped(&x, |x| network(x, &w, &b))
            .unwrap()
            .sum_all()
            .unwrap();
        assert!(y.backward().is_err());
        assert!(backward(&y).unwrap().get(&w).is_some());
    }

    #[test]
    fn an_input_that_is_not_looked_at_gets_zeros() {
        let (x, w) = (wave(&[1, 2, 4, 4]), wave(&[1, 2, 4, 4]));
        let [x, w] = [x, w].map(|t| Var::from_tensor(&t).unwrap());
        let doubled = (x.as_tensor() * 2.0).unwrap();
        let y = taped(&doubled, |_| add(&w, &w)).unwrap();
        let gradients = backward(&y.sum_all().unwrap()).unwrap();
        let values = |v: &Var| {
            let gradient = gradients.get(v).unwrap().flatten_all().unwrap();
            gradient.to_vec1::<f64>().unwrap()
        };
        assert_eq!(values(&x), [0.0; 32]);
        assert_eq!(values(&w), [2.0; 32]);
    }

    #[test]
    fn values_from_outside_that_lead_to_variables_are_refused() {
        let x = Tensor::ones((1, 2, 4, 4), DType::F64, &Device::Cpu).unwrap();
        let v = Var::from_tensor(&x).unwrap();
        let outside = (v.as_tensor() * 2.0).unwrap();
        let error = taped(&x, |x| add(x, &outside)).unwrap_err().to_string();
        assert!(error.contains("input of the recorded function"), "{error}");
        assert_eq!(role(), Role::Graph);
    }
}
