//! What methods of fine-tuning ask of the networks before the loss: guidance in the target, adversarial noise, the Fisher information.

use crate::error::{Result, TrainError};
use crate::inputs::{Inputs, Labels, Student, Teacher};
use crate::plan::{AntPlan, DogfitPlan, Plan, PlanError};
use crate::source::Source;
use crate::updater::Updater;
use candle_core::Tensor;
use sdft_autograd::no_grad;
use sdft_diffusion::{Denoiser, Diffusion, Level, Prediction, Trainable, predict_at, q_sample};
use sdft_losses::{adversarial_noise, ant_shift, dogfit_shift};

/// `grad_x log p(target | x_t)` of a classifier of noised images. It is called with `x_t` `[B, C, H, W]` and the original steps of a
/// discrete process; those of a continuous process are the nearest of its discrete view.
pub type LogProbGradient = Box<dyn Fn(&Tensor, &[f32]) -> candle_core::Result<Tensor>>;

/// The methods of a run that change noise and targets.
pub(crate) struct Methods {
    dogfit: DogfitPlan,
    ant: AntPlan,
    pub(crate) classifier: Option<LogProbGradient>,
    /// The steps of the process; of a continuous one, those of its discrete view.
    steps: Vec<Level>,
}

/// The networks of a step.
pub(crate) struct Networks<'a> {
    pub(crate) network: &'a dyn Trainable,
    pub(crate) updater: &'a Updater,
    pub(crate) source: Option<&'a Source>,
    pub(crate) labels: Option<Labels>,
}

/// The noise of a step, and what is added to it in the target.
pub(crate) struct Guided {
    pub(crate) noise: Tensor,
    pub(crate) shift: Option<Tensor>,
}

impl Methods {
    pub(crate) fn new<M>(plan: &Plan<M>, diffusion: &Diffusion) -> Self {
        Self {
            dogfit: plan.loss.dogfit.clone(),
            ant: plan.loss.ant.clone(),
            classifier: None,
            steps: diffusion.all_levels(),
        }
    }

    /// Noise and target shift of step `step` for images `x0` `[n, C, H, W]`, whose inputs are the first of `inputs`.
    pub(crate) fn guide(
        &self,
        step: u64,
        networks: &Networks<'_>,
        inputs: &Inputs,
        x0: &Tensor,
        levels: &[Level],
        noise: &Tensor,
    ) -> Result<Guided> {
        let mut guided = Guided {
            noise: noise.clone(),
            shift: None,
        };
        let n = levels.len();
        for _ in 0..self.ant.rounds {
            let xt = q_sample(x0, levels, &guided.noise)?;
            let all: Vec<usize> = (0..n).collect();
            let prediction = networks.student(&inputs.rows(&all)?, &xt, levels)?;
            guided.noise = adversarial_noise(
                self.ant.omega,
                &guided.noise,
                &prediction.eps(&xt, levels)?.detach(),
            )?;
        }
        let rows = self.guided_rows(step, levels);
        if rows.is_empty() && self.ant.guidance == 0.0 {
            return Ok(guided);
        }
        let xt = q_sample(x0, levels, &guided.noise)?;
        let mut shifts = Vec::new();
        if !rows.is_empty() {
            shifts.push(self.dogfit(networks, inputs, &xt, levels, &rows)?);
        }
        if self.ant.guidance > 0.0 {
            let Some(gradient) = &self.classifier else {
                return Err(missing(
                    "loss.ant.classifier",
                    "the method needs a classifier, but none was given",
                ));
            };
            let steps: Vec<f32> = levels.iter().map(|level| self.step(level) as f32).collect();
            shifts.push(ant_shift(
                self.ant.guidance,
                levels,
                &gradient(&xt, &steps)?,
            )?);
        }
        for shift in shifts {
            guided.shift = Some(match guided.shift {
                None => shift,
                Some(sum) => (sum + shift)?,
            });
        }
        Ok(guided)
    }

    /// The images that DogFit guides in a step.
    fn guided_rows(&self, step: u64, levels: &[Level]) -> Vec<usize> {
        if !self.dogfit.is_on() || step < self.dogfit.start {
            return Vec::new();
        }
        let last = self.steps.len().saturating_sub(1).max(1) as f64;
        let share = |level: &Level| self.step(level) as f64 / last;
        (0..levels.len())
            .filter(|&i| share(&levels[i]) < self.dogfit.cutoff)
            .collect()
    }

    /// DogFit's shift, which is 0 for images that are not among `rows`.
    fn dogfit(
        &self,
        networks: &Networks<'_>,
        inputs: &Inputs,
        xt: &Tensor,
        levels: &[Level],
        rows: &[usize],
    ) -> Result<Tensor> {
        let places: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        let places = Tensor::new(places, xt.device())?;
        let some = xt.index_select(&places, 0)?;
        let levels: Vec<Level> = rows.iter().map(|&row| levels[row]).collect();
        let inputs = inputs.rows(rows)?;
        let average = networks
            .updater
            .with_averaged(|| networks.student(&inputs, &some, &levels))?
            .eps(&some, &levels)?;
        let Some(source) = networks.source else {
            return Err(missing(
                "loss.dogfit",
                "the method needs a source model, but none was given",
            ));
        };
        let teacher = Teacher {
            source,
            inputs: inputs.without_class(networks.labels),
        };
        let of_source = no_grad(|| predict_at(&teacher, &some, &levels))?;
        let channels = xt.dim(1)?;
        let known = source.channels().unwrap_or(channels);
        let of_source = Prediction::new(
            of_source.output.narrow(1, 0, known)?,
            of_source.prediction_type,
        );
        let of_source = of_source.eps(&some.narrow(1, 0, known)?, &levels)?;
        let shift = dogfit_shift(
            self.dogfit.weight,
            &average.narrow(1, 0, known)?,
            &of_source,
        )?;
        let shift = shift.pad_with_zeros(1, 0, channels - known)?;
        Ok(xt
            .zeros_like()?
            .index_add(&places, &shift.contiguous()?, 0)?)
    }

    /// The step of a level, or the nearest one by noise.
    fn step(&self, level: &Level) -> usize {
        if let Some(step) = level.step {
            return step;
        }
        let after = self
            .steps
            .partition_point(|step| step.alpha_bar > level.alpha_bar);
        let distance = |i: usize| match self.steps.get(i) {
            Some(step) => (step.sigma().ln() - level.sigma().ln()).abs(),
            None => f64::INFINITY,
        };
        match after {
            0 => 0,
            _ if distance(after - 1) <= distance(after) => after - 1,
            _ => after,
        }
    }
}

/// The error about an input that a method needs.
pub(crate) fn missing(key: &str, problem: &str) -> TrainError {
    PlanError {
        key: key.to_owned(),
        problem: problem.to_owned(),
    }
    .into()
}

impl Networks<'_> {
    /// The prediction of the network in training, without gradients and dropout.
    fn student(&self, inputs: &Inputs, xt: &Tensor, levels: &[Level]) -> Result<Prediction> {
        let student = Student {
            network: self.network,
            inputs,
            dropout: None,
        };
        let times: Vec<f32> = levels.iter().map(|level| level.t).collect();
        Ok(no_grad(|| student.predict(xt, &times))?.detach())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_schedule::Respacing;

    fn methods(change: impl FnOnce(&mut Plan)) -> (Methods, Diffusion) {
        let mut plan = <Plan>::default();
        change(&mut plan);
        let diffusion = plan.process.diffusion(false, &Respacing::All).unwrap();
        (Methods::new(&plan, &diffusion), diffusion)
    }

    #[test]
    fn dogfit_guides_the_steps_below_its_cut_off_from_its_start_on() {
        let (methods, diffusion) = methods(|plan| {
            (plan.loss.dogfit.weight, plan.loss.dogfit.start) = (1.5, 4);
        });
        // 749 / 999 is below 0.75 and 750 / 999 is above.
        let levels = diffusion.levels(&[999, 0, 750, 749]).unwrap();
        assert_eq!(methods.guided_rows(4, &levels), [1, 3]);
        assert!(methods.guided_rows(3, &levels).is_empty());
    }

    #[test]
    fn a_level_between_steps_has_the_nearest_step() {
        let (methods, diffusion) = methods(|_| {});
        for step in [0, 1, 500, 998, 999] {
            let known = diffusion.levels(&[step]).unwrap()[0];
            for factor in [1.0, 1.0 + 1e-4, 1.0 - 1e-4] {
                let level = Level::of_sigma(known.sigma() * factor);
                assert_eq!(methods.step(&level), step, "{factor}");
            }
        }
        assert_eq!(methods.step(&Level::of_sigma(1e-9)), 0);
        assert_eq!(methods.step(&Level::of_sigma(1e9)), 999);
    }
}
