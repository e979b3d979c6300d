//! From gradients to weights: optimiser, clipping, moving average, and their state in checkpoints.

use crate::error::{Result, TrainError};
use crate::plan::{LrSchedule, OptimPlan, OptimizerKind, Precision};
use crate::snapshot::{Position, Snapshot, Tensors};
use candle_core::{DType, Device, Tensor, Var};
use sdft_autograd::backward;
use sdft_nn::Params;
use sdft_optim::{
    AdamW, Decay, Engine, LearningRate, LossScale, Pending, Rule, Sgd, StepSize, Verdict,
    collect_gradients,
};

/// The first loss scale of f16, and the steps without an overflow after which it doubles.
const LOSS_SCALE: (f64, u64) = (65_536.0, 2000);

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
    engine: Engine,
    rate: LearningRate,
}

impl Updater {
    pub(crate) fn new(
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
            engine: Engine::new(rule, (plan.ema, plan.ramp()), scale, &vars)?,
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

    /// The weights as the last step left them.
    pub(crate) fn raw(&self) -> Params {
        let vars = self.vars.iter();
        Params::new(
            vars.map(|(name, var)| (name.clone(), var.as_tensor().detach()))
                .collect(),
        )
    }

    /// The averaged weights.
    pub(crate) fn averaged(&self) -> Result<Params> {
        Ok(Params::new(self.engine.ema().state()?))
    }

    /// `loss`, a scalar, as its gradient is to be taken: times the loss scale.
    pub(crate) fn scaled(&mut self, loss: &Tensor) -> Result<Tensor> {
        match self.engine.loss_factor(loss.dtype(), loss.device())? {
            None => Ok(loss.clone()),
            Some(factor) => Ok((loss * factor)?),
        }
    }

    /// Moves the weights by the gradients of a scaled loss, or lets them be if they or `loss` (f64, of one element, not scaled) are not
    /// finite.
    pub(crate) fn apply(
        &mut self,
        step: u64,
        gradients: &[Option<Tensor>],
        loss: &Tensor,
    ) -> Result<Pending> {
        let size = StepSize {
            lr: self.rate.at(step),
            max_norm: self.max_norm,
        };
        Ok(self.engine.step(gradients, loss, size)?)
    }

    /// The gradients of a loss and what becomes of them, in one.
    pub(crate) fn descend(&mut self, step: u64, loss: &Tensor) -> Result<Verdict> {
        let gradients = backward(&self.scaled(loss)?)?;
        let gradients = collect_gradients(&self.vars, &gradients);
        let loss = loss.detach().to_dtype(DType::F64)?;
        Ok(self.apply(step, &gradients, &loss)?.wait()?)
    }

    /// Weights, averaged weights and the optimiser's state; `position` learns how often the average moved.
    pub(crate) fn state(&mut self, position: &mut Position) -> Result<State> {
        self.engine.synchronize()?;
        position.ema_updates = self.engine.ema().n_updates();
        position.loss_scale = self
            .engine
            .loss_scale()
            .map(|scale| (scale.scale().to_bits(), scale.good_steps()));
        let weights = self.vars.iter();
        Ok(State {
            weights: weights
                .map(|(name, var)| (name.clone(), var.as_tensor().clone()))
                .collect(),
            ema: self.engine.ema().state()?,
            optimizer: self.engine.optimizer().state()?,
        })
    }

    /// A copy of all that moves, to be [put back](Self::put_back).
    pub(crate) fn remember(&mut self) -> Result<Remembered> {
        self.engine.synchronize()?;
        let weights = self.vars.iter();
        Ok(Remembered {
            weights: weights
                .map(|(_, var)| var.as_tensor().copy())
                .collect::<candle_core::Result<_>>()?,
            ema: self.engine.ema().state()?,
            ema_updates: self.engine.ema().n_updates(),
            optimizer: self.engine.optimizer().state()?,
        })
    }

    /// Undoes all updates since.
    pub(crate) fn put_back(&mut self, then: Remembered) -> Result<()> {
        for ((_, var), tensor) in self.vars.iter().zip(&then.weights) {
            var.set(tensor)?;
        }
        let ema = (then.ema, then.ema_updates);
        Ok(self.engine.load_state(then.optimizer, ema, None)?)
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
        let Position {
            ema_updates,
            loss_scale,
            ..
        } = snapshot.position;
        let loss_scale = loss_scale.map(|(scale, good_steps)| (f64::from_bits(scale), good_steps));
        Ok(self
            .engine
            .load_state(optimizer, (ema, ema_updates), loss_scale)?)
    }
}
