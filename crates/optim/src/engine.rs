//! Optimiser, average and loss scale together: from gradients to new weights, without waiting for the device.

use candle_core::{DType, Device, Tensor, Var};
#[cfg(feature = "cuda")]
use sdft_cuda::Download;
use sdft_cuda::download;

use crate::{
    ema::{Ema, EmaRamp},
    error::Result,
    loss_scale::LossScale,
    norm::{clip_coefficient, global_norm},
    optimizer::Optimizer,
    rules::Rule,
};

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// The parameters were updated.
    Updated {
        /// The norm of the gradient before clipping.
        grad_norm: f64,
    },
    /// The loss was not finite; nothing was updated.
    BadLoss,
    /// The gradient was not finite; nothing was updated, and the loss scale decreases.
    BadGradient,
}

/// A step that the device may still be computing.
#[derive(Debug)]
pub struct Pending(Way);

#[derive(Debug)]
enum Way {
    Known(Verdict),
    #[cfg(feature = "cuda")]
    Coming(Download),
}

impl Pending {
    /// A step whose result is known already.
    #[must_use]
    pub fn known(verdict: Verdict) -> Self {
        Self(Way::Known(verdict))
    }

    /// Waits for the device and returns the result.
    ///
    /// # Errors
    /// The device failed.
    pub fn wait(self) -> Result<Verdict> {
        match self.0 {
            Way::Known(verdict) => Ok(verdict),
            #[cfg(feature = "cuda")]
            Way::Coming(numbers) => {
                let decision = sdft_cuda::Decision::read(&numbers.wait()?)?;
                Ok(match decision.finite {
                    (false, _) => Verdict::BadLoss,
                    (_, false) => Verdict::BadGradient,
                    _ => Verdict::Updated {
                        grad_norm: decision.grad_norm,
                    },
                })
            }
        }
    }
}

/// The rate of an average, and how it begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmaRate {
    /// The share of the old average that an update keeps, in [0, 1].
    pub rate: f64,
    /// The rate of the first updates.
    pub ramp: EmaRamp,
}

/// The numbers of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepSize {
    /// Learning rate.
    pub lr: f64,
    /// Largest norm of the gradient; 0 does not clip.
    pub max_norm: f64,
}

/// Updates parameters and their average.
///
/// On the CPU a step is complete when [`step`](Self::step) returns. A GPU only queues it: the device decides whether loss and gradient
/// are finite, clips the gradient and counts the updates, and [`Pending`] returns the result to the host.
#[derive(Debug)]
pub struct Engine {
    optimizer: Optimizer,
    ema: Ema,
    scale: Option<LossScale>,
    #[cfg(feature = "cuda")]
    table: Option<sdft_cuda::Table>,
}

impl Engine {
    /// An optimiser with this rule, an average with this rate, and a loss scale for f16.
    ///
    /// # Errors
    /// As [`Optimizer::new`] and [`Ema::new`].
    pub fn new(
        rule: Rule,
        ema: EmaRate,
        scale: Option<LossScale>,
        params: &[(String, Var)],
    ) -> Result<Self> {
        Ok(Self {
            optimizer: Optimizer::new(rule, params)?,
            ema: Ema::new(ema.rate, ema.ramp, params)?,
            scale,
            #[cfg(feature = "cuda")]
            table: None,
        })
    }

    /// The factor of the loss before its gradient is taken, a scalar of this type on this device. `None` without a loss scale.
    ///
    /// # Errors
    /// The device fails.
    pub fn loss_factor(&mut self, dtype: DType, device: &Device) -> Result<Option<Tensor>> {
        let Some(scale) = &self.scale else {
            return Ok(None);
        };
        #[cfg(feature = "cuda")]
        if device.is_cuda() {
            let scale = self.table()?.loss_scale()?;
            return Ok(Some(scale.to_dtype(dtype)?.squeeze(0)?));
        }
        Ok(Some(Tensor::new(scale.scale(), device)?.to_dtype(dtype)?))
    }

    /// Bytes that a step on the CPU reads and writes: gradients twice, for their norm and for the update; parameters, averages and moments
    /// both ways.
    pub fn step_bytes(&self) -> usize {
        self.optimizer.elements()
            * size_of::<f32>()
            * (2 + 2 * (2 + self.optimizer.rule().memory().len()))
    }

    /// One update with the gradients of a loss that was multiplied by [`loss_factor`](Self::loss_factor); `loss` is without it.
    ///
    /// # Shapes
    /// - `grads` in the order of the parameters
    /// - `loss`: f64, one element
    /// # Errors
    /// As [`Optimizer::step_and_average`].
    pub fn step(
        &mut self,
        grads: &[Option<Tensor>],
        loss: &Tensor,
        size: StepSize,
    ) -> Result<Pending> {
        #[cfg(feature = "cuda")]
        if loss.device().is_cuda() {
            return self.queue(grads, loss, size);
        }
        let verdict = self.step_here(grads, loss, size)?;
        if let Some(scale) = &mut self.scale {
            match verdict {
                Verdict::Updated { .. } => scale.went_well(),
                Verdict::BadGradient => scale.overflowed(),
                Verdict::BadLoss => {}
            }
        }
        Ok(Pending(Way::Known(verdict)))
    }

    fn step_here(
        &mut self,
        grads: &[Option<Tensor>],
        loss: &Tensor,
        size: StepSize,
    ) -> Result<Verdict> {
        if !download(&loss.flatten_all()?)?
            .wait()?
            .iter()
            .all(|loss| loss.is_finite())
        {
            return Ok(Verdict::BadLoss);
        }
        let scale = self.scale.as_ref().map_or(1.0, LossScale::scale);
        let grad_norm = global_norm(grads)? / scale;
        if !grad_norm.is_finite() {
            return Ok(Verdict::BadGradient);
        }
        let clip = match size.max_norm {
            max_norm if max_norm > 0.0 => clip_coefficient(grad_norm, max_norm),
            _ => 1.0,
        };
        self.optimizer
            .step_and_average(grads, size.lr, clip / scale, &mut self.ema)?;
        Ok(Verdict::Updated { grad_norm })
    }

    /// The optimiser. Its counters are up to date after [`synchronize`](Self::synchronize).
    #[must_use]
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The average. Its counter is up to date after [`synchronize`](Self::synchronize).
    #[must_use]
    pub fn ema(&self) -> &Ema {
        &self.ema
    }

    /// The loss scale, up to date after [`synchronize`](Self::synchronize).
    #[must_use]
    pub fn loss_scale(&self) -> Option<&LossScale> {
        self.scale.as_ref()
    }

    /// Waits for the device and copies its counters to the host.
    ///
    /// # Errors
    /// The device fails.
    pub fn synchronize(&mut self) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(table) = &self.table {
            let after = table.read()?.after;
            self.optimizer
                .set_n_updates(u32::try_from(after.updates).unwrap_or(u32::MAX));
            self.ema.set_n_updates(after.ema_updates);
            if let Some(scale) = &mut self.scale {
                *scale = scale.continued(after.loss_scale, after.good_steps);
            }
        }
        Ok(())
    }

    /// Continues from the states of optimiser, average (after `ema_updates` updates) and loss scale (scale and good steps).
    ///
    /// # Errors
    /// As [`Optimizer::load_state`] and [`Ema::load_state`].
    pub fn load_state(
        &mut self,
        optimizer: impl IntoIterator<Item = (String, Tensor)>,
        ema: impl IntoIterator<Item = (String, Tensor)>,
        ema_updates: u64,
        scale: Option<(f64, u64)>,
    ) -> Result<()> {
        #[cfg(feature = "cuda")]
        {
            // The next step makes it again from the loaded state.
            self.table = None;
        }
        self.ema.load_state(ema, ema_updates)?;
        self.optimizer.load_state(optimizer)?;
        if let (Some(own), Some((scale, good_steps))) = (&mut self.scale, scale) {
            *own = own.continued(scale, good_steps);
        }
        Ok(())
    }
}

#[cfg(feature = "cuda")]
impl Engine {
    fn table(&mut self) -> Result<&mut sdft_cuda::Table> {
        if self.table.is_none() {
            let moments = self.optimizer.device_moments();
            let averages = self.ema.device_averages();
            let rows: Vec<[Option<&Tensor>; 4]> = moments
                .into_iter()
                .zip(averages)
                .map(|((p, moments), e)| [Some(p), moments.first(), moments.get(1), e])
                .collect();
            let (scale, good_steps) = self
                .scale
                .as_ref()
                .map_or((1.0, 0), |s| (s.scale(), s.good_steps()));
            let start = sdft_cuda::Step {
                updates: self.optimizer.n_updates().into(),
                ema_updates: self.ema.n_updates(),
                loss_scale: scale,
                good_steps,
            };
            self.table = Some(sdft_cuda::Table::new(&rows, start)?);
        }
        match &mut self.table {
            Some(table) => Ok(table),
            None => Err(candle_core::Error::Msg("the optimiser's table".to_owned()).into()),
        }
    }

    /// The step on a GPU.
    fn queue(
        &mut self,
        grads: &[Option<Tensor>],
        loss: &Tensor,
        size: StepSize,
    ) -> Result<Pending> {
        self.optimizer.check_step(grads, size.lr, 1.0)?;
        let dense: Vec<Option<Tensor>> = grads
            .iter()
            .map(|grad| grad.as_ref().map(Tensor::contiguous).transpose())
            .collect::<candle_core::Result<_>>()?;
        let (rate, ramp) = self.ema.rate();
        let rule = *self.optimizer.rule();
        let growth_interval = self.scale.as_ref().map(LossScale::growth_interval);
        let mut settings = sdft_cuda::Settings {
            lr: size.lr,
            max_norm: size.max_norm,
            betas: (0.0, 0.0),
            eps: 0.0,
            weight_decay: 0.0,
            ema_rate: rate,
            ema_ramp: ramp == EmaRamp::Early,
            growth_interval,
        };
        let rule = match rule {
            Rule::AdamW(rule) => {
                settings.betas = rule.betas;
                settings.eps = rule.eps;
                settings.weight_decay = rule.weight_decay;
                sdft_cuda::Rule::AdamW
            }
            Rule::Sgd(rule) => {
                settings.weight_decay = rule.weight_decay;
                sdft_cuda::Rule::Sgd {
                    momentum: rule.momentum,
                }
            }
        };
        let grads: Vec<Option<&Tensor>> = dense.iter().map(Option::as_ref).collect();
        let state = self.table()?.step(rule, &settings, &grads, loss)?;
        Ok(Pending(Way::Coming(download(&state)?)))
    }
}
