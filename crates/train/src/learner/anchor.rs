//! The pull of the weights towards those of the source model.

use super::Learner;
use crate::error::Result;
use crate::inputs::{Inputs, Student};
use crate::kept::Bank;
use crate::plan::PlanError;
use candle_core::{Device, Tensor};
use sdft_losses::{Fisher, NoisedBatch, Objective};
use sdft_noise::{Draw, Purpose};
use sdft_optim::collect_gradients;
use sdft_randn::randn;
use sdft_schedule::TimestepSampler;

impl Learner {
    /// The diagonal of the Fisher information at the present weights, divided by its mean. Each gradient is that of the base loss of one
    /// sample of the source model at a random step.
    pub(super) fn fisher(&mut self, bank: &Bank, gradients: u64) -> Result<Vec<Tensor>> {
        let objective = Objective::base_only(self.objective.base, self.objective.variational);
        let vars = self.updater.vars().to_vec();
        let device = &vars
            .first()
            .map_or(Device::Cpu, |(_, var)| var.device().clone());
        let all = self.diffusion.all_levels();
        let mut fisher = Fisher::default();
        for i in 0..gradients {
            let x0 = bank.image(i, device)?;
            let u = Draw::new(self.seed, Purpose::Fisher, 0, i).uniform(0);
            let drawn = TimestepSampler::Uniform { n_steps: all.len() }.sample(&[u]);
            let levels = [all[drawn[0].t]];
            let noise = randn(self.seed, Purpose::Fisher, 1, i, x0.dims(), device)?;
            let student = Student {
                network: &*self.network,
                inputs: &Inputs::other(self.labels, i as usize),
                dropout: None,
            };
            let batch = NoisedBatch::new(&x0, &levels, &noise);
            let terms = objective.evaluate(&self.diffusion, &student, None, &batch, None)?;
            // Small gradients of half-precision maps need the scale, which the division by the mean removes.
            let loss = self.updater.scaled(&terms.total)?;
            let gradients = collect_gradients(&vars, &self.gradients(&loss)?);
            fisher.add(&vars, &gradients)?;
        }
        let normalised = fisher.normalised().map_err(|error| PlanError {
            key: "loss.anchor.ewc".into(),
            problem: format!("{error}; f16 overflows here, bf16 and f32 (loop.precision) do not"),
        })?;
        Ok(normalised.0)
    }

    /// Adds the pull of the anchor to the gradients and to the numbers of the loss.
    pub(super) fn pull_to_start(
        &mut self,
        gradients: &mut [Option<Tensor>],
        numbers: Tensor,
    ) -> Result<Tensor> {
        let Some(anchor) = &self.anchor else {
            return Ok(numbers);
        };
        let device = numbers.device().clone();
        // The gradients are those of the scaled loss.
        let scale = self.updater.scaled(&Tensor::new(1f32, &device)?)?;
        let mut sum = Tensor::new(0f64, &device)?;
        for (i, (gradient, (_, var))) in gradients.iter_mut().zip(self.updater.vars()).enumerate() {
            let (pull, value) = anchor.pull(i, var)?;
            let pull = pull.broadcast_mul(&scale)?;
            *gradient = Some(match gradient.take() {
                Some(gradient) => (gradient + pull)?,
                None => pull,
            });
            sum = (sum + value)?;
        }
        let mut places = [0.0; 9];
        (places[0], places[8]) = (1.0, 1.0);
        let places = Tensor::new(&places, &device)?;
        Ok((numbers + places.broadcast_mul(&sum)?)?)
    }
}
