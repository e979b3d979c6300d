//! Functions of a network whose work on a GPU is recorded and launched again as a whole.

// A small network is limited by the hundreds of launches of a call, which take the host longer than the GPU takes to compute. A graph of
// CUDA's is one launch.

#[cfg(feature = "cuda")]
use crate::tape::{self, GradMode};
use candle_core::{Result, Tensor};
#[cfg(feature = "cuda")]
use std::sync::{Mutex, PoisonError};

/// What a network has recorded of one of its functions. A copy has recorded nothing.
///
/// On the CPU, and in builds without the feature `cuda`, nothing is recorded.
#[derive(Default)]
pub struct Graphs {
    #[cfg(feature = "cuda")]
    recorded: Mutex<replay::Recorded>,
}

impl Clone for Graphs {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for Graphs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Graphs")
    }
}

impl Graphs {
    /// `f(x, others)` inside [`crate::taped`] or [`crate::no_grad`], where `x` is a map `[B, C, H, W]`.
    ///
    /// `repeats` states that `f` is the same function in all such calls: of its arguments, and of parameters that are only changed in
    /// place. The first call of a shape runs it. On a GPU, if no gradient is needed, the second call records its work, and later calls
    /// launch the recording. The first two launches are compared with `f` itself; if a bit differs, or the work cannot be recorded, all
    /// calls of this shape run `f`. So do calls with more than 2^18 pixels, which are not limited by launches.
    ///
    /// # Shapes
    /// - returns: that of `f`
    ///
    /// # Errors
    /// Those of `f`.
    pub fn run(
        &self,
        x: &Tensor,
        others: &[Tensor],
        repeats: bool,
        f: impl Fn(&Tensor, &[Tensor]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if repeats && let Some(call) = replay::Call::new(x, others)? {
            let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
            return recorded.run(&call, || f(x, others), &f);
        }
        let _ = repeats;
        f(x, others)
    }
}

#[cfg(feature = "cuda")]
mod replay {
    use super::{GradMode, Result, Tensor, tape};
    use crate::no_grad;
    use candle_core::{DType, Device, bail};
    use sdft_cuda::{Recording, can_record, is_tf32_allowed, rehearse};
    use std::thread::ThreadId;

    /// Images of 256x256 pixels take a GPU longer than the host if there are more than four of them.
    const MOST_PIXELS: usize = 1 << 18;
    /// The most shapes that are remembered, and those of them that have recordings, which hold memory.
    const REMEMBERED: usize = 64;
    const RECORDED: usize = 4;
    /// A recording makes room for another shape if it was not used in this number of calls.
    const UNUSED: u64 = 100;

    /// All that recorded work depends on, except the values of its inputs.
    #[derive(Clone, PartialEq, Eq)]
    struct Key {
        shapes: Vec<(Vec<usize>, DType)>,
        tf32: bool,
        is_taped: bool,
        /// The constants that candle uploads belong to a thread, and are freed with it.
        thread: ThreadId,
    }

    /// A call that may be recorded.
    pub(super) struct Call<'a> {
        key: Key,
        inputs: Vec<&'a Tensor>,
    }

    impl<'a> Call<'a> {
        /// `None` for a call that needs gradients of its inputs, or that is not worth it.
        pub(super) fn new(x: &'a Tensor, others: &'a [Tensor]) -> Result<Option<Self>> {
            let is_taped = match GradMode::current() {
                GradMode::Graph => return Ok(None),
                GradMode::Tape => true,
                GradMode::NoGrad => false,
            };
            let is_small = x.dims4().is_ok_and(|(b, _, h, w)| b * h * w <= MOST_PIXELS);
            if !x.device().is_cuda() || !is_small || !can_record(x.device()) {
                return Ok(None);
            }
            let inputs: Vec<&Tensor> = std::iter::once(x).chain(others).collect();
            for input in &inputs {
                if tape::is_tracked(input)? || !input.device().same_device(x.device()) {
                    return Ok(None);
                }
            }
            let shape = |x: &&Tensor| (x.dims().to_vec(), x.dtype());
            let key = Key {
                shapes: inputs.iter().map(shape).collect(),
                tf32: is_tf32_allowed(),
                is_taped,
                thread: std::thread::current().id(),
            };
            Ok(Some(Self { key, inputs }))
        }

        fn device(&self) -> &Device {
            self.inputs[0].device()
        }
    }

    enum State {
        /// Ran once.
        Seen,
        Recorded {
            replay: Box<Replay>,
            is_checked: bool,
        },
        /// Always runs.
        Off,
    }

    struct Entry {
        key: Key,
        state: State,
        /// The number of the last call.
        used: u64,
    }

    #[derive(Default)]
    pub(super) struct Recorded {
        entries: Vec<Entry>,
        calls: u64,
    }

    impl Recorded {
        pub(super) fn run(
            &mut self,
            call: &Call<'_>,
            run: impl Fn() -> Result<Tensor>,
            f: &impl Fn(&Tensor, &[Tensor]) -> Result<Tensor>,
        ) -> Result<Tensor> {
            self.calls += 1;
            let known = self.entries.iter().position(|entry| entry.key == call.key);
            if known.is_some_and(|i| matches!(self.entries[i].state, State::Off)) {
                return run();
            }
            let run = || rehearse(call.device(), &run);
            let Some(i) = known else {
                let y = run()?;
                // A parameter that is trained: every call needs its tape.
                let state = match tape::is_tracked(&y)? {
                    true => State::Off,
                    false => State::Seen,
                };
                self.remember(call.key.clone(), state);
                return Ok(y);
            };
            let state = std::mem::replace(&mut self.entries[i].state, State::Off);
            let (y, state) = match state {
                State::Off => (run()?, State::Off),
                State::Seen if !self.has_room() => (run()?, State::Seen),
                State::Seen => {
                    let y = run()?;
                    let state = match Replay::new(call, &y, f) {
                        Ok(replay) => State::Recorded {
                            replay: Box::new(replay),
                            is_checked: false,
                        },
                        Err(reason) => off(call, &reason),
                    };
                    (y, state)
                }
                State::Recorded {
                    mut replay,
                    is_checked,
                } => match replay.run(call) {
                    Err(reason) => (run()?, off(call, &reason)),
                    Ok(y) if is_checked => (y, State::Recorded { replay, is_checked }),
                    // Other values than those that were recorded.
                    Ok(replayed) => {
                        let y = run()?;
                        let state = match check(&replayed, &y) {
                            Ok(()) => State::Recorded {
                                replay,
                                is_checked: true,
                            },
                            Err(reason) => off(call, &reason),
                        };
                        (y, state)
                    }
                },
            };
            let entry = &mut self.entries[i];
            (entry.state, entry.used) = (state, self.calls);
            Ok(y)
        }

        fn remember(&mut self, key: Key, state: State) {
            if self.entries.len() == REMEMBERED {
                let oldest = self.entries.iter().enumerate();
                let oldest = oldest.min_by_key(|(_, entry)| entry.used);
                if let Some((i, _)) = oldest {
                    self.entries.swap_remove(i);
                }
            }
            let used = self.calls;
            self.entries.push(Entry { key, state, used });
        }

        /// Whether another shape may be recorded. A recording that was not used for a while is dropped for it.
        fn has_room(&mut self) -> bool {
            let is_recorded = |entry: &&mut Entry| matches!(entry.state, State::Recorded { .. });
            let recorded: Vec<&mut Entry> = self.entries.iter_mut().filter(is_recorded).collect();
            if recorded.len() < RECORDED {
                return true;
            }
            match recorded.into_iter().min_by_key(|entry| entry.used) {
                Some(oldest) if oldest.used + UNUSED < self.calls => {
                    oldest.state = State::Seen;
                    true
                }
                _ => false,
            }
        }
    }

    /// A recording with the memory that it reads and writes.
    struct Replay {
        recording: Recording,
        inputs: Vec<Tensor>,
        output: Tensor,
        launches: u64,
    }

    impl Replay {
        /// Records `f`, and compares its first launch with the result `y` of this call.
        fn new(
            call: &Call<'_>,
            y: &Tensor,
            f: &impl Fn(&Tensor, &[Tensor]) -> Result<Tensor>,
        ) -> Result<Self> {
            let like = |x: &Tensor| Tensor::zeros(x.shape(), x.dtype(), x.device());
            let inputs = call.inputs.iter().map(|x| like(x));
            let inputs = inputs.collect::<Result<Vec<_>>>()?;
            let output = like(y)?;
            // Loads the kernel of such copies, which a recording cannot.
            fill(&output, y)?;
            let recording = Recording::new(call.device(), || {
                let y = no_grad(|| f(&inputs[0], &inputs[1..]))?;
                fill(&output, &y)
            })?;
            let mut replay = Self {
                recording,
                inputs,
                output,
                launches: 0,
            };
            check(&replay.run(call)?, y)?;
            Ok(replay)
        }

        /// The result for the inputs of a call.
        fn run(&mut self, call: &Call<'_>) -> Result<Tensor> {
            for (to, x) in self.inputs.iter().zip(&call.inputs) {
                fill(to, x)?;
            }
            self.recording.launch()?;
            self.launches += 1;
            self.output.copy()
        }
    }

    impl Drop for Replay {
        fn drop(&mut self) {
            let (parts, launches) = (self.recording.parts(), self.launches);
            let shape = self.inputs[0].dims();
            log(shape, &format!("{parts} parts, launched {launches} times"));
        }
    }

    /// Copies values to memory that stays where it is.
    fn fill(to: &Tensor, x: &Tensor) -> Result<()> {
        to.slice_set(&x.detach().contiguous()?, 0, 0)
    }

    /// Fails unless both have the same bits.
    fn check(replayed: &Tensor, y: &Tensor) -> Result<()> {
        let bits = |x: &Tensor| -> Result<Vec<u32>> {
            let values = x.flatten_all()?.to_vec1::<f32>()?;
            Ok(values.into_iter().map(f32::to_bits).collect())
        };
        match bits(replayed)? == bits(y)? {
            true => Ok(()),
            false => bail!("a launch gave other bits"),
        }
    }

    fn off(call: &Call<'_>, reason: &candle_core::Error) -> State {
        log(call.inputs[0].dims(), &format!("not recorded: {reason}"));
        State::Off
    }

    #[expect(clippy::print_stderr, reason = "asked for by a variable")]
    fn log(shape: &[usize], message: &str) {
        if std::env::var_os("SDFT_CUDA_LOG").is_some() {
            eprintln!("graph of {shape:?}: {message}");
        }
    }
}
