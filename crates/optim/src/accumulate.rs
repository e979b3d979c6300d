//! Gradients of a batch that is too large for the memory.

use candle_core::{Tensor, Var};

use crate::{
    error::{OptimError, Result},
    inplace::blend,
};

/// How the gradients of micro-batches are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MicroBatches {
    /// Each counts by its number of samples: the sum is the gradient of the mean loss over the whole batch.
    #[default]
    Weighted,
    /// Plain sum of the gradients of micro-batch means, as guided-diffusion does; `n` micro-batches give an `n` times larger gradient.
    Summed,
}

/// Adds up the gradients of micro-batches, parameter by parameter.
///
/// ```text
/// weighted:  g = sum_i (n_i / n) g_i          summed:  g = sum_i g_i
/// ```
/// The gradient of a single micro-batch that is the whole batch is returned unchanged.
#[derive(Debug)]
pub struct Accumulator {
    mode: MicroBatches,
    n_samples: usize,
    /// The samples of this process.
    n_here: usize,
    n_seen: usize,
    sums: Vec<Option<Sum>>,
}

/// The gradient so far. The first one is kept unchanged, because one micro-batch is the usual case.
#[derive(Debug)]
enum Sum {
    One { grad: Tensor, weight: f64 },
    Many(Var),
}

impl Accumulator {
    /// An empty sum for the gradients of `n_params` parameters over a batch of `n_samples`.
    #[must_use]
    pub fn new(mode: MicroBatches, n_params: usize, n_samples: usize) -> Self {
        Self::part(mode, n_params, n_samples, n_samples)
    }

    /// An empty sum for the `n_here` samples of this process. The gradient of the batch is the sum over all processes.
    #[must_use]
    pub fn part(mode: MicroBatches, n_params: usize, n_samples: usize, n_here: usize) -> Self {
        Self {
            mode,
            n_samples,
            n_here,
            n_seen: 0,
            sums: (0..n_params).map(|_| None).collect(),
        }
    }

    /// Adds the gradients of the mean loss over `n_micro` samples.
    ///
    /// # Shapes
    /// - `grads` in the order of the parameters; `None` where the loss does not depend on one
    /// # Errors
    /// - the number of gradients differs from the number of parameters
    /// - a gradient has another shape than before
    pub fn add(&mut self, grads: &[Option<Tensor>], n_micro: usize) -> Result<()> {
        let (expected, found) = (self.sums.len(), grads.len());
        if expected != found {
            return Err(OptimError::GradientCount { expected, found });
        }
        let weight = self.weight(n_micro);
        let sums = &mut self.sums;
        rayon::scope(|_| {
            for (sum, grad) in sums.iter_mut().zip(grads) {
                if let Some(grad) = grad {
                    add_one(sum, grad, weight)?;
                }
            }
            Ok::<_, OptimError>(())
        })?;
        self.n_seen += n_micro;
        Ok(())
    }

    /// The gradient of the batch, in the order of the parameters.
    ///
    /// # Errors
    /// The micro-batches do not add up to the batch.
    pub fn finish(self) -> Result<Vec<Option<Tensor>>> {
        self.check(self.n_seen)?;
        let sums = self.sums.into_iter();
        sums.map(|sum| sum.map(Sum::finish).transpose()).collect()
    }

    /// Takes the last micro-batch, of `n_micro` samples, one gradient at a time; the accumulator keeps nothing.
    ///
    /// # Errors
    /// The micro-batches do not add up to the batch.
    pub fn last(&mut self, n_micro: usize) -> Result<LastMicroBatch> {
        self.check(self.n_seen + n_micro)?;
        Ok(LastMicroBatch {
            weight: self.weight(n_micro),
            sums: std::mem::take(&mut self.sums),
        })
    }

    fn weight(&self, n_micro: usize) -> f64 {
        match self.mode {
            MicroBatches::Weighted => n_micro as f64 / self.n_samples.max(1) as f64,
            MicroBatches::Summed => 1.0,
        }
    }

    fn check(&self, found: usize) -> Result<()> {
        if found == self.n_here {
            return Ok(());
        }
        Err(OptimError::SampleCount {
            expected: self.n_here,
            found,
        })
    }
}

/// The last micro-batch of an [`Accumulator`], whose gradients come one at a time.
#[derive(Debug)]
pub struct LastMicroBatch {
    weight: f64,
    sums: Vec<Option<Sum>>,
}

impl LastMicroBatch {
    /// The gradient of the batch for the parameter with this index, of which `grad` is that of the last micro-batch; `None` if the loss does
    /// not depend on it. Each parameter is asked for once.
    ///
    /// # Errors
    /// The gradient has another shape than before.
    pub fn finish(&mut self, index: usize, grad: Option<&Tensor>) -> Result<Option<Tensor>> {
        let mut sum = self.sums.get_mut(index).and_then(Option::take);
        if let Some(grad) = grad {
            add_one(&mut sum, grad, self.weight)?;
        }
        sum.map(Sum::finish).transpose()
    }
}

impl Sum {
    fn finish(self) -> Result<Tensor> {
        match self {
            Self::One { grad, weight: 1.0 } => Ok(grad),
            Self::One { grad, weight } => Ok(grad.affine(weight, 0.0)?),
            Self::Many(sum) => Ok(sum.as_detached_tensor()),
        }
    }
}

fn add_one(sum: &mut Option<Sum>, grad: &Tensor, weight: f64) -> Result<()> {
    match sum {
        None => {
            let grad = grad.detach();
            *sum = Some(Sum::One { grad, weight });
        }
        Some(Sum::One {
            grad: first,
            weight: first_weight,
        }) => {
            // The first gradient may be shared with another parameter, so the running sum gets its own memory.
            let many = Var::from_tensor(&first.affine(*first_weight, 0.0)?.contiguous()?.detach())?;
            blend(&many, grad, 1.0, weight)?;
            *sum = Some(Sum::Many(many));
        }
        Some(Sum::Many(many)) => blend(many, grad, 1.0, weight)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn grads(a: &[f32], b: Option<f32>) -> Vec<Option<Tensor>> {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        vec![Some(tensor(a)), b.map(|b| tensor(&[b]))]
    }

    fn values(grads: &[Option<Tensor>]) -> Vec<Option<Vec<f32>>> {
        let values = |grad: &Tensor| grad.to_vec1().unwrap();
        grads.iter().map(|grad| grad.as_ref().map(values)).collect()
    }

    #[test]
    fn weighted_micro_batches_give_the_gradient_of_the_whole_batch() {
        let mut sum = Accumulator::new(MicroBatches::Weighted, 2, 8);
        sum.add(&grads(&[4.0, 8.0], None), 4).unwrap();
        sum.add(&grads(&[8.0, -4.0], Some(16.0)), 2).unwrap();
        sum.add(&grads(&[0.0, 4.0], Some(8.0)), 2).unwrap();
        assert_eq!(
            values(&sum.finish().unwrap()),
            [Some(vec![4.0, 4.0]), Some(vec![6.0])]
        );
    }

    #[test]
    fn summed_micro_batches_ignore_their_sizes() {
        let mut sum = Accumulator::new(MicroBatches::Summed, 2, 5);
        sum.add(&grads(&[1.0, 2.0], Some(1.0)), 4).unwrap();
        sum.add(&grads(&[3.0, 4.0], None), 1).unwrap();
        assert_eq!(
            values(&sum.finish().unwrap()),
            [Some(vec![4.0, 6.0]), Some(vec![1.0])]
        );
    }

    #[test]
    fn one_micro_batch_comes_out_unchanged_and_inputs_are_never_written() {
        let whole = grads(&[0.1, 0.2], Some(0.3));
        let mut sum = Accumulator::new(MicroBatches::Weighted, 2, 3);
        sum.add(&whole, 3).unwrap();
        assert_eq!(values(&sum.finish().unwrap()), values(&whole));

        let shared = Tensor::new(&[1.0_f32], &Device::Cpu).unwrap();
        let shared = vec![Some(shared.clone()), Some(shared)];
        let mut sum = Accumulator::new(MicroBatches::Summed, 2, 3);
        for _ in 0..3 {
            sum.add(&shared, 1).unwrap();
        }
        assert_eq!(
            values(&sum.finish().unwrap()),
            [Some(vec![3.0]), Some(vec![3.0])]
        );
        assert_eq!(values(&shared), [Some(vec![1.0]), Some(vec![1.0])]);
    }

    #[test]
    fn the_last_micro_batch_may_come_parameter_by_parameter() {
        let parts = [grads(&[0.1, 0.7], None), grads(&[0.3, 0.4], Some(0.9))];
        let last = grads(&[0.6, 0.2], None);
        for n_before in 0..=2 {
            let sum = || {
                let n = 3 * n_before + 2;
                let mut sum = Accumulator::new(MicroBatches::Weighted, 2, n);
                for part in parts.iter().take(n_before) {
                    sum.add(part, 3).unwrap();
                }
                sum
            };
            let (mut whole, mut single) = (sum(), sum());
            whole.add(&last, 2).unwrap();
            let mut single = single.last(2).unwrap();
            let mut each = [1, 0].map(|i| single.finish(i, last[i].as_ref()).unwrap());
            each.reverse();
            assert_eq!(values(&each), values(&whole.finish().unwrap()));
            assert!(sum().last(1).is_err());
        }
    }

    #[test]
    fn missing_samples_and_gradients_are_errors() {
        let mut sum = Accumulator::new(MicroBatches::Weighted, 2, 3);
        let error = sum.add(&[None], 1).unwrap_err().to_string();
        assert_eq!(error, "1 gradients for 2 parameters");
        sum.add(&grads(&[1.0], None), 2).unwrap();
        assert!(sum.add(&grads(&[1.0, 2.0], None), 1).is_err());
        let error = sum.finish().unwrap_err().to_string();
        assert_eq!(
            error,
            "micro-batches of 2 samples were accumulated for a batch of 3"
        );
    }
}
