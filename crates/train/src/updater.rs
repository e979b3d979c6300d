//! From gradients to weights: optimiser, clipping, moving average, and their state in checkpoints.

use crate::checkpoint::{Checkpoint, Position, Tensors, TrainingState};
use crate::error::{Result, TrainError};
use crate::plan::{LrSchedule, OptimPlan, OptimizerKind, Precision};
use crate::values::with_values;
use candle_core::{DType, Tensor, Var};
use sdft_autograd::{backward, profile_part};
use sdft_optim::{
    AdamW, Decay, EmaRate, Engine, LearningRate, LossScale, Pending, Rule, Sgd, StepSize, Verdict,
    collect_gradients,
};

/// The first loss scale of f16, and the steps without an overflow after which it doubles.
const LOSS_SCALE: (f64, u64) = (65_536.0, 2000);

/// A copy of everything that an [`Updater`] changes.
#[derive(Clone, Debug)]
pub struct Snapshot {
    state: TrainingState,
    ema_updates: u64,
}

/// The variables of a network with their optimiser and moving average.
#[derive(Debug)]
pub struct Updater {
    vars: Vec<(String, Var)>,
    max_norm: f64,
    engine: Engine,
    rate: LearningRate,
}

impl Updater {
    /// An updater of `vars` for a run of `steps` steps; the moving average starts from their values.
    ///
    /// # Errors
    /// Settings out of range, variables that are not contiguous f32, or a variable that is listed twice.
    pub fn new(
        plan: &OptimPlan,
        precision: Precision,
        steps: u64,
        vars: Vec<(String, Var)>,
    ) -> Result<Self> {
        let rule = match plan.kind {
            OptimizerKind::Adamw => Rule::AdamW(AdamW {
                betas: plan.betas,
                eps: plan.eps,
                weight_decay: plan.weight_decay,
            }),
            OptimizerKind::Sgd => Rule::Sgd(Sgd {
                momentum: plan.momentum,
                weight_decay: plan.weight_decay,
            }),
        };
        let decay = match plan.schedule {
            LrSchedule::Constant => Decay::Constant,
            LrSchedule::Linear => Decay::Linear { steps },
            LrSchedule::Cosine => Decay::Cosine {
                steps,
                floor: plan.lr_final,
            },
            LrSchedule::Step => Decay::Step {
                every: plan.lr_every,
                factor: plan.lr_factor,
            },
        };
        let scale = match precision {
            Precision::F16 => Some(LossScale::new(LOSS_SCALE.0, LOSS_SCALE.1)?),
            _ => None,
        };
        Ok(Self {
            max_norm: plan.clip,
            engine: Engine::new(
                rule,
                EmaRate {
                    rate: plan.ema,
                    ramp: plan.ramp(),
                },
                scale,
                &vars,
            )?,
            rate: LearningRate {
                base: plan.lr,
                warmup_steps: plan.warmup,
                decay,
            },
            vars,
        })
    }

    /// The variables, by name.
    pub fn vars(&self) -> &[(String, Var)] {
        &self.vars
    }

    /// The learning rate of step `step`.
    pub fn learning_rate(&self, step: u64) -> f64 {
        self.rate.at(step)
    }

    /// The weights after the last step. They share memory with the variables.
    pub fn raw(&self) -> Tensors {
        let vars = self.vars.iter();
        vars.map(|(name, var)| (name.clone(), var.as_tensor().detach()))
            .collect()
    }

    /// A copy of the averaged weights.
    ///
    /// # Errors
    /// The device fails.
    pub fn averaged(&self) -> Result<Tensors> {
        Ok(self.engine.ema().state()?)
    }

    /// Runs `f` while the variables hold the averaged weights, then restores them.
    ///
    /// # Errors
    /// The device fails, or `f` does.
    pub fn with_averaged<T>(&self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        with_values(&self.vars, self.averaged()?, f)
    }

    /// The loss, a scalar, times the loss scale: what the gradient must be taken of.
    ///
    /// # Errors
    /// The device fails.
    pub fn scaled(&mut self, loss: &Tensor) -> Result<Tensor> {
        match self.engine.loss_factor(loss.dtype(), loss.device())? {
            None => Ok(loss.clone()),
            Some(factor) => Ok((loss * factor)?),
        }
    }

    /// Moves the weights by the gradients of the [scaled](Self::scaled) loss. Nothing moves if a gradient or `loss` (f64, one element,
    /// not scaled) is not finite.
    ///
    /// # Errors
    /// Gradients of another number or shape than the variables.
    pub fn apply(
        &mut self,
        step: u64,
        gradients: &[Option<Tensor>],
        loss: &Tensor,
    ) -> Result<Pending> {
        let size = StepSize {
            lr: self.rate.at(step),
            max_norm: self.max_norm,
        };
        if !loss.device().is_cpu() {
            return Ok(self.engine.step(gradients, loss, size)?);
        }
        let bytes = self.engine.step_bytes() as f64;
        Ok(profile_part("update", bytes, || {
            self.engine.step(gradients, loss, size)
        })?)
    }

    /// Takes the gradients of `loss`, a scalar, and moves the weights by them.
    ///
    /// # Errors
    /// The backward pass or the update fails.
    pub fn backward_step(&mut self, step: u64, loss: &Tensor) -> Result<Verdict> {
        let gradients = backward(&self.scaled(loss)?)?;
        let gradients = collect_gradients(&self.vars, &gradients);
        let loss = loss.detach().to_dtype(DType::F64)?;
        Ok(self.apply(step, &gradients, &loss)?.wait()?)
    }

    /// Weights, averaged weights and the optimiser's state. Counters and the loss scale go into `position`.
    ///
    /// # Errors
    /// The device fails.
    pub fn state(&mut self, position: &mut Position) -> Result<TrainingState> {
        self.engine.synchronize()?;
        position.ema_updates = self.engine.ema().n_updates();
        position.loss_scale = self
            .engine
            .loss_scale()
            .map(|scale| (scale.scale().to_bits(), scale.good_steps()));
        let weights = self.vars.iter();
        Ok(TrainingState {
            weights: weights
                .map(|(name, var)| (name.clone(), var.as_tensor().clone()))
                .collect(),
            ema: self.engine.ema().state()?,
            optimizer: self.engine.optimizer().state()?,
        })
    }

    /// A copy of weights, average and optimiser, for [`Self::restore`].
    ///
    /// # Errors
    /// The device fails.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        self.engine.synchronize()?;
        let weights = self.vars.iter();
        Ok(Snapshot {
            state: TrainingState {
                weights: weights
                    .map(|(name, var)| Ok((name.clone(), var.as_tensor().copy()?)))
                    .collect::<candle_core::Result<_>>()?,
                ema: self.engine.ema().state()?,
                optimizer: self.engine.optimizer().state()?,
            },
            ema_updates: self.engine.ema().n_updates(),
        })
    }

    /// Undoes all updates since the snapshot.
    ///
    /// # Errors
    /// The device fails.
    pub fn restore(&mut self, snapshot: Snapshot) -> Result<()> {
        let Snapshot { state, ema_updates } = snapshot;
        for ((_, var), (_, tensor)) in self.vars.iter().zip(&state.weights) {
            var.set(tensor)?;
        }
        let TrainingState { ema, optimizer, .. } = state;
        Ok(self.engine.load_state(optimizer, ema, ema_updates, None)?)
    }

    /// Continues from a checkpoint.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] if a tensor is missing or has another shape.
    pub fn load(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let Checkpoint {
            path,
            position,
            mut weights,
            ema,
            optimizer,
        } = checkpoint;
        let misfit = |problem| {
            Err(TrainError::Checkpoint {
                path: path.clone(),
                problem,
            })
        };
        for (name, var) in &self.vars {
            match weights.remove(name) {
                Some(tensor) if tensor.shape() == var.shape() => {
                    var.set(&tensor.to_device(var.device())?)?
                }
                Some(tensor) => {
                    return misfit(format!(
                        "{name}: expected shape {:?}, found {:?}",
                        var.shape(),
                        tensor.shape()
                    ));
                }
                None => return misfit(format!("{name} is missing")),
            }
        }
        let loss_scale = position.loss_scale;
        let loss_scale = loss_scale.map(|(scale, good_steps)| (f64::from_bits(scale), good_steps));
        let updates = position.ema_updates;
        Ok(self
            .engine
            .load_state(optimizer, ema, updates, loss_scale)?)
    }
}
