//! The processes that share the images of a network.

use crate::error::{EvalError, Result};
use sdft_parallel::{ProcessGroup, Task};
use std::sync::Arc;

/// A group of several processes, and which of their networks this is.
#[derive(Clone)]
pub(crate) struct Peers {
    group: Arc<ProcessGroup>,
    kind: u64,
}

impl Peers {
    /// `None` for a group of one process.
    pub(crate) fn of(group: &Arc<ProcessGroup>, kind: u64) -> Option<Self> {
        (group.size() > 1).then(|| Self {
            group: group.clone(),
            kind,
        })
    }

    pub(crate) fn size(&self) -> usize {
        self.group.size()
    }

    pub(crate) fn kind(&self) -> u64 {
        self.kind
    }

    /// One part of these items for each process, the last ones possibly without one.
    pub(crate) fn parts<'a, T>(&self, items: &'a [T]) -> std::slice::Chunks<'a, T> {
        items.chunks(items.len().div_ceil(self.size()).max(1))
    }

    /// The answers to one task for each process, in order.
    pub(crate) fn share(
        &self,
        tasks: Vec<Task>,
        own: impl FnOnce(Task) -> Result<Vec<f32>>,
    ) -> Result<Vec<Vec<f32>>> {
        self.group.share(tasks, own)
    }
}

/// The number, height and width of the images of a task.
///
/// # Errors
/// Fails if a process of another program sent it.
pub(crate) fn sizes_of(task: &Task) -> Result<[usize; 3]> {
    let sizes: Vec<usize> = task
        .numbers
        .iter()
        .filter_map(|&n| n.try_into().ok())
        .collect();
    sizes.try_into().map_err(|_| {
        EvalError::Tensor(candle_core::Error::Msg(format!(
            "expected a task of the number, height and width of images, found {:?}",
            task.numbers
        )))
    })
}
