//! What a step draws: noise levels, noise and weights, as a function of the seed, the step and each sample's place in the batch.

use crate::error::Result;
use crate::kept::{KeptDraw, KeptLevels};
use crate::plan::{Accumulate, AuxSampling, DistillSampling, Plan};
use candle_core::{Device, Tensor};
use sdft_diffusion::{Diffusion, Level, NoiseLevels, StepLevels};
use sdft_losses::{Auxiliary, NoisedBatch, Objective, distill_factor, weights_at};
use sdft_noise::{Draw, Purpose};
use sdft_randn::randn;
use sdft_schedule::{ScheduleError, TimestepSampler, WeightedTimesteps, Weighting};
use std::ops::Range;

/// Dropout addresses of auxiliary samples start here. A batch is smaller.
const AUX_SAMPLES: u64 = 1 << 21;
/// Those of kept samples start here.
const KEPT_SAMPLES: u64 = 1 << 22;

/// How the steps of a run draw their random numbers.
pub struct Recipe {
    batch: usize,
    accumulate: Accumulate,
    levels: Box<dyn NoiseLevels + Send + Sync>,
    auxiliary: Option<AuxLevels>,
    /// The weight of the distillation on images, if the source model sees images of small weight only now and then.
    distill: Option<Weighting>,
    /// The share of class labels that are replaced by the null class.
    label_dropout: f64,
    kept: Option<KeptLevels>,
}

/// How the levels of auxiliary inputs are chosen, and their weight `w_aux`.
struct AuxLevels {
    weighting: Weighting,
    choice: AuxChoice,
    /// The steps of the process; of a continuous one, those of its discrete view.
    steps: Vec<Level>,
}

enum AuxChoice {
    Weighted(WeightedTimesteps),
    Uniform,
    Shared,
}

/// How the noise levels of a plan's images are drawn: the steps of a discrete process by `loss.timesteps`, those of a continuous process
/// by its own distribution.
///
/// # Errors
/// An unknown choice of timesteps.
pub fn noise_levels<M>(
    plan: &Plan<M>,
    diffusion: &Diffusion,
) -> Result<Box<dyn NoiseLevels + Send + Sync>, ScheduleError> {
    Ok(match diffusion.continuous {
        Some(continuous) => Box::new(continuous),
        None => Box::new(StepLevels::named(&plan.loss.timesteps, diffusion)?),
    })
}

/// The numbers that one step draws for its whole batch.
#[derive(Clone, Debug, PartialEq)]
pub struct StepDraw {
    /// The seed of the run.
    pub seed: u64,
    /// The number of the step.
    pub step: u64,
    /// The noise level of each image.
    pub levels: Vec<Level>,
    /// The factor of each image that undoes a non-uniform choice of its level.
    pub importance: Vec<f64>,
    /// The noise level of each auxiliary input; empty without the auxiliary term.
    pub aux_levels: Vec<Level>,
    /// The weight of each auxiliary input.
    pub aux_weights: Vec<f64>,
    /// The factor of each image in the distillation term, 0 if the source model does not see it. `None` means 1 for all.
    pub distill: Option<Vec<f64>>,
    /// Whether the class label of each image is replaced by the null class.
    pub drops_label: Vec<bool>,
    /// The noise level of each kept sample of the source model; empty without these.
    pub kept_levels: Vec<Level>,
    accumulate: Accumulate,
}

/// The numbers of a step for a part of its batch: a micro-batch, or what one process computes.
#[derive(Clone, Debug)]
pub struct PartDraw {
    /// The noise level of each image.
    pub levels: Vec<Level>,
    /// The noise of each image, `[n, C, H, W]`.
    pub noise: Tensor,
    /// See [`StepDraw::importance`].
    pub importance: Vec<f64>,
    /// See [`StepDraw::distill`].
    pub distill: Option<Vec<f64>>,
    /// See [`StepDraw::drops_label`].
    pub drops_label: Vec<bool>,
    /// The auxiliary inputs that go with these images, if there are any.
    pub auxiliary: Option<AuxDraw>,
    /// The kept samples that go with these images, if there are any.
    pub kept: Option<KeptDraw>,
    /// The addresses of the dropout masks: one for each image, then one for each auxiliary input, then one for each kept sample.
    pub samples: Vec<u64>,
}

/// Auxiliary inputs of a part of a batch.
#[derive(Clone, Debug)]
pub struct AuxDraw {
    /// The number of the first input among those of the step.
    pub first: usize,
    /// Pure noise, `[m, C, H, W]`.
    pub z: Tensor,
    /// The noise level of each input.
    pub levels: Vec<Level>,
    /// The weight of each input. It includes a factor for parts that have more or fewer inputs per image than the batch.
    pub weights: Vec<f64>,
}

impl Recipe {
    /// The recipe of a plan with this objective.
    ///
    /// # Errors
    /// An unknown choice of timesteps, or weights of the auxiliary term that are all zero.
    pub fn new<M>(plan: &Plan<M>, objective: &Objective, diffusion: &Diffusion) -> Result<Self> {
        let auxiliary = match objective.aux {
            None => None,
            Some(term) => Some(AuxLevels {
                weighting: term.weighting,
                choice: match plan.loss.aux_sampling {
                    AuxSampling::Weighted => AuxChoice::Weighted(WeightedTimesteps::new(
                        &term.weighting.weights(&diffusion.schedule),
                    )?),
                    AuxSampling::Uniform => AuxChoice::Uniform,
                    AuxSampling::Shared => AuxChoice::Shared,
                },
                steps: diffusion.all_levels(),
            }),
        };
        let distill = objective
            .distill
            .filter(|_| plan.loss.distill_sampling == DistillSampling::Weighted);
        Ok(Self {
            batch: plan.steps.batch,
            accumulate: plan.steps.accumulate,
            levels: noise_levels(plan, diffusion)?,
            auxiliary,
            distill: distill.map(|term| term.weighting),
            label_dropout: plan.loss.label_dropout,
            kept: match objective.keep {
                None => None,
                Some(_) => Some(KeptLevels::new(
                    &plan.loss.keep,
                    plan.steps.batch,
                    diffusion,
                )?),
            },
        })
    }

    /// What step `step` of a run with this seed draws. The result depends on nothing else, except that a choice of levels by past losses
    /// depends on these losses.
    pub fn draw(&self, seed: u64, step: u64) -> StepDraw {
        let uniforms = |purpose, n: usize| -> Vec<f64> {
            (0..n as u64)
                .map(|i| Draw::new(seed, purpose, step, i).uniform(0))
                .collect()
        };
        let draws = self.levels.draw(&uniforms(Purpose::Timestep, self.batch));
        let levels: Vec<Level> = draws.iter().map(|draw| draw.level).collect();
        let (aux_levels, aux_weights) = match &self.auxiliary {
            None => Default::default(),
            Some(aux) => aux.draw(&levels, |n| uniforms(Purpose::AuxTimestep, n)),
        };
        let distill = self.distill.map(|weighting| {
            let weights = weights_at(weighting, &levels).into_iter();
            let pairs = weights.zip(uniforms(Purpose::Distill, self.batch));
            pairs.map(|(w, u)| distill_factor(w, u)).collect()
        });
        StepDraw {
            seed,
            step,
            importance: draws.iter().map(|draw| draw.weight).collect(),
            levels,
            aux_levels,
            aux_weights,
            distill,
            drops_label: uniforms(Purpose::LabelDropout, self.batch)
                .into_iter()
                .map(|u| u < self.label_dropout)
                .collect(),
            kept_levels: match &self.kept {
                None => Vec::new(),
                Some(kept) => kept.draw(&uniforms(Purpose::KeptTimestep, kept.count())),
            },
            accumulate: self.accumulate,
        }
    }

    /// How the levels of images are drawn, with the history of losses where draws depend on it.
    pub fn levels(&self) -> &dyn NoiseLevels {
        &*self.levels
    }

    pub(crate) fn levels_mut(&mut self) -> &mut dyn NoiseLevels {
        &mut *self.levels
    }
}

impl AuxLevels {
    /// Levels and weights of the auxiliary inputs that go with images of these levels.
    fn draw(
        &self,
        images: &[Level],
        uniforms: impl Fn(usize) -> Vec<f64>,
    ) -> (Vec<Level>, Vec<f64>) {
        let levels: Vec<Level> = match &self.choice {
            AuxChoice::Weighted(weighted) => {
                // A third of the batch is as good as the whole batch drawn uniformly.
                let uniforms = uniforms(((images.len() + 1) / 3).max(1)).into_iter();
                let levels: Vec<Level> = uniforms.map(|u| self.steps[weighted.sample(u)]).collect();
                let weights = vec![weighted.mean(); levels.len()];
                return (levels, weights);
            }
            AuxChoice::Shared => images.to_vec(),
            AuxChoice::Uniform => {
                let n_steps = self.steps.len();
                let draws = TimestepSampler::Uniform { n_steps }.sample(&uniforms(images.len()));
                draws.iter().map(|draw| self.steps[draw.t]).collect()
            }
        };
        let weights = weights_at(self.weighting, &levels);
        (levels, weights)
    }
}

impl StepDraw {
    /// The numbers for the images of this range, `[C, H, W]` each. Auxiliary inputs and kept samples are spread over the batch in
    /// proportion.
    ///
    /// # Errors
    /// The device fails.
    pub fn part(&self, images: Range<usize>, shape: &[usize], device: &Device) -> Result<PartDraw> {
        let (batch, n_aux, n) = (self.levels.len(), self.aux_levels.len(), images.len());
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
        let share = |all: usize| images.start * all / batch..images.end * all / batch;
        // A micro-batch counts by its images. This factor makes `m` of `all` other inputs count by their own number.
        let balance = |m: usize, all: usize| match self.accumulate {
            Accumulate::Mean => (m * batch) as f64 / (all * n) as f64,
            Accumulate::Sum => 1.0,
        };
        let (aux, of_bank) = (share(n_aux), share(self.kept_levels.len()));
        let kept = match of_bank.len() {
            0 => None,
            k => Some(KeptDraw {
                noise: normal(Purpose::KeptNoise, of_bank.start, k)?,
                levels: self.kept_levels[of_bank.clone()].to_vec(),
                factor: balance(k, self.kept_levels.len()),
                range: of_bank.clone(),
            }),
        };
        let auxiliary = match aux.len() {
            0 => None,
            m => {
                let balance = balance(m, n_aux);
                let weights = self.aux_weights[aux.clone()].iter();
                Some(AuxDraw {
                    first: aux.start,
                    z: normal(Purpose::AuxNoise, aux.start, m)?,
                    levels: self.aux_levels[aux.clone()].to_vec(),
                    weights: weights.map(|w| w * balance).collect(),
                })
            }
        };
        let numbers = images.clone().map(|i| i as u64);
        let of_aux = aux.map(|i| AUX_SAMPLES + i as u64);
        let of_kept = of_bank.map(|i| KEPT_SAMPLES + i as u64);
        Ok(PartDraw {
            noise: normal(Purpose::Noise, images.start, n)?,
            auxiliary,
            kept,
            samples: numbers.chain(of_aux).chain(of_kept).collect(),
            levels: self.levels[images.clone()].to_vec(),
            importance: self.importance[images.clone()].to_vec(),
            drops_label: self.drops_label[images.clone()].to_vec(),
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
            importance: Some(&self.importance),
            distill: self.distill.as_deref(),
            ..NoisedBatch::new(x0, &self.levels, &self.noise)
        }
    }

    /// The auxiliary inputs as the objective takes them.
    pub fn auxiliary(&self) -> Option<Auxiliary<'_>> {
        self.auxiliary.as_ref().map(|aux| Auxiliary {
            z: &aux.z,
            levels: &aux.levels,
            weights: &aux.weights,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Method;
    use sdft_diffusion::{EdmProcess, PredictionType};
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
        assert_eq!(recipe.draw(3, 5), draw);
        assert_ne!(recipe.draw(3, 6).levels, draw.levels);
        assert_ne!(recipe.draw(4, 5).levels, draw.levels);
        assert_eq!((draw.levels.len(), draw.aux_levels.len()), (7, 2));
        assert!(draw.levels.iter().all(|level| level.step < Some(1000)));
    }

    #[test]
    fn label_dropout_is_a_function_of_seed_step_and_sample() {
        let recipe = |share| recipe(|plan| plan.loss.label_dropout = share);
        let drops = |share, step| recipe(share).draw(3, step).drops_label;
        assert_eq!(drops(0.3, 5), drops(0.3, 5));
        let count = |share| -> usize {
            let steps = (0..300).map(|step| drops(share, step));
            steps.flatten().filter(|&drops| drops).count()
        };
        assert_eq!((count(0.0), count(1.0)), (0, 2100));
        assert!((count(0.3) as f64 / 2100.0 - 0.3).abs() < 0.05);
        // A larger share drops the same labels, and others.
        let pairs = drops(0.1, 7).into_iter().zip(drops(0.9, 7));
        assert!(pairs.into_iter().all(|(few, many)| many || !few));
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
                let t = |p: &PartDraw| p.levels.iter().map(|l| l.alpha_bar).collect::<Vec<_>>();
                assert_eq!(all(&t), t(&whole));
                let noise = |p: &PartDraw| numbers(&p.noise).into_iter().map(f64::from).collect();
                assert_eq!(all(&noise), noise(&whole) as Vec<f64>);
                let aux = |p: &PartDraw| {
                    p.auxiliary.as_ref().map_or(Vec::new(), |aux| {
                        let z = numbers(&aux.z).into_iter().map(f64::from);
                        let t = aux.levels.iter().map(|level| level.alpha_bar);
                        aux.weights.iter().copied().chain(t).chain(z).collect()
                    })
                };
                let sorted = |mut values: Vec<f64>| {
                    values.sort_by(f64::total_cmp);
                    values
                };
                assert_eq!(sorted(all(&aux)), sorted(aux(&whole)));
                let drops = |p: &PartDraw| {
                    p.drops_label
                        .iter()
                        .map(|&drops| f64::from(u8::from(drops)))
                        .collect()
                };
                assert_eq!(all(&drops), drops(&whole) as Vec<f64>);
                let distill = |p: &PartDraw| p.distill.clone().unwrap();
                assert_eq!(all(&distill), distill(&whole));
                let mut samples: Vec<u64> = parts.iter().flat_map(|p| p.samples.clone()).collect();
                samples.sort_unstable();
                assert_eq!(samples, whole.samples);
            }
        }
    }

    #[test]
    fn a_continuous_process_draws_its_own_levels_and_pure_noise_at_steps() {
        for sampling in [AuxSampling::Weighted, AuxSampling::Uniform] {
            let recipe = recipe(|plan| {
                plan.process.prediction_type = PredictionType::Sample;
                plan.process.continuous = Some(EdmProcess::default().into());
                plan.loss.aux_sampling = sampling;
            });
            let draw = recipe.draw(3, 5);
            assert!(draw.levels.iter().all(|level| level.step.is_none()));
            assert!(draw.importance.iter().all(|weight| *weight == 1.0));
            assert!(!draw.aux_levels.is_empty());
            for level in &draw.aux_levels {
                assert!(level.step.is_some());
                assert!((f64::from(level.t) / level.sigma() - 1.0).abs() < 1e-6);
            }
            // An image of little noise is seen by the source model only now and then.
            let factors = (0..200).flat_map(|step| recipe.draw(3, step).distill.unwrap());
            let mean = factors.clone().sum::<f64>() / 1400.0;
            assert!(factors.clone().any(|factor| factor == 0.0));
            assert!(
                factors.clone().any(|factor| factor > 1.0) && mean > 0.2,
                "{mean}"
            );
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
        assert!(draw.aux_levels.is_empty() && draw.distill.is_none());
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
