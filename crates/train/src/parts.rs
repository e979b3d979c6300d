//! A step whose batch goes through the network a part at a time.

use crate::error::Result;
use crate::plan::{Accumulate, LoopPlan};
use crate::task::StepOutcome;
use crate::updater::Updater;
use candle_core::{Device, Tensor};
use sdft_autograd::backward;
use sdft_optim::{Accumulator, MicroBatches, Verdict, collect_gradients};
use std::ops::Range;

impl Accumulate {
    pub(crate) fn mode(self) -> MicroBatches {
        match self {
            Self::Mean => MicroBatches::Weighted,
            Self::Sum => MicroBatches::Summed,
        }
    }

    /// How much the mean over `n` of `total` images counts in the value of a batch.
    pub(crate) fn share(self, n: usize, total: usize) -> f64 {
        match self {
            Self::Mean => n as f64 / total as f64,
            Self::Sum => 1.0,
        }
    }
}

impl Updater {
    /// A step by the gradient of a loss over a batch, [`LoopPlan::at_once`] images at a time.
    ///
    /// `loss` computes the loss of these images of the batch, and the terms that it consists of, each a mean over them. The outcome has
    /// their values over the batch: `loss`, then the terms by their names, 0 for one that is absent, then `grad_norm`.
    ///
    /// # Errors
    /// Those of `loss`; the device fails.
    pub fn step_in_parts<const N: usize>(
        &mut self,
        step: u64,
        plan: &LoopPlan,
        names: [&'static str; N],
        mut loss: impl FnMut(Range<usize>) -> Result<(Tensor, [Option<Tensor>; N])>,
    ) -> Result<StepOutcome> {
        let (total, at_once) = (plan.batch, plan.at_once());
        let mut gradients = Accumulator::new(plan.accumulate.mode(), self.vars().len(), total);
        let (mut sum, mut sums) = (0.0, [0.0; N]);
        let mut device = Device::Cpu;
        for start in (0..total).step_by(at_once) {
            let n = at_once.min(total - start);
            let (loss, terms) = loss(start..start + n)?;
            let scaled = self.scaled(&loss)?;
            gradients.add(&collect_gradients(self.vars(), &backward(&scaled)?), n)?;
            let share = plan.accumulate.share(n, total);
            sum += share * value(&loss)?;
            device = loss.device().clone();
            for (sum, term) in sums.iter_mut().zip(&terms) {
                *sum += share * term.as_ref().map_or(Ok(0.0), value)?;
            }
        }
        let issued = self.apply(step, &gradients.finish()?, &Tensor::new(&[sum], &device)?)?;
        Ok(match issued.wait()? {
            Verdict::Updated { grad_norm } => {
                let terms = names.into_iter().zip(sums);
                let all = [("loss", sum)].into_iter().chain(terms);
                StepOutcome::Updated(all.chain([("grad_norm", grad_norm)]).collect())
            }
            Verdict::BadLoss => StepOutcome::Skipped("loss"),
            Verdict::BadGradient => StepOutcome::Skipped("gradient"),
        })
    }
}

fn value(term: &Tensor) -> Result<f64> {
    Ok(f64::from(term.to_scalar::<f32>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{OptimPlan, Precision};
    use candle_core::Var;

    /// One step on the mean of `w x` over four images, in parts of `at_once`: the outcome, and `w` after it.
    fn step(at_once: usize, accumulate: Accumulate, x: [f32; 4]) -> (StepOutcome, f32) {
        let w = Var::new(&[1f32], &Device::Cpu).unwrap();
        let optim = OptimPlan {
            kind: crate::plan::OptimizerKind::Sgd,
            lr: 0.1,
            warmup: 0,
            clip: 0.0,
            weight_decay: 0.0,
            momentum: 0.0,
            ..OptimPlan::default()
        };
        let vars = vec![("w".to_owned(), w.clone())];
        let mut updater = Updater::new(&optim, Precision::F32, 1, vars).unwrap();
        let plan = LoopPlan {
            batch: 4,
            micro_batch: at_once,
            accumulate,
            ..LoopPlan::default()
        };
        let loss = |part: Range<usize>| {
            let x = Tensor::new(&x[part], &Device::Cpu)?;
            let y = x.broadcast_mul(&w)?.mean_all()?;
            Ok((y, [Some(x.mean_all()?), None]))
        };
        let outcome = updater
            .step_in_parts(0, &plan, ["x", "none"], loss)
            .unwrap();
        (outcome, w.to_vec1::<f32>().unwrap()[0])
    }

    #[test]
    fn parts_of_a_batch_move_the_weights_like_the_whole() {
        let x = [1.0, 2.0, 3.0, 6.0];
        for at_once in [0, 1, 3, 4, 9] {
            let (outcome, w) = step(at_once, Accumulate::Mean, x);
            let values = vec![("loss", 3.0), ("x", 3.0), ("none", 0.0), ("grad_norm", 3.0)];
            assert_eq!(outcome, StepOutcome::Updated(values), "{at_once}");
            assert!((w - 0.7).abs() < 1e-6, "{at_once}: {w}");
        }
        // guided-diffusion's sum of the means of 1 and 6.
        let (outcome, w) = step(3, Accumulate::Sum, x);
        let values = vec![("loss", 8.0), ("x", 8.0), ("none", 0.0), ("grad_norm", 8.0)];
        assert_eq!(outcome, StepOutcome::Updated(values));
        assert!((w - 0.2).abs() < 1e-6, "{w}");
    }

    #[test]
    fn a_loss_that_is_not_finite_moves_nothing() {
        let (outcome, w) = step(2, Accumulate::Mean, [1.0, f32::NAN, 3.0, 6.0]);
        assert_eq!((outcome, w), (StepOutcome::Skipped("loss"), 1.0));
    }
}
