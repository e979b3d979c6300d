//! The sum of gradients over processes, which begins while the last backward pass of a step runs.

use super::Learner;
use crate::error::Result;
use candle_core::{Error, Tensor, TensorId};
use sdft_autograd::backward_each;
use sdft_optim::LastMicroBatch;
use sdft_parallel::BucketedSum;
use std::collections::HashMap;
use std::sync::Arc;

impl Learner {
    /// The sums of gradients over all processes, of which `own` has those of the micro-batches before `loss`. A variable that gets no
    /// gradient here counts as zero, since it may get one in another process.
    pub(super) fn sum_over_ranks(
        &self,
        loss: &Tensor,
        own: LastMicroBatch,
    ) -> Result<Vec<Option<Tensor>>> {
        let vars = self.updater.vars();
        let parameters: Vec<Tensor> = vars.iter().map(|(_, var)| var.detach()).collect();
        let indices = vars.iter().enumerate().map(|(i, (_, var))| (var.id(), i));
        let mut sums = Sums {
            indices: indices.collect(),
            own,
            of_all: BucketedSum::new(Arc::clone(&self.group), parameters),
        };
        if self.network.pulls_back() {
            let gradients = self.gradients(loss)?;
            for (_, var) in vars {
                if let Some(gradient) = gradients.get(var) {
                    sums.add(var.id(), gradient.clone())?;
                }
            }
        } else {
            sums = backward_each(loss, sums, Sums::add)?;
        }
        // Without a gradient in the last micro-batch.
        for (_, i) in std::mem::take(&mut sums.indices) {
            sums.add_own(i, None)?;
        }
        Ok(sums.of_all.finish()?.into_iter().map(Some).collect())
    }
}

struct Sums {
    /// The variables that have no gradient yet.
    indices: HashMap<TensorId, usize>,
    own: LastMicroBatch,
    of_all: BucketedSum,
}

impl Sums {
    fn add(&mut self, id: TensorId, gradient: Tensor) -> candle_core::Result<()> {
        match self.indices.remove(&id) {
            Some(i) => self.add_own(i, Some(&gradient)),
            // Not trained.
            None => Ok(()),
        }
    }

    fn add_own(&mut self, i: usize, gradient: Option<&Tensor>) -> candle_core::Result<()> {
        match self.own.finish(i, gradient).map_err(Error::wrap)? {
            Some(gradient) => self.of_all.add(i, gradient),
            None => Ok(()),
        }
    }
}
