//! Parameters, updated in place.

use candle_core::{DType, Device, Shape, Tensor, Var};

use crate::{
    ema::Ema,
    error::{OptimError, Result, check_range},
    inplace::with_slice,
    parameters::{check_gradients, check_parameters, match_state},
    rules::Rule,
    slot::Slot,
};

/// An ordered list of named parameters with the state of the update rule.
///
/// The order only determines the order of the state.
#[derive(Debug)]
pub struct Optimizer {
    rule: Rule,
    slots: Vec<Slot>,
}

impl Optimizer {
    /// An optimiser with fresh state for these parameters.
    ///
    /// # Errors
    /// - a hyper-parameter is outside its range
    /// - a name or a tensor is listed twice
    /// - a parameter is not contiguous f32
    pub fn new(rule: Rule, params: &[(String, Var)]) -> Result<Self> {
        rule.check()?;
        check_parameters(params)?;
        let slots = params
            .iter()
            .map(|(name, var)| Slot::new(name.clone(), var.clone(), &rule))
            .collect::<Result<_>>()?;
        Ok(Self { rule, slots })
    }

    /// The update rule.
    #[must_use]
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The number of elements of all parameters.
    pub(crate) fn elements(&self) -> usize {
        self.slots.iter().map(|slot| slot.var.elem_count()).sum()
    }

    /// The largest number of updates any parameter has had.
    #[must_use]
    pub fn n_updates(&self) -> u32 {
        self.slots
            .iter()
            .map(|slot| slot.n_updates)
            .max()
            .unwrap_or(0)
    }

    /// Updates every parameter that has a gradient; the others keep their moments and counts, as in torch.
    ///
    /// On the CPU one pass per parameter reads the gradient and updates the parameter and its moments.
    /// Everything is checked before the first parameter changes.
    ///
    /// # Units
    /// - `grads` in the order of the parameters
    /// - `lr`: the learning rate of this step
    /// - `scale` multiplies the gradients: 1, or the clip coefficient
    /// # Errors
    /// - `lr` or `scale` is negative or not finite
    /// - the number of gradients, a shape or a type does not fit
    pub fn step(&mut self, grads: &[Option<Tensor>], lr: f64, scale: f64) -> Result<()> {
        self.check_step(grads, lr, scale)?;
        let (rule, slots) = (self.rule, &mut self.slots);
        // Entering the thread pool once instead of once per parameter: networks have hundreds of small ones.
        rayon::scope(|_| {
            for (slot, grad) in slots.iter_mut().zip(grads) {
                if let Some(grad) = grad {
                    slot.update(&rule, grad, lr, scale, None)?;
                }
            }
            Ok(())
        })
    }

    /// [`Self::step`] and [`Ema::update`] together: on the CPU the average follows while the parameter is still in the cache.
    ///
    /// The result is the same as that of both calls in turn.
    ///
    /// # Errors
    /// - [`step`](Self::step) or [`Ema::update`] fails
    /// - `ema` averages other parameters than these
    pub fn step_and_average(
        &mut self,
        grads: &[Option<Tensor>],
        lr: f64,
        scale: f64,
        ema: &mut Ema,
    ) -> Result<()> {
        self.check_step(grads, lr, scale)?;
        if !ema.follows(self.slots.iter().map(|slot| &slot.var)) {
            return Err(OptimError::OtherParameters);
        }
        let (rule, slots) = (self.rule, &mut self.slots);
        rayon::scope(|_| {
            ema.update_with(|i, average| match (&grads[i], average) {
                (Some(grad), average) => slots[i].update(&rule, grad, lr, scale, average),
                (None, Some(mut average)) => Ok(with_slice(&slots[i].var, |p| average.follow(p))?),
                (None, None) => Ok(()),
            })
        })
    }

    pub(crate) fn check_step(&self, grads: &[Option<Tensor>], lr: f64, scale: f64) -> Result<()> {
        for (name, value) in [("lr", lr), ("scale", scale)] {
            check_range(value >= 0.0 && value.is_finite(), name, value, "[0, inf)")?;
        }
        let params = self
            .slots
            .iter()
            .map(|slot| (slot.name.as_str(), &slot.var));
        check_gradients(params, grads)
    }

    /// Sets the number of updates of all parameters, which a device counts itself.
    #[cfg(feature = "cuda")]
    pub(crate) fn set_n_updates(&mut self, n_updates: u32) {
        for slot in &mut self.slots {
            slot.n_updates = n_updates;
        }
    }

    /// Every parameter and its moments, if they are on a device.
    #[cfg(feature = "cuda")]
    pub(crate) fn device_moments(&self) -> Vec<(&Tensor, &[Tensor])> {
        self.slots
            .iter()
            .map(|slot| (slot.var.as_tensor(), slot.device_moments()))
            .collect()
    }

    /// A copy of all state: for every parameter `exp_avg.NAME`, `exp_avg_sq.NAME` (AdamW) or `momentum_buffer.NAME` (SGD with momentum),
    /// of its shape, and the number of its updates as `step.NAME` (a u32 scalar).
    ///
    /// # Errors
    /// A device runs out of memory.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut state = Vec::new();
        for slot in &self.slots {
            for (kind, moment) in self.rule.memory().iter().zip(slot.moments()?) {
                state.push((format!("{kind}.{}", slot.name), moment));
            }
            let n_updates = Tensor::new(slot.n_updates, &Device::Cpu)?;
            state.push((format!("step.{}", slot.name), n_updates));
        }
        Ok(state)
    }

    /// Continues from a [`state`](Self::state), given in any order; on an error nothing has changed.
    ///
    /// # Errors
    /// Names are missing or unexpected, or shapes or types differ; one message lists all of them.
    pub fn load_state(&mut self, state: impl IntoIterator<Item = (String, Tensor)>) -> Result<()> {
        let kinds = self.rule.memory();
        let mut expected = Vec::new();
        for slot in &self.slots {
            for kind in kinds {
                let name = format!("{kind}.{}", slot.name);
                expected.push((name, DType::F32, slot.var.shape().clone()));
            }
            expected.push((format!("step.{}", slot.name), DType::U32, Shape::from(())));
        }
        let tensors = match_state("optimiser", &expected, state)?;
        for (slot, tensors) in self.slots.iter_mut().zip(tensors.chunks(kinds.len() + 1)) {
            if let [moments @ .., n_updates] = tensors {
                slot.set_moments(moments)?;
                slot.n_updates = n_updates.to_scalar()?;
            }
        }
        Ok(())
    }
}
