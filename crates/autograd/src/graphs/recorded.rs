//! The shapes of a network's calls, and what was recorded of them.

use super::call::{Call, Key, check};
use super::replay::Replay;
use super::trained::{Stage, Trained, run_on_own_tape};
use crate::tape;
use candle_core::{Error, Result, Tensor};
use sdft_cuda::rehearse;

/// The most shapes that are remembered, and those of them that have recordings, which hold memory.
const REMEMBERED: usize = 64;
const RECORDED: usize = 4;
/// A recording makes room for another shape if it was not used in this number of calls.
const UNUSED: u64 = 100;

enum State {
    /// Ran once, and needed no gradients.
    Seen,
    Recorded {
        replay: Box<Replay>,
        is_checked: bool,
    },
    /// Ran once, and needed gradients.
    SeenTrained,
    Trained(Trained),
    /// Always runs.
    Off,
}

struct Entry {
    key: Key,
    state: State,
    /// The number of the last call.
    used: u64,
}

impl Entry {
    fn is_recorded(&self) -> bool {
        matches!(self.state, State::Recorded { .. } | State::Trained(_))
    }
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
        f: &impl Fn(&Tensor, &[Tensor]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.calls += 1;
        let run = || f(call.x, call.others);
        let known = self.entries.iter().position(|entry| entry.key == call.key);
        let Some(i) = known else {
            let y = rehearse(call.device(), run)?;
            let state = match tape::is_tracked(&y)? {
                true if call.is_small() => State::SeenTrained,
                true => State::Off,
                false => State::Seen,
            };
            self.remember(call.key.clone(), state);
            return Ok(y);
        };
        let state = std::mem::replace(&mut self.entries[i].state, State::Off);
        let is_new = matches!(state, State::Seen | State::SeenTrained);
        let (y, state) = match state {
            State::Off => return run(),
            state if is_new && !self.has_room() => (run()?, state),
            State::Seen => {
                let y = rehearse(call.device(), run)?;
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
            State::SeenTrained => {
                let (y, own) = run_on_own_tape(call, f)?;
                let state = match Trained::new(call, &y, own, f) {
                    Ok(trained) => State::Trained(trained),
                    Err(reason) => off(call, &reason),
                };
                (y, state)
            }
            State::Trained(trained) => match trained.stage() {
                Stage::Busy => (run()?, State::Trained(trained)),
                Stage::Failed => return run(),
                Stage::WithoutBackward => (run()?, State::SeenTrained),
                Stage::Checked => match trained.run(call) {
                    Ok(y) => (y, State::Trained(trained)),
                    Err(reason) => (run()?, off(call, &reason)),
                },
                Stage::Unchecked => {
                    let (y, own) = run_on_own_tape(call, f)?;
                    let state = match trained.run_checked(call, &y, own) {
                        Ok(()) => State::Trained(trained),
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
        let recorded = self.entries.iter_mut().filter(|entry| entry.is_recorded());
        let recorded: Vec<&mut Entry> = recorded.collect();
        if recorded.len() < RECORDED {
            return true;
        }
        match recorded.into_iter().min_by_key(|entry| entry.used) {
            Some(oldest) if oldest.used + UNUSED < self.calls => {
                oldest.state = match oldest.state {
                    State::Trained(_) => State::SeenTrained,
                    _ => State::Seen,
                };
                true
            }
            _ => false,
        }
    }
}

fn off(call: &Call<'_>, reason: &Error) -> State {
    call.log(&format!("not recorded: {reason}"));
    State::Off
}
