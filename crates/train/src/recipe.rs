//! What a step draws: timesteps, noise and weights, as a function of the seed, the step and each sample's place in the batch.

use crate::error::Result;
use crate::plan::{Accumulate, AuxSampling, DistillSampling, Plan};
use candle_core::{Device, Tensor};
use sdft_diffusion::Diffusion;
use sdft_losses::{Auxiliary, NoisedBatch, Objective, distill_factor};
use sdft_noise::{Draw, Purpose};
use sdft_randn::randn;
use sdft_schedule::{TimestepSampler, WeightedTimesteps};
use std::ops::Range;

/// Dropout addresses of auxiliary samples start here. A batch is smaller.
const AUX_SAMPLES: u64 = 1 << 21;

/// How the steps of a run draw their random numbers.
#[derive(Clone, Debug)]
pub struct Recipe {
    batch: usize,
    accumulate: Accumulate,
    timesteps: TimestepSampler,
    auxiliary: Option<AuxTimes>,
    /// `w(t)` of the distillation on images, if the source model sees images of small weight only now and then.
    distill_weights: Option<Vec<f64>>,
}

/// How the timesteps of auxiliary inputs are chosen, and their weights `w_aux(t)`.
#[derive(Clone, Debug)]
enum AuxTimes {
    Weighted(WeightedTimesteps),
    Uniform(Vec<f64>),
    Shared(Vec<f64>),
}

/// The numbers that one step draws for its whole batch.
#[derive(Clone, Debug, PartialEq)]
pub struct StepDraw {
    /// The seed of the run.
    pub seed: u64,
    /// The number of the step.
    pub step: u64,
    /// The timestep of each image.
    pub t: Vec<usize>,
    /// The factor of each image that undoes a non-uniform choice of its timestep.
    pub importance: Vec<f64>,
    /// The timestep of each auxiliary input; empty without the auxiliary term.
    pub aux_t: Vec<usize>,
    /// The weight of each auxiliary input.
    pub aux_weights: Vec<f64>,
    /// The factor of each image in the distillation term, 0 if the source model does not see it. `None` means 1 for all.
    pub distill: Option<Vec<f64>>,
    accumulate: Accumulate,
}

/// The numbers of a step for a part of its batch: a micro-batch, or what one process computes.
#[derive(Clone, Debug)]
pub struct PartDraw {
    /// The timestep of each image.
    pub t: Vec<usize>,
    /// The noise of each image, `[n, C, H, W]`.
    pub noise: Tensor,
    /// See [`StepDraw::importance`].
    pub importance: Vec<f64>,
    /// See [`StepDraw::distill`].
    pub distill: Option<Vec<f64>>,
    /// The auxiliary inputs that go with these images, if there are any.
    pub auxiliary: Option<AuxDraw>,
    /// The addresses of the dropout masks: one for each image, then one for each auxiliary input.
    pub samples: Vec<u64>,
}

/// Auxiliary inputs of a part of a batch.
#[derive(Clone, Debug)]
pub struct AuxDraw {
    /// Pure noise, `[m, C, H, W]`.
    pub z: Tensor,
    /// The timestep of each input.
    pub t: Vec<usize>,
    /// The weight of each input. It includes a factor for parts that have more or fewer inputs per image than the batch.
    pub weights: Vec<f64>,
}

impl Recipe {
    /// The recipe of a plan with this objective.
    ///
    /// # Errors
    /// An unknown choice of timesteps, or weights of the auxiliary term that are all zero.
    pub fn new<M>(plan: &Plan<M>, objective: &Objective, diffusion: &Diffusion) -> Result<Self> {
        let schedule = &diffusion.schedule;
        let auxiliary = match objective.aux {
            None => None,
            Some(term) => {
                let weights = term.weighting.weights(schedule);
                Some(match plan.loss.aux_sampling {
                    AuxSampling::Weighted => AuxTimes::Weighted(WeightedTimesteps::new(&weights)?),
                    AuxSampling::Uniform => AuxTimes::Uniform(weights),
                    AuxSampling::Shared => AuxTimes::Shared(weights),
                })
            }
        };
        let distill_weights = match (objective.distill, plan.loss.distill_sampling) {
            (Some(term), DistillSampling::Weighted) => Some(term.weighting.weights(schedule)),
            _ => None,
        };
        Ok(Self {
            batch: plan.steps.batch,
            accumulate: plan.steps.accumulate,
            timesteps: TimestepSampler::named(&plan.loss.timesteps, diffusion.n_steps())?,
            auxiliary,
            distill_weights,
        })
    }

    /// What step `step` of a run with this seed draws. The result depends on nothing else, except that a choice of timesteps by past
    /// losses depends on these losses.
    pub fn draw(&self, seed: u64, step: u64) -> StepDraw {
        let uniforms = |purpose, n: usize| -> Vec<f64> {
            (0..n as u64)
                .map(|i| Draw::new(seed, purpose, step, i).uniform(0))
                .collect()
        };
        let draws = self
            .timesteps
            .sample(&uniforms(Purpose::Timestep, self.batch));
        let t: Vec<usize> = draws.iter().map(|draw| draw.t).collect();
        let (aux_t, aux_weights) = self.auxiliary_times(&t, |n| uniforms(Purpose::AuxTimestep, n));
        let distill = self.distill_weights.as_ref().map(|weights| {
            let uniforms = uniforms(Purpose::Distill, self.batch);
            let pairs = t.iter().zip(uniforms);
            pairs.map(|(&t, u)| distill_factor(weights[t], u)).collect()
        });
        StepDraw {
            seed,
            step,
            importance: draws.iter().map(|draw| draw.weight).collect(),
            t,
            aux_t,
            aux_weights,
            distill,
            accumulate: self.accumulate,
        }
    }

    /// Timesteps and weights of the auxiliary inputs.
    fn auxiliary_times(
        &self,
        image_t: &[usize],
        uniforms: impl Fn(usize) -> Vec<f64>,
    ) -> (Vec<usize>, Vec<f64>) {
        let (t, weights): (Vec<usize>, &[f64]) = match &self.auxiliary {
            None => return Default::default(),
            Some(AuxTimes::Weighted(weighted)) => {
                // A third of the batch is as good as the whole batch drawn uniformly.
                let uniforms = uniforms(((self.batch + 1) / 3).max(1));
                let t: Vec<usize> = uniforms.iter().map(|&u| weighted.sample(u)).collect();
                let weights = vec![weighted.mean(); t.len()];
                return (t, weights);
            }
            Some(AuxTimes::Shared(weights)) => (image_t.to_vec(), weights),
            Some(AuxTimes::Uniform(weights)) => {
                let n_steps = weights.len();
                let draws = TimestepSampler::Uniform { n_steps }.sample(&uniforms(self.batch));
                (draws.iter().map(|draw| draw.t).collect(), weights)
            }
        };
        let weights = t.iter().map(|&t| weights[t]).collect();
        (t, weights)
    }

    /// The sampler of the timesteps, with its history of losses.
    pub fn timesteps(&self) -> &TimestepSampler {
        &self.timesteps
    }

    pub(crate) fn timesteps_mut(&mut self) -> &mut TimestepSampler {
        &mut self.timesteps
    }
}

impl StepDraw {
    /// The numbers for the images of this range, `[C, H, W]` each. Auxiliary inputs are spread over the batch in proportion.
    ///
    /// # Errors
    /// The device fails.
    pub fn part(&self, images: Range<usize>, shape: &[usize], device: &Device) -> Result<PartDraw> {
        let (batch, n_aux, n) = (self.t.len(), self.aux_t.len(), images.len());
        if images.is_empty() || images.end > batch {
            return Err(candle_core::Error::Msg(format!(
                "expected a part of the batch 0..{batch} with images, found {images:?}"
            ))
            .into());
        }
        let normal = |purpose, first: usize, n: usize| {
            let (step, shape) = (self.step, [&[n], shape].concat());
            randn(self.seed, purpose, step, first as u64, &shape, device)
        };
        let aux = images.start * n_aux / batch..images.end * n_aux / batch;
        let auxiliary = match aux.len() {
            0 => None,
            m => {
                // A micro-batch counts by its images. This factor makes auxiliary inputs count by their own number.
                let balance = match self.accumulate {
                    Accumulate::Mean => (m * batch) as f64 / (n_aux * n) as f64,
                    Accumulate::Sum => 1.0,
                };
                let weights = self.aux_weights[aux.clone()].iter();
                Some(AuxDraw {
                    z: normal(Purpose::AuxNoise, aux.start, m)?,
                    t: self.aux_t[aux.clone()].to_vec(),
                    weights: weights.map(|w| w * balance).collect(),
                })
            }
        };
        let numbers = images.clone().map(|i| i as u64);
        let of_aux = aux.map(|i| AUX_SAMPLES + i as u64);
        Ok(PartDraw {
            noise: normal(Purpose::Noise, images.start, n)?,
            auxiliary,
            samples: numbers.chain(of_aux).collect(),
            t: self.t[images.clone()].to_vec(),
            importance: self.importance[images.clone()].to_vec(),
            distill: self
                .distill
                .as_ref()
                .map(|factors| factors[images].to_vec()),
        })
    }
}

impl PartDraw {
    /// The part as the objective takes it, with its images `x0` `[n, C, H, W]`.
    pub fn batch<'a>(&'a self, x0: &'a Tensor) -> NoisedBatch<'a> {
        NoisedBatch {
            x0,
            t: &self.t,
            noise: &self.noise,
            importance: Some(&self.importance),
            distill: self.distill.as_deref(),
        }
    }

    /// The auxiliary inputs as the objective takes them.
    pub fn auxiliary(&self) -> Option<Auxiliary<'_>> {
        self.auxiliary.as_ref().map(|aux| Auxiliary {
            z: &aux.z,
            t: &aux.t,
            weights: &aux.weights,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Method;
    use sdft_schedule::Respacing;

    fn recipe(change: impl Fn(&mut Plan)) -> Recipe {
        let mut plan = <Plan>::default();
        plan.steps.batch = 7;
        change(&mut plan);
        let diffusion = plan.process.diffusion(false, &Respacing::All).unwrap();
        Recipe::new(&plan, &plan.objective(false), &diffusion).unwrap()
    }

    #[test]
    fn a_draw_is_a_function_of_seed_and_step() {
        let recipe = recipe(|_| {});
        let draw = recipe.draw(3, 5);
        assert_eq!(recipe.clone().draw(3, 5), draw);
        assert_ne!(recipe.draw(3, 6).t, draw.t);
        assert_ne!(recipe.draw(4, 5).t, draw.t);
        assert_eq!((draw.t.len(), draw.aux_t.len()), (7, 2));
        assert!(draw.t.iter().all(|&t| t < 1000));
    }

    #[test]
    fn the_split_into_parts_changes_no_number() {
        let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for sampling in [
            AuxSampling::Weighted,
            AuxSampling::Uniform,
            AuxSampling::Shared,
        ] {
            let recipe = recipe(|plan| {
                plan.loss.aux_sampling = sampling;
                plan.steps.accumulate = Accumulate::Sum;
            });
            let draw = recipe.draw(3, 5);
            let part = |range| draw.part(range, &[3, 4, 4], &Device::Cpu).unwrap();
            let whole = part(0..7);
            for cuts in [
                vec![0, 7],
                vec![0, 2, 4, 6, 7],
                vec![0, 1, 2, 3, 4, 5, 6, 7],
            ] {
                let parts: Vec<PartDraw> = cuts.windows(2).map(|c| part(c[0]..c[1])).collect();
                let all = |f: &dyn Fn(&PartDraw) -> Vec<f64>| -> Vec<f64> {
                    parts.iter().flat_map(f).collect()
                };
                let t = |p: &PartDraw| p.t.iter().map(|&t| t as f64).collect::<Vec<_>>();
                assert_eq!(all(&t), t(&whole));
                let noise = |p: &PartDraw| numbers(&p.noise).into_iter().map(f64::from).collect();
                assert_eq!(all(&noise), noise(&whole) as Vec<f64>);
                let aux = |p: &PartDraw| {
                    p.auxiliary.as_ref().map_or(Vec::new(), |aux| {
                        let z = numbers(&aux.z).into_iter().map(f64::from);
                        let t = aux.t.iter().map(|&t| t as f64);
                        aux.weights.iter().copied().chain(t).chain(z).collect()
                    })
                };
                let sorted = |mut values: Vec<f64>| {
                    values.sort_by(f64::total_cmp);
                    values
                };
                assert_eq!(sorted(all(&aux)), sorted(aux(&whole)));
                let distill = |p: &PartDraw| p.distill.clone().unwrap();
                assert_eq!(all(&distill), distill(&whole));
                let mut samples: Vec<u64> = parts.iter().flat_map(|p| p.samples.clone()).collect();
                samples.sort_unstable();
                assert_eq!(samples, whole.samples);
            }
        }
    }

    #[test]
    fn means_of_parts_weigh_auxiliary_inputs_by_their_own_number() {
        let draw = recipe(|_| {}).draw(3, 5);
        let part = |range| draw.part(range, &[3, 2, 2], &Device::Cpu).unwrap();
        // The mean over a part, weighted by its share of the images, adds up to the mean over all auxiliary inputs.
        let cuts = [0, 2, 4, 6, 7];
        let sum: f64 = cuts
            .windows(2)
            .filter_map(|c| {
                let weights = part(c[0]..c[1]).auxiliary?.weights;
                let mean = weights.iter().sum::<f64>() / weights.len() as f64;
                Some(mean * (c[1] - c[0]) as f64 / 7.0)
            })
            .sum();
        let whole = draw.aux_weights.iter().sum::<f64>() / 2.0;
        assert!((sum - whole).abs() < 1e-12 * whole, "{sum} {whole}");
    }

    #[test]
    fn methods_without_distillation_draw_nothing_for_it() {
        let recipe = recipe(|plan| plan.method = Method::Naive);
        let draw = recipe.draw(0, 0);
        assert!(draw.aux_t.is_empty() && draw.distill.is_none());
        let part = draw.part(0..7, &[3, 2, 2], &Device::Cpu).unwrap();
        assert!(part.auxiliary().is_none());
        assert_eq!(part.samples, (0..7).collect::<Vec<u64>>());
    }

    #[test]
    fn parts_without_images_or_beyond_the_batch_are_errors() {
        let draw = recipe(|_| {}).draw(3, 5);
        for images in [2..2, 5..8, 7..9] {
            let error = draw.part(images.clone(), &[3, 2, 2], &Device::Cpu);
            let text = error.unwrap_err().to_string();
            assert!(
                text.contains("0..7") && text.contains(&format!("{images:?}")),
                "{text}"
            );
        }
    }
}
