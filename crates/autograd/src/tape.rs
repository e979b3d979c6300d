//! A tape: the operations of a function, recorded and differentiated in reverse.

// candle adds every gradient to a tensor of zeros and keeps every value until the pass is over. On a tape the first gradient of a value
// is taken as it is, and what an operation saved for its gradient is freed once that has been computed.

use crate::backward::{accumulate, complete, is_collecting};
use crate::ops::add_gradients;
use crate::parameters::{Parameters, Waiting};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, TensorId,
    backend::BackendStorage, bail,
};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

/// Adds the gradients of the inputs, given those of the results, of which at least one is there.
type BackwardFn = Box<dyn FnOnce(Vec<Option<Tensor>>, &mut Gradients) -> Result<()> + Send>;

/// The gradients of values, as far as they have been computed.
pub(crate) struct Gradients(HashMap<TensorId, Tensor>);

impl Gradients {
    /// The gradient of a value from the operations that come after the current one. An operation that adds its own to it in the same
    /// pass puts the sum back.
    pub(crate) fn take(&mut self, id: TensorId) -> Option<Tensor> {
        self.0.remove(&id)
    }

    pub(crate) fn add(&mut self, id: TensorId, gradient: Tensor) -> Result<()> {
        let total = match self.0.remove(&id) {
            Some(other) => add_gradients(&other, &gradient)?,
            None => gradient,
        };
        self.0.insert(id, total);
        Ok(())
    }
}

struct Entry {
    outputs: Vec<TensorId>,
    /// The parameters that no earlier entry uses: their gradients are complete after this one.
    first_used: Vec<TensorId>,
    backward: BackwardFn,
}

#[derive(Default)]
pub(crate) struct Tape {
    entries: Vec<Entry>,
    /// Values that need a gradient.
    tracked: HashSet<TensorId>,
    parameters: Parameters,
}

/// What surrounds the operations of this thread.
enum Frame {
    Taped(Tape),
    NoGrad,
    /// Not recorded now, but in the backward pass.
    Deferred(Parameters),
}

thread_local! {
    /// Innermost last.
    static FRAMES: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

/// How an operation takes part in differentiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GradMode {
    /// As a node of candle's graph.
    Graph,
    /// As an entry of a tape.
    Tape,
    /// Not at all.
    NoGrad,
}

impl GradMode {
    /// The mode of this thread.
    pub(crate) fn current() -> Self {
        FRAMES.with_borrow(|frames| match frames.last() {
            None => Self::Graph,
            Some(Frame::Taped(_)) => Self::Tape,
            Some(Frame::NoGrad | Frame::Deferred(_)) => Self::NoGrad,
        })
    }
}

/// Removes its frame when it is dropped, also by an error or a panic.
struct FrameGuard;

impl FrameGuard {
    fn enter(frame: Frame) -> Self {
        FRAMES.with_borrow_mut(|frames| frames.push(frame));
        Self
    }

    fn leave(self) -> Option<Frame> {
        let frame = FRAMES.with_borrow_mut(Vec::pop);
        std::mem::forget(self);
        frame
    }
}

impl Drop for FrameGuard {
    fn drop(&mut self) {
        FRAMES.with_borrow_mut(Vec::pop);
    }
}

/// Whether `x` needs a gradient on the tape that is recording.
///
/// # Errors
/// A value of candle's graph from outside the recorded function, whose gradient would be lost silently.
pub(crate) fn is_tracked(x: &Tensor) -> Result<bool> {
    FRAMES.with_borrow_mut(|frames| {
        let Some(Frame::Taped(tape)) = frames.last_mut() else {
            return Ok(false);
        };
        if x.is_variable() {
            tape.parameters.note(x);
            return Ok(true);
        }
        if x.track_op() {
            bail!(
                "a value of shape {:?} from outside the taped function depends on variables; pass it as the input of the function",
                x.shape()
            );
        }
        Ok(tape.tracked.contains(&x.id()))
    })
}

/// Keeps `x` as a parameter of the function that is recorded later, if it is one.
pub(crate) fn note_parameter(x: &Tensor) {
    if x.is_variable() {
        FRAMES.with_borrow_mut(|frames| {
            if let Some(Frame::Deferred(parameters)) = frames.last_mut() {
                parameters.note(x);
            }
        });
    }
}

/// Records that `y` was computed, and how its gradient is passed to its inputs.
pub(crate) fn record(
    y: &Tensor,
    backward: impl FnOnce(&Tensor, &mut Gradients) -> Result<()> + Send + 'static,
) {
    record_all(std::slice::from_ref(y), move |dys, gradients| {
        match dys.into_iter().flatten().next() {
            Some(dy) => backward(&dy, gradients),
            None => Ok(()),
        }
    });
}

/// [`record`] for one operation with several results. Those that nothing uses have no gradient.
pub(crate) fn record_all(
    ys: &[Tensor],
    backward: impl FnOnce(Vec<Option<Tensor>>, &mut Gradients) -> Result<()> + Send + 'static,
) {
    FRAMES.with_borrow_mut(|frames| {
        if let Some(Frame::Taped(tape)) = frames.last_mut() {
            let outputs = ys.iter().map(Tensor::id).collect::<Vec<_>>();
            tape.tracked.extend(&outputs);
            tape.entries.push(Entry {
                outputs,
                first_used: tape.parameters.take_new(),
                backward: Box::new(backward),
            });
        }
    });
}

/// Runs `f` without recording the operations of this crate, neither on a tape nor in candle's graph; like `torch.no_grad`.
///
/// candle's own operations on variables still build its graph; detach their result to drop it.
pub fn no_grad<T>(f: impl FnOnce() -> T) -> T {
    let _frame = FrameGuard::enter(Frame::NoGrad);
    f()
}

/// [`no_grad`] for a function that the backward pass evaluates again: its parameters are parameters of the tape.
pub(crate) fn without_saving<T>(f: impl FnOnce() -> T) -> T {
    let frame = FrameGuard::enter(Frame::Deferred(Parameters::default()));
    let y = f();
    if let Some(Frame::Deferred(parameters)) = frame.leave() {
        use_parameters(&parameters);
    }
    y
}

/// Makes them parameters of the tape that is recording: those of a function that is one operation of it.
pub(crate) fn use_parameters(parameters: &Parameters) {
    FRAMES.with_borrow_mut(|frames| {
        if let Some(Frame::Taped(tape)) = frames.last_mut() {
            tape.parameters.extend(parameters);
        }
    });
}

/// Runs `f` and returns its result with the tape of it; `leaves` need gradients.
pub(crate) fn record_tape(
    leaves: impl IntoIterator<Item = TensorId>,
    f: impl FnOnce() -> Result<Tensor>,
) -> Result<(Tensor, Tape)> {
    let frame = FrameGuard::enter(Frame::Taped(Tape {
        tracked: leaves.into_iter().collect(),
        ..Tape::default()
    }));
    let y = f()?;
    match frame.leave() {
        Some(Frame::Taped(tape)) => Ok((y, tape)),
        _ => bail!("the tape of a function was lost"),
    }
}

impl Tape {
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Whether `y` depends on a leaf or a parameter.
    pub(crate) fn is_tracked(&self, y: &Tensor) -> bool {
        self.tracked.contains(&y.id())
    }

    /// The gradients of leaves and parameters, given that of `y`. `completed` is called for each parameter when no operation adds to its
    /// gradient any more, and may take that.
    pub(crate) fn backward(
        self,
        y: TensorId,
        dy: Tensor,
        mut completed: impl FnMut(TensorId, &mut Gradients) -> Result<()>,
    ) -> Result<HashMap<TensorId, Tensor>> {
        let mut gradients = Gradients(HashMap::from([(y, dy)]));
        for entry in self.entries.into_iter().rev() {
            let outputs = entry.outputs.into_iter();
            let dys: Vec<_> = outputs.map(|id| gradients.take(id)).collect();
            if dys.iter().any(Option::is_some) {
                (entry.backward)(dys, &mut gradients)?;
            }
            for id in entry.first_used {
                completed(id, &mut gradients)?;
            }
        }
        Ok(gradients.0)
    }
}

/// `f(x)` as a single operation of candle's graph.
///
/// `f` is made of the operations of this crate: gradients do not pass through candle's own. Parameters that `f` uses get their gradients
/// from [`crate::backward`]. The tape serves one backward pass. Inside another taped function, or in [`no_grad`], this is `f`.
///
/// # Errors
/// Those of `f`, and a value that depends on variables and is not part of `x`.
pub fn taped(x: &Tensor, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    if GradMode::current() != GradMode::Graph {
        return f(x);
    }
    let input = x.detach();
    let leaf = x.track_op().then(|| input.id());
    let (y, tape) = record_tape(leaf, || f(&input))?;
    let anchor = match (leaf, tape.parameters.first()) {
        _ if !tape.is_tracked(&y) => return Ok(y),
        (Some(_), _) => x.clone(),
        (None, Some(variable)) => variable.clone(),
        (None, None) => return Ok(y),
    };
    anchor.apply_op1(TapedFunction {
        leaf,
        has_parameters: tape.parameters.first().is_some(),
        taken: Mutex::new(Some((y, Waiting::new(&tape.parameters), tape))),
    })
}

struct TapedFunction {
    leaf: Option<TensorId>,
    /// Whether parameters get gradients, which only [`crate::backward`] collects.
    has_parameters: bool,
    /// The result and its tape, until the backward pass takes them.
    taken: Mutex<Option<(Tensor, Waiting, Tape)>>,
}

impl TapedFunction {
    /// Copies the result for candle.
    fn result<T>(&self, f: impl FnOnce(&Storage, &Layout) -> Result<T>) -> Result<(T, Shape)> {
        match self.taken.lock().ok().as_deref() {
            Some(Some((y, ..))) => {
                let (storage, layout) = y.storage_and_layout();
                Ok((f(&storage, layout)?, y.shape().clone()))
            }
            _ => bail!("a taped function was evaluated a second time"),
        }
    }
}

impl CustomOp1 for TapedFunction {
    fn name(&self) -> &'static str {
        "taped function"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.result(|storage, layout| match storage {
            // The same type: this makes a contiguous copy.
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
        if self.has_parameters && !is_collecting() {
            bail!(
                "the gradients of a taped network's parameters come from sdft_autograd::backward; call it instead of Tensor::backward"
            );
        }
        let taken = self.taken.lock().ok().and_then(|mut taken| taken.take());
        let Some((y, mut waiting, tape)) = taken else {
            bail!("the tape of a network was used up by an earlier backward pass");
        };
        let id = y.id();
        drop(y);
        let mut gradients = tape.backward(id, dy.contiguous()?, |parameter, gradients| {
            if let Some(gradient) = gradients.take(parameter) {
                accumulate(parameter, gradient)?;
            }
            match waiting.remove(parameter) {
                true => complete(parameter),
                false => Ok(()),
            }
        })?;
        let of_leaf = match self.leaf {
            None => None,
            // candle expects a gradient for every tracked input, also for one that the function ignores.
            Some(leaf) => Some(match gradients.remove(&leaf) {
                Some(gradient) => gradient,
                None => anchor.zeros_like()?,
            }),
        };
        for (id, gradient) in gradients {
            accumulate(id, gradient)?;
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
        assert!(error.contains("sdft_autograd::backward"), "{error}");
        let x_var = Var::from_tensor(&x).unwrap();
        let y = sum(taped(&x_var, |x| network(x, &w, &b)).unwrap());
        assert!(y.backward().unwrap().get(&x_var).is_some());
        let plain = taped(&x, |x| network(x, &w, &b)).unwrap();
        assert!(!plain.track_op());
    }

    #[test]
    fn a_wrong_backward_fails_before_the_tape_is_used_up() {
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
    fn an_unused_input_gets_zeros() {
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
        assert!(error.contains("input of the function"), "{error}");
        assert_eq!(GradMode::current(), GradMode::Graph);
    }

    #[test]
    fn no_grad_records_nothing_on_a_tape_or_in_the_graph() {
        let x = Var::from_tensor(&wave(&[1, 2, 4, 4])).unwrap();
        assert!(!no_grad(|| add(&x, &x)).unwrap().track_op());
        let y = taped(&x, |x| add(x, &no_grad(|| add(x, x))?)).unwrap();
        let gradients = backward(&y.sum_all().unwrap()).unwrap();
        let gradient = gradients.get(&x).unwrap().flatten_all().unwrap();
        assert_eq!(gradient.to_vec1::<f64>().unwrap(), [1.0; 32]);
    }
}
