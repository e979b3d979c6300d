//! One optimiser step: draw timesteps and noise, evaluate the objective, update.

use crate::error::{Result, TrainError};
use crate::plan::{Accumulate, AuxSampling, DistillSampling, Plan};
use crate::snapshot::{Position, Snapshot};
use crate::update::{State, Updater};
use candle_core::{DType, Device, Tensor};
use sdft_adm::Unet;
use sdft_autograd::backward;
use sdft_cuda::{Download, download};
use sdft_diffusion::{Denoiser, Diffusion};
use sdft_losses::{Auxiliary, Batch, Objective, Report, Variational, distill_factor};
use sdft_nn::Params;
use sdft_noise::{Draw, DropoutKey, Purpose};
use sdft_optim::{Accumulator, MicroBatches, Pending, Verdict, collect_gradients};
use sdft_parallel::{ProcessGroup, share_of};
use sdft_samplers::seeded_normal;
use sdft_schedule::{LossSecondMoment, Respacing, TimestepSampler, WeightedTimesteps};
use std::sync::Arc;

/// Numbers of auxiliary samples in dropout addresses begin here; a batch is smaller.
const AUX_SAMPLES: u64 = 1 << 21;

/// What a step did.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// The weights moved.
    Updated {
        /// The loss in numbers.
        report: Report,
        /// Norm of the gradient of all parameters, before clipping.
        grad_norm: f64,
    },
    /// Loss or gradient was not finite: nothing moved.
    Skipped {
        /// `loss` or `gradient`.
        what: &'static str,
    },
}

/// A step that the device may still be at.
#[derive(Debug)]
pub struct PendingStep {
    step: Pending,
    numbers: Download,
    present: [bool; 3],
}

impl PendingStep {
    /// What it did, as soon as that is known.
    ///
    /// # Errors
    /// Whatever went wrong on the device.
    pub fn wait(self) -> Result<Outcome> {
        let report = Report::of(&self.numbers.wait()?, self.present)?;
        Ok(match self.step.wait()? {
            Verdict::Updated { grad_norm } => Outcome::Updated { report, grad_norm },
            Verdict::BadLoss => Outcome::Skipped { what: "loss" },
            Verdict::BadGradient => Outcome::Skipped { what: "gradient" },
        })
    }
}

/// The networks of a run and everything that moves them.
#[derive(Debug)]
pub struct Learner {
    seed: u64,
    batch: usize,
    micro_batch: usize,
    accumulate: Accumulate,
    dropout: bool,
    pub(crate) diffusion: Diffusion,
    pub(crate) objective: Objective,
    unet: Unet,
    source: Option<Unet>,
    pub(crate) updater: Updater,
    timesteps: TimestepSampler,
    aux_sampling: AuxSampling,
    distill_sampling: DistillSampling,
    /// Draws timesteps in proportion to the auxiliary weight.
    weighted: Option<WeightedTimesteps>,
    /// Who else works at each batch.
    peers: Arc<ProcessGroup>,
}

impl Learner {
    /// Starts from `start`; `source` is the frozen model to distill.
    ///
    /// # Errors
    /// Parameters that are missing or of another shape, settings out of range.
    pub fn new(plan: &Plan, start: &Params, source: Option<Unet>) -> Result<Self> {
        let diffusion = plan
            .process
            .diffusion(plan.model.learns_variance(), &Respacing::All)?;
        let objective = plan.objective();
        let (params, vars) = start.trainable()?;
        let weighted = match (objective.aux, plan.loss.aux_sampling) {
            (Some(aux), AuxSampling::Weighted) => Some(WeightedTimesteps::new(
                &aux.weighting.weights(&diffusion.schedule),
            )?),
            _ => None,
        };
        let precision = plan.steps.precision;
        let unet = Unet::load(&params, &plan.model)?.with_compute_dtype(precision.compute_dtype());
        Ok(Self {
            seed: plan.seed,
            batch: plan.steps.batch,
            micro_batch: plan.micro_batch(),
            accumulate: plan.steps.accumulate,
            dropout: plan.model.dropout > 0.0,
            unet: if plan.steps.recompute {
                unet.recomputed()
            } else {
                unet
            },
            updater: Updater::new(&plan.optim, precision, plan.steps.steps, vars)?,
            timesteps: TimestepSampler::named(&plan.loss.timesteps, diffusion.n_steps())?,
            aux_sampling: plan.loss.aux_sampling,
            distill_sampling: plan.loss.distill_sampling,
            weighted,
            peers: Arc::new(ProcessGroup::single()),
            source,
            diffusion,
            objective,
        })
    }

    /// The same learner for a share of each batch; the others see the rest.
    ///
    /// # Errors
    /// Fewer images in a batch than processes.
    pub fn in_group(mut self, peers: Arc<ProcessGroup>) -> Result<Self> {
        if self.batch < peers.size() {
            return Err(TrainError::ProcessGroup(format!(
                "a batch of {} does not reach for {} processes; make loop.batch larger",
                self.batch,
                peers.size()
            )));
        }
        self.peers = peers;
        Ok(self)
    }

    /// The source model, where there is one to distill.
    pub(crate) fn source(&self) -> Option<&Unet> {
        self.source.as_ref()
    }

    /// One step on `x0` `[batch, 3, H, W]`. Every random number is a function of the seed, `step` and the sample's place in the batch.
    ///
    /// # Errors
    /// Images of another shape than the plan's.
    pub fn step(&mut self, step: u64, x0: &Tensor) -> Result<Outcome> {
        self.issue(step, x0)?.wait()
    }

    /// As [`Self::step`], without waiting for what comes out. A choice of timesteps by past losses has to wait for them, though.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn issue(&mut self, step: u64, x0: &Tensor) -> Result<PendingStep> {
        let device = x0.device();
        let shape = x0.dims();
        let uniforms = |purpose, n: usize| -> Vec<f64> {
            (0..n)
                .map(|i| Draw::new(self.seed, purpose, step, i as u64).uniform(0))
                .collect()
        };
        let draws = self
            .timesteps
            .sample(&uniforms(Purpose::Timestep, self.batch));
        let t: Vec<usize> = draws.iter().map(|draw| draw.t).collect();
        let importance: Vec<f64> = draws.iter().map(|draw| draw.weight).collect();
        let n_aux = match (self.objective.aux, self.aux_sampling) {
            (None, _) => 0,
            (Some(_), AuxSampling::Weighted) => ((self.batch + 1) / 3).max(1),
            (Some(_), AuxSampling::Uniform | AuxSampling::Shared) => self.batch,
        };
        let (aux_t, aux_weights) =
            self.auxiliary_times(&t, &uniforms(Purpose::AuxTimestep, n_aux))?;

        let distill = self.distill_factors(&t, &uniforms(Purpose::Distill, self.batch));
        let mode = match self.accumulate {
            Accumulate::Mean => MicroBatches::Weighted,
            Accumulate::Sum => MicroBatches::Summed,
        };
        let here = share_of(self.batch, self.peers.rank(), self.peers.size());
        let n_params = self.updater.vars.len();
        let mut gradients = Accumulator::part(mode, n_params, self.batch, here.len());
        let mut sums: Option<Tensor> = None;
        // Which images are seen here does not decide which terms there are.
        let present = [
            self.objective.variational != Variational::Off,
            self.objective.distill.is_some(),
            self.objective.aux.is_some(),
        ];
        let mut losses = Vec::new();
        for start in here.clone().step_by(self.micro_batch) {
            let n = self.micro_batch.min(here.end - start);
            // Auxiliary inputs are spread over the micro-batches in proportion.
            let (a0, a1) = (start * n_aux / self.batch, (start + n) * n_aux / self.batch);
            let images = x0.narrow(0, start, n)?;
            let with_count = |count: usize| [&[count], &shape[1..]].concat();
            let noise = seeded_normal(
                self.seed,
                Purpose::Noise,
                step,
                start as u64,
                &with_count(n),
                device,
            )?;
            let z = if a1 > a0 {
                Some(seeded_normal(
                    self.seed,
                    Purpose::AuxNoise,
                    step,
                    a0 as u64,
                    &with_count(a1 - a0),
                    device,
                )?)
            } else {
                None
            };
            // A micro-batch counts by its images; this makes the auxiliary inputs count by their own number.
            let balance = match self.accumulate {
                Accumulate::Mean => ((a1 - a0) * self.batch) as f64 / (n_aux.max(1) * n) as f64,
                Accumulate::Sum => 1.0,
            };
            let weights: Vec<f64> = aux_weights[a0..a1].iter().map(|w| w * balance).collect();
            let aux = z.as_ref().map(|z| Auxiliary {
                z,
                t: &aux_t[a0..a1],
                weights: &weights,
            });
            let objective = if aux.is_some() {
                self.objective
            } else {
                Objective {
                    aux: None,
                    ..self.objective
                }
            };
            let batch = Batch {
                x0: &images,
                t: &t[start..start + n],
                noise: &noise,
                importance: Some(&importance[start..start + n]),
                distill: distill.as_ref().map(|factors| &factors[start..start + n]),
            };

            let numbers: Vec<u64> = (start..start + n)
                .map(|i| i as u64)
                .chain((a0..a1).map(|i| AUX_SAMPLES + i as u64))
                .collect();
            let key = self.dropout.then_some(DropoutKey {
                seed: self.seed,
                step,
                samples: &numbers,
            });
            let student = self.unet.with(None, key);
            let source = self.source.as_ref().map(|source| source as &dyn Denoiser);
            let terms =
                objective.evaluate(&self.diffusion, &student, source, &batch, aux.as_ref())?;
            let share = match self.accumulate {
                Accumulate::Mean => n as f64 / self.batch as f64,
                Accumulate::Sum => 1.0,
            };
            let part = (terms.numbers()? * share)?;
            sums = Some(match sums {
                Some(sum) => (sum + part)?,
                None => part,
            });
            if matches!(self.timesteps, TimestepSampler::LossSecondMoment(_)) {
                losses.extend(terms.base_each.to_dtype(DType::F64)?.to_vec1::<f64>()?);
            }
            let loss = self.updater.scaled(&terms.total)?;
            gradients.add(&collect_gradients(&self.updater.vars, &backward(&loss)?), n)?;
        }
        let Some(numbers) = sums else {
            return Err(candle_core::Error::Msg("a step without images".to_owned()).into());
        };
        let mut gradients = gradients.finish()?;
        let numbers = self.over_all(&mut gradients, numbers)?;
        let total = numbers.narrow(0, 0, 1)?;
        let issued = PendingStep {
            step: self.updater.apply(step, &gradients, &total)?,
            numbers: download(&numbers)?,
            present,
        };
        if losses.is_empty() {
            return Ok(issued);
        }
        // Everybody needs the losses of everybody's images.
        let mut all = vec![0.0; self.batch];
        all[here].copy_from_slice(&losses);
        let all = self
            .peers
            .all_reduce_sum(&[Tensor::new(all, device)?])?
            .swap_remove(0);
        let losses = all.to_vec1::<f64>()?;
        let (verdict, numbers) = (issued.step.wait()?, issued.numbers.wait()?);
        if matches!(verdict, Verdict::Updated { .. }) {
            for (&t, &loss) in t.iter().zip(&losses) {
                self.timesteps.update(t, loss)?;
            }
        }
        Ok(PendingStep {
            step: Pending::known(verdict),
            numbers: Download::ready(numbers),
            present,
        })
    }

    /// The sums over all processes of gradients and of the loss's numbers.
    fn over_all(&self, gradients: &mut [Option<Tensor>], numbers: Tensor) -> Result<Tensor> {
        if self.peers.size() == 1 {
            return Ok(numbers);
        }
        let own: Vec<Tensor> = gradients.iter().flatten().cloned().collect();
        let sums = self.peers.all_reduce_sum(&own)?;
        for (gradient, sum) in gradients.iter_mut().flatten().zip(sums) {
            *gradient = sum;
        }
        Ok(self.peers.all_reduce_sum(&[numbers])?.swap_remove(0))
    }

    /// Which images the source model looks at, as factors of their term.
    fn distill_factors(&self, t: &[usize], uniforms: &[f64]) -> Option<Vec<f64>> {
        let (Some(term), DistillSampling::Weighted) =
            (self.objective.distill, self.distill_sampling)
        else {
            return None;
        };
        let weights = term.weighting.weights(&self.diffusion.schedule);
        let factors = t
            .iter()
            .zip(uniforms)
            .map(|(&t, &u)| distill_factor(weights[t], u));
        Some(factors.collect())
    }

    /// Timesteps and weights of the auxiliary inputs.
    fn auxiliary_times(
        &self,
        image_t: &[usize],
        uniforms: &[f64],
    ) -> Result<(Vec<usize>, Vec<f64>)> {
        if let Some(weighted) = &self.weighted {
            let t = uniforms.iter().map(|&u| weighted.sample(u)).collect();
            return Ok((t, vec![weighted.mean(); uniforms.len()]));
        }
        let t: Vec<usize> = match self.aux_sampling {
            AuxSampling::Shared => image_t[..uniforms.len()].to_vec(),
            AuxSampling::Uniform | AuxSampling::Weighted => {
                let n_steps = self.diffusion.n_steps();
                TimestepSampler::Uniform { n_steps }
                    .sample(uniforms)
                    .iter()
                    .map(|draw| draw.t)
                    .collect()
            }
        };
        let weights = self.objective.aux_weights(&self.diffusion.schedule, &t)?;
        Ok((t, weights))
    }

    /// Where it computes.
    pub(crate) fn device(&self) -> Device {
        let first = self.updater.vars.first();
        first.map_or(Device::Cpu, |(_, var)| var.device().clone())
    }

    /// What a checkpoint holds; `position` learns the rest.
    pub(crate) fn state(&mut self, position: &mut Position) -> Result<State> {
        position.timesteps = match &self.timesteps {
            TimestepSampler::Uniform { .. } => None,
            TimestepSampler::LossSecondMoment(history) => Some((
                history.losses().iter().map(|loss| loss.to_bits()).collect(),
                history.counts().to_vec(),
            )),
        };
        self.updater.state(position)
    }

    /// Goes on from a checkpoint.
    pub(crate) fn restore(&mut self, snapshot: Snapshot, device: &Device) -> Result<()> {
        let timesteps = snapshot.position.timesteps.clone();
        self.updater.restore(snapshot, device)?;
        if let Some((losses, counts)) = timesteps {
            let losses = losses.into_iter().map(f64::from_bits).collect();
            let history = LossSecondMoment::from_state(self.diffusion.n_steps(), losses, counts)?;
            self.timesteps = TimestepSampler::LossSecondMoment(history);
        }
        Ok(())
    }
}
