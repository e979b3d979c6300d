//! From gradients to weights: optimiser, clipping, moving average, and their state in checkpoints.

use crate::error::{Result, TrainError};
use crate::plan::{LrSchedule, OptimPlan, OptimizerKind};
use crate::snapshot::{Position, Snapshot, Tensors};
use candle_core::{Device, Tensor, Var};
use sdft_nn::Params;
use sdft_optim::{
    AdamW, Decay, Ema, EmaRamp, LearningRate, Optimizer, Rule, Sgd, clip_coefficient, global_norm,
};

/// The tensors of a checkpoint.
pub(crate) struct State {
    pub(crate) weights: Tensors,
    pub(crate) ema: Tensors,
    pub(crate) optimizer: Tensors,
}

/// What moves, as it was at some time.
pub(crate) struct Remembered {
    weights: Vec<Tensor>,
    ema: Tensors,
    ema_updates: u64,
    optimizer: Tensors,
}

/// Trainable weights and what moves them.
#[derive(Debug)]
pub(crate) struct Updater {
    pub(crate) vars: Vec<(String, Var)>,
    max_norm: f64,
    optimizer: Optimizer,
    ema: Ema,
    rate: LearningRate,
}

impl Updater {
    pub(crate) fn new(plan: &OptimPlan, steps: u64, vars: Vec<(String, Var)>) -> Result<Self> {
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
        let ramp = if plan.ema_ramp {
            EmaRamp::Early
        } else {
            EmaRamp::None
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
        Ok(Self {
            max_norm: plan.clip,
            optimizer: Optimizer::new(rule, &vars)?,
            ema: Ema::new(plan.ema, ramp, &vars)?,
            rate: LearningRate {
                base: plan.lr,
                warmup_steps: plan.warmup,
                decay,
            },
            vars,
        })
    }

    /// Learning rate of the update after `step` others.
    pub(crate) fn learning_rate(&self, step: u64) -> f64 {
        self.rate.at(step)
    }

    /// The averaged weights.
    pub(crate) fn averaged(&self) -> Result<Params> {
        Ok(Params::new(self.ema.state()?))
    }

    /// Moves the weights; the gradient's norm before clipping, or none if it is not finite and nothing moved.
    pub(crate) fn apply(&mut self, step: u64, gradients: &[Option<Tensor>]) -> Result<Option<f64>> {
        let grad_norm = global_norm(gradients)?;
        if !grad_norm.is_finite() {
            return Ok(None);
        }
        let scale = if self.max_norm > 0.0 {
            clip_coefficient(grad_norm, self.max_norm)
        } else {
            1.0
        };
        self.optimizer
            .step_and_average(gradients, self.rate.at(step), scale, &mut self.ema)?;
        Ok(Some(grad_norm))
    }

    /// Weights, averaged weights and the optimiser's state; `position` learns how often the average moved.
    pub(crate) fn state(&self, position: &mut Position) -> Result<State> {
        position.ema_updates = self.ema.n_updates();
        let weights = self.vars.iter();
        Ok(State {
            weights: weights
                .map(|(name, var)| (name.clone(), var.as_tensor().clone()))
                .collect(),
            ema: self.ema.state()?,
            optimizer: self.optimizer.state()?,
        })
    }

    /// A copy of all that moves, to be [put back](Self::put_back).
    pub(crate) fn remember(&self) -> Result<Remembered> {
        let weights = self.vars.iter();
        Ok(Remembered {
            weights: weights
                .map(|(_, var)| var.as_tensor().copy())
                .collect::<candle_core::Result<_>>()?,
            ema: self.ema.state()?,
            ema_updates: self.ema.n_updates(),
            optimizer: self.optimizer.state()?,
        })
    }

    /// Undoes all updates since.
    pub(crate) fn put_back(&mut self, then: Remembered) -> Result<()> {
        for ((_, var), tensor) in self.vars.iter().zip(&then.weights) {
            var.set(tensor)?;
        }
        self.ema.load_state(then.ema, then.ema_updates)?;
        self.optimizer.load_state(then.optimizer)?;
        Ok(())
    }

    /// Goes on from a checkpoint.
    pub(crate) fn restore(&mut self, snapshot: Snapshot, device: &Device) -> Result<()> {
        let path = snapshot.path;
        let misfit = |problem| TrainError::Checkpoint {
            path: path.clone(),
            problem,
        };
        let [mut weights, ema, optimizer] = snapshot.tensors;
        for (name, var) in &self.vars {
            match weights.remove(name) {
                Some(tensor) if tensor.shape() == var.shape() => {
                    var.set(&tensor.to_device(device)?)?
                }
                Some(tensor) => {
                    return Err(misfit(format!(
                        "{name}: expected shape {:?}, found {:?}",
                        var.shape(),
                        tensor.shape()
                    )));
                }
                None => return Err(misfit(format!("{name} is missing"))),
            }
        }
        self.ema.load_state(ema, snapshot.position.ema_updates)?;
        self.optimizer.load_state(optimizer)?;
        Ok(())
    }
}
