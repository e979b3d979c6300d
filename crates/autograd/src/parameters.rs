//! The parameters that tapes use, and which of them still wait for a backward pass.

use candle_core::{Tensor, TensorId};
use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// The parameters of a function.
#[derive(Clone, Default)]
pub(crate) struct Parameters {
    /// An anchor in candle's graph.
    first: Option<Tensor>,
    all: HashSet<TensorId>,
    /// All, in the order of their first use.
    used: Vec<TensorId>,
    /// How many of them [`Self::take_new`] has returned.
    taken: usize,
}

impl Parameters {
    pub(crate) fn note(&mut self, parameter: &Tensor) {
        self.first.get_or_insert_with(|| parameter.clone());
        self.insert(parameter.id());
    }

    /// Adds those of a function that is part of this one.
    pub(crate) fn extend(&mut self, other: &Self) {
        self.first = self.first.take().or_else(|| other.first.clone());
        other.used.iter().for_each(|id| self.insert(*id));
    }

    fn insert(&mut self, id: TensorId) {
        if self.all.insert(id) {
            self.used.push(id);
        }
    }

    /// The parameters that were not there at the last call.
    pub(crate) fn take_new(&mut self) -> Vec<TensorId> {
        let new = self.used.iter().skip(self.taken).copied().collect();
        self.taken = self.used.len();
        new
    }

    pub(crate) fn first(&self) -> Option<&Tensor> {
        self.first.as_ref()
    }
}

/// For each parameter the number of tapes that can still add to its gradient. A tape that is kept and never differentiated only means that
/// gradients are complete at the end of a pass.
static TAPES: LazyLock<Mutex<HashMap<TensorId, usize>>> = LazyLock::new(Mutex::default);

fn tapes() -> MutexGuard<'static, HashMap<TensorId, usize>> {
    TAPES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The parameters of one tape that wait for its backward pass. Dropping it removes them.
pub(crate) struct Waiting(HashSet<TensorId>);

impl Waiting {
    pub(crate) fn new(parameters: &Parameters) -> Self {
        let mut tapes = tapes();
        for id in &parameters.all {
            *tapes.entry(*id).or_default() += 1;
        }
        Self(parameters.all.clone())
    }

    /// Removes a parameter; whether no other tape can add to its gradient.
    pub(crate) fn remove(&mut self, id: TensorId) -> bool {
        self.0.remove(&id) && remove(&mut tapes(), id)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut tapes = tapes();
        for id in &self.0 {
            remove(&mut tapes, *id);
        }
    }
}

fn remove(tapes: &mut HashMap<TensorId, usize>, id: TensorId) -> bool {
    match tapes.get_mut(&id) {
        Some(n) if *n > 1 => {
            *n -= 1;
            false
        }
        _ => {
            tapes.remove(&id);
            true
        }
    }
}
