//! A recorded call with gradients.

// One recording is the forward pass, whose saved values stay allocated, and one is the backward pass, which frees them.

use super::call::{Call, check, fill, like, log};
use crate::parameters::Parameters;
use crate::tape::{self, Gradients, Tape, record_tape};
use candle_core::{Result, Tensor, TensorId, bail};
use sdft_cuda::{Recording, rehearse};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The gradients of a backward pass.
type Found = HashMap<TensorId, Tensor>;

/// Launches that are compared with a plain call.
const CHECKS: u64 = 2;

/// What is next for a recorded call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its last launch waits for the backward pass.
    Busy,
    /// It cannot be recorded, or gave other bits.
    Failed,
    /// Its backward pass never came.
    WithoutBackward,
    Unchecked,
    Checked,
}

/// The recordings of both passes.
pub(super) struct Trained(Arc<Mutex<Passes>>);

struct Passes {
    inputs: Vec<Tensor>,
    output: Tensor,
    /// The gradient of the output.
    seed: Tensor,
    forward: Recording,
    backward: Option<Backward>,
    parameters: Parameters,
    is_busy: bool,
    has_failed: bool,
    launches: u64,
}

struct Backward {
    recording: Recording,
    gradients: Vec<(Of, Tensor)>,
}

/// What a gradient belongs to.
enum Of {
    Input(usize),
    Parameter(TensorId),
}

/// `f` for the inputs of a call, on a tape of its own, to be recorded as a single operation of the tape around it.
pub(super) fn run_on_own_tape(
    call: &Call<'_>,
    f: &impl Fn(&Tensor, &[Tensor]) -> Result<Tensor>,
) -> Result<(Tensor, Tape)> {
    let leaves = ids(&call.leaves(call.inputs()));
    let (y, own) = rehearse(call.device(), || {
        record_tape(leaves, || f(call.x, call.others))
    })?;
    // Another tape of the same pass must not take a gradient for complete to which this one will add.
    tape::use_parameters(own.parameters());
    Ok((y, own))
}

fn ids(leaves: &[(usize, TensorId)]) -> Vec<TensorId> {
    leaves.iter().map(|(_, id)| *id).collect()
}

fn lock(passes: &Mutex<Passes>) -> MutexGuard<'_, Passes> {
    passes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Trained {
    /// Records the forward pass, and compares its first launch with the result `y` of this call. The backward pass of the call records the
    /// other one. `own` is the tape of `y`, which the tape around it gets in any case.
    pub(super) fn new(
        call: &Call<'_>,
        y: &Tensor,
        own: Tape,
        f: &impl Fn(&Tensor, &[Tensor]) -> Result<Tensor>,
    ) -> Result<Self> {
        let started = Self::start(call, y, own.parameters().clone(), f);
        let (trained, waiting) = match started {
            Ok((trained, waiting)) => (Ok(trained), Some(waiting)),
            Err(reason) => (Err(reason), None),
        };
        record_own(call, y, own, waiting);
        trained
    }

    fn start(
        call: &Call<'_>,
        y: &Tensor,
        parameters: Parameters,
        f: &impl Fn(&Tensor, &[Tensor]) -> Result<Tensor>,
    ) -> Result<(Self, Waiting)> {
        let inputs = call.inputs().map(like).collect::<Result<Vec<_>>>()?;
        for (to, x) in inputs.iter().zip(call.inputs()) {
            fill(to, x)?;
        }
        let (output, seed) = (like(y)?, like(y)?);
        // Loads the kernel of such copies, which a recording cannot.
        fill(&like(y)?, y)?;
        let leaves = ids(&call.leaves(&inputs));
        let (forward, recorded) = Recording::keeping(call.device(), || {
            let (y, tape) = record_tape(leaves, || f(&inputs[0], &inputs[1..]))?;
            fill(&output, &y)?;
            Ok((y.id(), tape))
        })?;
        check(&output, y)?;
        let passes = Passes {
            inputs,
            output,
            seed,
            forward,
            backward: None,
            parameters,
            is_busy: true,
            has_failed: false,
            launches: 1,
        };
        let passes = Arc::new(Mutex::new(passes));
        let waiting = Waiting {
            passes: passes.clone(),
            recorded: Some(recorded),
        };
        Ok((Self(passes), waiting))
    }

    pub(super) fn stage(&self) -> Stage {
        let passes = lock(&self.0);
        match passes.backward {
            _ if passes.is_busy => Stage::Busy,
            _ if passes.has_failed => Stage::Failed,
            None => Stage::WithoutBackward,
            Some(_) if passes.launches < CHECKS => Stage::Unchecked,
            Some(_) => Stage::Checked,
        }
    }

    /// Launches the forward pass for the inputs of a call.
    fn launch(&self, call: &Call<'_>) -> Result<Waiting> {
        let mut passes = lock(&self.0);
        for (to, x) in passes.inputs.iter().zip(call.inputs()) {
            fill(to, x)?;
        }
        passes.forward.launch()?;
        passes.is_busy = true;
        passes.launches += 1;
        Ok(Waiting {
            passes: self.0.clone(),
            recorded: None,
        })
    }

    /// The result for the inputs of a call, recorded on the tape around it.
    pub(super) fn run(&self, call: &Call<'_>) -> Result<Tensor> {
        let waiting = self.launch(call)?;
        let y = {
            let passes = lock(&self.0);
            tape::use_parameters(&passes.parameters);
            passes.output.copy()?
        };
        let leaves = call.leaves(call.inputs());
        tape::record(&y, move |dy, gradients| {
            waiting.finish(dy, &leaves, gradients)
        });
        Ok(y)
    }

    /// Compares a launch with `y`, the result of this call, and its gradients with those of `own`, which the tape around it gets in any
    /// case.
    pub(super) fn run_checked(&self, call: &Call<'_>, y: &Tensor, own: Tape) -> Result<()> {
        let launched = self.launch(call).and_then(|waiting| {
            check(&lock(&self.0).output, y)?;
            Ok(waiting)
        });
        let (verdict, waiting) = match launched {
            Ok(waiting) => (Ok(()), Some(waiting)),
            Err(reason) => (Err(reason), None),
        };
        record_own(call, y, own, waiting);
        verdict
    }
}

/// Records the tape of `y` as one operation of the tape around it, next to which a launch is checked.
fn record_own(call: &Call<'_>, y: &Tensor, own: Tape, waiting: Option<Waiting>) {
    let (id, leaves, device) = (y.id(), call.leaves(call.inputs()), call.device().clone());
    tape::record(y, move |dy, gradients| {
        let all = rehearse(&device, || {
            own.backward(id, dy.contiguous()?, |_, _| Ok(()))
        })?;
        if let Some(waiting) = waiting {
            waiting.check(dy, &all, &leaves);
        }
        let mut all = all.into_iter();
        all.try_for_each(|(id, gradient)| gradients.add(id, gradient))
    });
}

/// A launch of the forward pass, whose memory waits for the backward pass.
struct Waiting {
    passes: Arc<Mutex<Passes>>,
    /// The result and the tape of the recording, which the first backward pass records.
    recorded: Option<(TensorId, Tape)>,
}

impl Waiting {
    /// Adds the gradients of the recorded backward pass.
    fn finish(
        self,
        dy: &Tensor,
        leaves: &[(usize, TensorId)],
        gradients: &mut Gradients,
    ) -> Result<()> {
        let mut passes = lock(&self.passes);
        passes.launch_backward(dy)?;
        let Some(backward) = &passes.backward else {
            bail!("the backward pass of a network was not recorded");
        };
        for (of, gradient) in &backward.gradients {
            let of_input = |i| leaves.iter().find(|(place, _)| place == i);
            let id = match of {
                Of::Parameter(id) => Some(*id),
                Of::Input(i) => of_input(i).map(|(_, id)| *id),
            };
            if let Some(id) = id {
                gradients.add(id, gradient.copy()?)?;
            }
        }
        Ok(())
    }

    /// Compares the gradients of the recorded backward pass, which is recorded if it was not yet, with those of this call.
    fn check(mut self, dy: &Tensor, expected: &Found, leaves: &[(usize, TensorId)]) {
        let recorded = self.recorded.take();
        let mut passes = lock(&self.passes);
        let compare = || {
            if let Some(recorded) = recorded {
                passes.backward = Some(passes.record_backward(recorded, expected, leaves)?);
            }
            passes.launch_backward(dy)?;
            passes.compare(expected, leaves)
        };
        if let Err(reason) = compare() {
            passes.has_failed = true;
            log(passes.output.dims(), &format!("not recorded: {reason}"));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // What a tape saved is freed with it. Otherwise the recorded backward pass frees it, whose gradients are not read.
        self.recorded = None;
        let mut passes = lock(&self.passes);
        if let (true, Some(backward)) = (passes.is_busy, &passes.backward) {
            // If this fails, the next launch of the forward pass frees the memory.
            let _ = backward.recording.launch();
        }
        passes.is_busy = false;
    }
}

impl Passes {
    fn record_backward(
        &self,
        (y, tape): (TensorId, Tape),
        expected: &Found,
        leaves: &[(usize, TensorId)],
    ) -> Result<Backward> {
        let device = self.output.device();
        let place = |id| leaves.iter().find(|(_, leaf)| *leaf == id);
        let memory = |(&id, gradient): (&TensorId, &Tensor)| {
            let of = place(id).map_or(Of::Parameter(id), |(i, _)| Of::Input(*i));
            fill(&like(gradient)?, gradient)?;
            Ok((of, like(gradient)?))
        };
        let gradients = rehearse(device, || {
            expected.iter().map(memory).collect::<Result<Vec<_>>>()
        })?;
        let recording = Recording::new(device, || {
            let mut all = tape.backward(y, self.seed.clone(), |_, _| Ok(()))?;
            for (of, to) in &gradients {
                let id = match of {
                    Of::Input(i) => self.inputs[*i].id(),
                    Of::Parameter(id) => *id,
                };
                match all.remove(&id) {
                    Some(gradient) => fill(to, &gradient)?,
                    None => bail!("a gradient is missing"),
                }
            }
            match all.is_empty() {
                true => Ok(()),
                false => bail!("there are more gradients"),
            }
        })?;
        Ok(Backward {
            recording,
            gradients,
        })
    }

    fn launch_backward(&mut self, dy: &Tensor) -> Result<()> {
        let Some(backward) = &self.backward else {
            bail!("the backward pass was not recorded");
        };
        fill(&self.seed, dy)?;
        backward.recording.launch()?;
        self.is_busy = false;
        Ok(())
    }

    fn compare(&self, expected: &Found, leaves: &[(usize, TensorId)]) -> Result<()> {
        let found = self.backward.as_ref();
        for (of, gradient) in found.iter().flat_map(|backward| &backward.gradients) {
            let id = match of {
                Of::Parameter(id) => Some(id),
                Of::Input(i) => leaves
                    .iter()
                    .find(|(place, _)| place == i)
                    .map(|(_, id)| id),
            };
            match id.and_then(|id| expected.get(id)) {
                Some(expected) => check(gradient, expected)?,
                None => bail!("a gradient is missing"),
            }
        }
        Ok(())
    }
}

impl Drop for Passes {
    fn drop(&mut self) {
        let backward = self.backward.as_ref();
        let parts =
            self.forward.parts() + backward.map_or(0, |backward| backward.recording.parts());
        let message = format!(
            "{parts} parts with gradients, launched {} times",
            self.launches
        );
        log(self.output.dims(), &message);
    }
}
