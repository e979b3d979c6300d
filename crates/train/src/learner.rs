//! One optimiser step: draw noise levels and noise, evaluate the objective, update.

use crate::audit::audit_gradients;
use crate::checkpoint::{Checkpoint, Position, Tensors, TrainingState};
use crate::error::{Result, TrainError};
use crate::fit::{check_compute_mode, check_prediction_type};
use crate::images::StepImages;
use crate::inputs::{Inputs, Labels, Student, Teacher};
use crate::kept::Bank;
use crate::methods::{Guided, LogProbGradient, Methods, Networks};
use crate::model_files::{with_buffers, without_buffers};
use crate::outcome::{Outcome, PendingStep};
use crate::plan::{Accumulate, Plan, PlanError};
use crate::recipe::Recipe;
use crate::source::Source;
use crate::updater::Updater;
use crate::values::frozen;
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};
use sdft_autograd::backward;
use sdft_cuda::{Download, download};
use sdft_data::ImageSource;
use sdft_diffusion::{Denoiser, Diffusion, Prediction, Trainable};
use sdft_losses::{Anchor, Auxiliary, Kept, NoisedBatch, Objective, Present};
use sdft_noise::{DropoutKey, Purpose};
use sdft_optim::{Accumulator, Pending, Verdict, collect_gradients};
use sdft_parallel::{ProcessGroup, share_of};
use sdft_randn::randn;
use sdft_schedule::{LossSecondMoment, Respacing};
use std::sync::Arc;

mod anchor;
mod peers;

/// A network in training, its frozen source model, and everything that a step needs.
pub struct Learner {
    seed: u64,
    batch: usize,
    micro_batch: usize,
    accumulate: Accumulate,
    network: Box<dyn Trainable>,
    source: Option<Source>,
    labels: Option<Labels>,
    diffusion: Diffusion,
    objective: Objective,
    recipe: Recipe,
    updater: Updater,
    methods: Methods,
    bank: Option<Bank>,
    anchor: Option<Anchor>,
    /// The processes that share each batch.
    group: Arc<ProcessGroup>,
}

impl Learner {
    /// A learner for `network`, which starts from the values of its variables, on images `[C, H, W]` of so many classes, 0 for images
    /// without. `source` is the frozen model to distill.
    ///
    /// The network makes one prediction, which shows what it predicts, whether it learns its variance, and that it takes such images.
    ///
    /// # Errors
    /// A network that computes in another way than the plan says, images that it does not take, settings out of range.
    pub fn new<M>(
        plan: &Plan<M>,
        network: Box<dyn Trainable>,
        source: Option<Source>,
        image: [usize; 3],
        classes: usize,
    ) -> Result<Self> {
        check_compute_mode(plan, &*network)?;
        let vars = network.vars();
        let Some((_, first)) = vars.first() else {
            return Err(candle_core::Error::Msg("the network has no variables".to_owned()).into());
        };
        let probe = Tensor::zeros([&[1], &image[..]].concat(), DType::F32, first.device())?;
        // 1 is a time in every unit.
        let label: Option<&[u32]> = (classes > 0).then_some(&[0]);
        let prediction = frozen(&*network, &probe, &[1.0], label)?;
        check_prediction_type(plan, prediction.prediction_type)?;
        let learns_variance = prediction.variance.is_some();
        if learns_variance && plan.process.continuous.is_some() {
            return Err(PlanError {
                key: "process.continuous".into(),
                problem: "a network that learns its variance needs a discrete process".into(),
            }
            .into());
        }
        let diffusion = plan.process.diffusion(learns_variance, &Respacing::All)?;
        let objective = Objective {
            distill_channels: source.as_ref().and_then(Source::channels),
            ..plan.objective(learns_variance)
        };
        Ok(Self {
            seed: plan.seed,
            batch: plan.steps.batch,
            micro_batch: plan.micro_batch(),
            accumulate: plan.steps.accumulate,
            recipe: Recipe::new(plan, &objective, &diffusion)?,
            updater: Updater::new(&plan.optim, plan.steps.precision, plan.steps.steps, vars)?,
            group: Arc::new(ProcessGroup::single()),
            methods: Methods::new(plan, &diffusion),
            bank: None,
            anchor: match plan.loss.anchor.is_on() {
                true => Some(Anchor::new(&network.vars(), plan.loss.anchor.l2_sp)?),
                false => None,
            },
            network,
            source,
            labels: Labels::new(classes, plan.loss.label_dropout)?,
            diffusion,
            objective,
        })
    }

    /// The same learner for its share of each batch; the other processes of the group compute the rest.
    ///
    /// # Errors
    /// A batch has fewer images than the group has processes.
    pub fn in_group(mut self, group: Arc<ProcessGroup>) -> Result<Self> {
        if self.batch < group.size() {
            return Err(TrainError::ProcessGroup(format!(
                "a batch of {} is too small for {} processes; make loop.batch larger",
                self.batch,
                group.size()
            )));
        }
        self.group = group;
        Ok(self)
    }

    /// The same learner with samples of the source model, which Diff-Tuning keeps and of which EWC makes its Fisher information. It must be
    /// called while the network still has the weights of the source model.
    ///
    /// # Errors
    /// Images of another form than those of the run, or the network fails.
    pub fn with_bank<M>(mut self, plan: &Plan<M>, images: Arc<dyn ImageSource>) -> Result<Self> {
        let bank = Bank::new(images, plan)?;
        if let (Some(anchor), true) = (self.anchor.take(), plan.loss.anchor.ewc > 0.0) {
            let fisher = self.fisher(&bank, plan.loss.anchor.gradients)?;
            self.anchor = Some(anchor.with_ewc(plan.loss.anchor.ewc, fisher)?);
        }
        self.bank = Some(bank);
        Ok(self)
    }

    /// The same learner with ANT's classifier.
    #[must_use]
    pub fn with_classifier(mut self, gradient: LogProbGradient) -> Self {
        self.methods.classifier = Some(gradient);
        self
    }

    /// The source model, if there is one to distill.
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref()
    }

    /// The network in training.
    pub fn network(&self) -> &dyn Trainable {
        &*self.network
    }

    /// The prediction of the network without gradients, dropout and augmentation labels, for sampling.
    ///
    /// # Errors
    /// Shapes or labels that do not fit the network.
    pub fn predict_frozen(
        &self,
        xt: &Tensor,
        t: &[f32],
        labels: Option<&[u32]>,
    ) -> candle_core::Result<Prediction> {
        frozen(&*self.network, xt, t, labels)
    }

    /// The labels of `n` images in which all classes are equally frequent: image `i` has class `i` modulo their number. `None` without
    /// classes.
    pub(crate) fn balanced_labels(&self, n: usize) -> Option<Vec<u32>> {
        let labels = self.labels?;
        Some((0..n).map(|i| labels.balanced(i)).collect())
    }

    /// The variables with their optimiser and moving average.
    pub fn updater(&self) -> &Updater {
        &self.updater
    }

    /// Whether the network learns its variance.
    pub fn learns_variance(&self) -> bool {
        self.diffusion.variance == sdft_diffusion::Variance::LearnedRange
    }

    /// Fails, naming them, if the objective leaves variables without a finite gradient that is not zero. `x0` `[B, C, H, W]` is a small
    /// batch of images. The variables are as before afterwards.
    ///
    /// # Errors
    /// [`TrainError::Audit`], or the network fails.
    pub fn audit(&self, x0: &Tensor) -> Result<()> {
        let (n, seed) = (x0.dim(0)?, self.seed);
        let last = self.diffusion.n_steps() - 1;
        // From little noise to much, so that both ends of every weight are covered.
        let t: Vec<usize> = (0..n).map(|i| last * (i + 1) / (n + 1)).collect();
        let noise = randn(seed, Purpose::Audit, 2, 0, x0.dims(), x0.device())?;
        let z = randn(seed, Purpose::Audit, 3, 0, x0.dims(), x0.device())?;
        let levels = self.diffusion.levels(&t)?;
        let aux_levels = self.diffusion.levels(&vec![last; n])?;
        let weights = self.objective.aux_weights(&aux_levels);
        let aux = Auxiliary {
            z: &z,
            levels: &aux_levels,
            weights: &weights,
        };
        let kept = Kept {
            x0,
            levels: &levels,
            noise: &noise,
            factor: 1.0,
        };
        let batch = NoisedBatch {
            kept: Some(kept),
            ..NoisedBatch::new(x0, &levels, &noise)
        };
        let seen: Vec<usize> = self.objective.seen(&batch)?;
        let n_aux = if self.objective.aux.is_some() { n } else { 0 };
        let n_kept = if self.objective.keep.is_some() { n } else { 0 };
        let inputs = Inputs::balanced(self.labels, n, n_aux + n_kept);
        let student = Student {
            network: &*self.network,
            inputs: &inputs,
            dropout: None,
        };
        let of_source = inputs.of_source(&seen, n..n + n_aux)?;
        let teacher = self.source.as_ref().map(|source| Teacher {
            source,
            inputs: of_source,
        });
        let is_exempt = |name: &str| self.network.has_zero_gradient(name);
        audit_gradients(self.updater.vars(), seed, &is_exempt, &|factor| {
            let terms = self.objective.evaluate(
                &self.diffusion,
                &student,
                teacher.as_ref().map(|teacher| teacher as &dyn Denoiser),
                &batch,
                Some(&aux),
            )?;
            self.gradients(&(terms.total * factor)?)
        })
    }

    /// Step number `step` on a whole batch of images. Every random number is a function of the seed, `step` and the sample's place in the
    /// batch.
    ///
    /// # Errors
    /// Images of another shape, labels that the network does not take, or the device fails.
    pub fn step(&mut self, step: u64, images: impl Into<StepImages>) -> Result<Outcome> {
        self.issue(step, images)?.wait()
    }

    /// As [`Self::step`], without waiting for the result. If timesteps are chosen by past losses, it has to wait anyway.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn issue(&mut self, step: u64, images: impl Into<StepImages>) -> Result<PendingStep> {
        let images: StepImages = images.into();
        let (device, image) = (images.x0.device(), &images.x0.dims()[1..]);
        let draw = self.recipe.draw(self.seed, step);
        let here = share_of(self.batch, self.group.rank(), self.group.size());
        let n_params = self.updater.vars().len();
        let mode = self.accumulate.mode();
        let mut gradients = Accumulator::part(mode, n_params, self.batch, here.len());
        let mut over_ranks = None;
        let mut sums: Option<Tensor> = None;
        // The same terms on every rank, whichever images it has.
        let present = Present {
            anchor: self.anchor.is_some(),
            ..self.objective.present()
        };
        let by_losses = self.recipe.levels().history().is_some();
        let mut losses = Vec::new();
        for start in here.clone().step_by(self.micro_batch) {
            let n = self.micro_batch.min(here.end - start);
            let images = images.narrow(start, n)?;
            let mut part = draw.part(start..start + n, image, device)?;
            let inputs = Inputs::of_part(self.labels, self.network.augment_dim(), &images, &part)?;
            let networks = self.networks();
            let Guided { noise, shift } = self.methods.guide(
                step,
                &networks,
                &inputs,
                &images.x0,
                &part.levels,
                &part.noise,
            )?;
            part.noise = noise;
            let of_bank = match (&self.bank, &part.kept) {
                (Some(bank), Some(kept)) => Some(bank.images(step, &kept.range, device)?),
                _ => None,
            };
            let kept = part.kept.as_ref().zip(of_bank.as_ref());
            let aux = part.auxiliary();
            let objective = Objective {
                aux: self.objective.aux.filter(|_| aux.is_some()),
                keep: self.objective.keep.filter(|_| part.kept.is_some()),
                ..self.objective
            };
            let batch = NoisedBatch {
                mask: images.mask.as_ref(),
                shift: shift.as_ref(),
                kept: kept.map(|(kept, x0)| kept.batch(x0)),
                ..part.batch(&images.x0)
            };
            let n_aux = aux.map_or(0, |aux| aux.levels.len());
            let teacher = match &self.source {
                Some(source) => Some(Teacher {
                    source,
                    inputs: inputs.of_source(&objective.seen(&batch)?, n..n + n_aux)?,
                }),
                None => None,
            };
            let student = Student {
                network: &*self.network,
                inputs: &inputs,
                dropout: Some(DropoutKey {
                    seed: self.seed,
                    step,
                    samples: &part.samples,
                }),
            };
            let terms = objective.evaluate(
                &self.diffusion,
                &student,
                teacher.as_ref().map(|teacher| teacher as &dyn Denoiser),
                &batch,
                aux.as_ref(),
            )?;
            let share = self.accumulate.share(n, self.batch);
            let numbers = (terms.numbers()? * share)?;
            sums = Some(match sums {
                Some(sum) => (sum + numbers)?,
                None => numbers,
            });
            if by_losses {
                losses.extend(terms.base_each.to_dtype(DType::F64)?.to_vec1::<f64>()?);
            }
            let loss = self.updater.scaled(&terms.total)?;
            if start + n == here.end && self.group.size() > 1 {
                over_ranks = Some(self.sum_over_ranks(&loss, gradients.last(n)?)?);
            } else {
                let of_part = collect_gradients(self.updater.vars(), &self.gradients(&loss)?);
                gradients.add(&of_part, n)?;
            }
        }
        let Some(numbers) = sums else {
            return Err(candle_core::Error::Msg("a step without images".to_owned()).into());
        };
        let mut gradients = match over_ranks {
            Some(sums) => sums,
            None => gradients.finish()?,
        };
        let numbers = self.group.all_reduce_sum(&[numbers])?.swap_remove(0);
        let numbers = self.pull_to_start(&mut gradients, numbers)?;
        let total = numbers.narrow(0, 0, 1)?;
        let issued = PendingStep {
            step: self.updater.apply(step, &gradients, &total)?,
            numbers: download(&numbers)?,
            present,
        };
        if losses.is_empty() {
            return Ok(issued);
        }
        // Every rank needs the losses of all images.
        let mut all = vec![0.0; self.batch];
        all[here].copy_from_slice(&losses);
        let all = self
            .group
            .all_reduce_sum(&[Tensor::new(all, device)?])?
            .swap_remove(0);
        let losses = all.to_vec1::<f64>()?;
        let (verdict, numbers) = (issued.step.wait()?, issued.numbers.wait()?);
        if matches!(verdict, Verdict::Updated { .. }) {
            for (level, &loss) in draw.levels.iter().zip(&losses) {
                self.recipe.levels_mut().update(level, loss)?;
            }
        }
        Ok(PendingStep {
            step: Pending::known(verdict),
            numbers: Download::ready(numbers),
            present,
        })
    }

    /// The gradients of all variables.
    fn gradients(&self, loss: &Tensor) -> Result<GradStore> {
        let mut gradients = backward(loss)?;
        self.network.pull_back(&mut gradients)?;
        Ok(gradients)
    }

    fn networks(&self) -> Networks<'_> {
        Networks {
            network: &*self.network,
            updater: &self.updater,
            source: self.source.as_ref(),
            labels: self.labels,
        }
    }

    /// The tensors of a checkpoint. The rest of its state goes into `position`.
    pub(crate) fn state(&mut self, position: &mut Position) -> Result<TrainingState> {
        position.timesteps = self.recipe.levels().history().map(|history| {
            let losses = history.losses().iter().map(|loss| loss.to_bits());
            (losses.collect(), history.counts().to_vec())
        });
        let state = self.updater.state(position)?;
        Ok(with_buffers(&*self.network, state))
    }

    /// The tensors of the network's file with the averaged weights.
    pub(crate) fn averaged_model(&self) -> Result<Tensors> {
        Ok(self.network.file_tensors(self.updater.averaged()?)?)
    }

    /// Continues from a checkpoint.
    pub(crate) fn load(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let checkpoint = without_buffers(&*self.network, checkpoint);
        let timesteps = checkpoint.position.timesteps.clone();
        self.updater.load(checkpoint)?;
        if let Some((losses, counts)) = timesteps {
            let losses = losses.into_iter().map(f64::from_bits).collect();
            let history = LossSecondMoment::from_state(self.diffusion.n_steps(), losses, counts)?;
            self.recipe.levels_mut().set_history(history);
        }
        Ok(())
    }
}
