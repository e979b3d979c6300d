//! The exponential moving average of the weights.

use candle_core::{DType, Device, Tensor, Var};

use crate::{
    error::{OptimError, Result, check_range},
    inplace::with_slice,
    kernels,
    parameters::{check_parameters, match_state},
};

/// How the rate of an [`Ema`] behaves in its first updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EmaRamp {
    /// The rate is the same from the first update on, as in guided-diffusion.
    None,
    /// Update `n` (0-based) uses `min(rate, (1 + n) / (10 + n))`: the average of a short run forgets its start.
    #[default]
    Early,
}

impl EmaRamp {
    /// The rate of update `n` (0-based).
    #[must_use]
    pub fn rate(self, rate: f64, n: u64) -> f64 {
        match self {
            Self::None => rate,
            Self::Early => rate.min((1.0 + n as f64) / (10.0 + n as f64)),
        }
    }

    /// The weight, 0 to 1, of the initial values in the average after `updates`: the product of their rates.
    #[must_use]
    pub fn start_share(self, rate: f64, updates: u64) -> f64 {
        let n = updates as f64;
        let ramp = match self {
            Self::None => 0.0,
            // (1 + k) / (10 + k) reaches the rate at this k.
            Self::Early if rate < 1.0 => ((10.0 * rate - 1.0) / (1.0 - rate)).ceil().clamp(0.0, n),
            Self::Early => n,
        };
        // The product of (1 + k) / (10 + k) for k < ramp.
        let early: f64 = (1..=9)
            .map(|i| f64::from(i) / (ramp + f64::from(i)))
            .product();
        early * rate.powf(n - ramp)
    }
}

/// Shadow weights that follow the parameters slowly, for sampling and evaluation.
///
/// Code reference: guided-diffusion `update_ema`.
/// ```text
/// e = r e + (1 - r) p
/// ```
#[derive(Debug)]
pub struct Ema {
    rate: f64,
    ramp: EmaRamp,
    n_updates: u64,
    params: Vec<(String, Var)>,
    shadow: Vec<Shadow>,
}

/// The average of one parameter. On the CPU it is a plain slice, so that the optimiser's pass can update it together with the parameter.
#[derive(Debug)]
enum Shadow {
    Host(Vec<f32>),
    Device(Var),
}

/// One parameter's average on the CPU, and how the next update moves it: `shadow = keep shadow + (1 - keep) p`.
pub(crate) struct Average<'a> {
    pub(crate) shadow: &'a mut [f32],
    pub(crate) keep: f64,
}

impl Average<'_> {
    pub(crate) fn follow(&mut self, p: &[f32]) {
        kernels::blend(self.shadow, p, self.keep as f32, (1.0 - self.keep) as f32);
    }
}

impl Shadow {
    fn of(var: &Tensor) -> Result<Self> {
        let copy = var.copy()?.detach();
        Ok(if var.device().is_cpu() {
            Self::Host(copy.flatten_all()?.to_vec1()?)
        } else {
            Self::Device(Var::from_tensor(&copy)?)
        })
    }

    fn follow(&mut self, var: &Var, keep: f64) -> Result<()> {
        match self {
            Self::Host(shadow) => Ok(with_slice(var, |p| Average { shadow, keep }.follow(p))?),
            Self::Device(shadow) => {
                Ok(shadow.set(&(shadow.affine(keep, 0.0)? + var.affine(1.0 - keep, 0.0)?)?)?)
            }
        }
    }
}

impl Ema {
    /// An average that starts at the current values of `params`.
    ///
    /// # Units
    /// - `rate` in [0, 1]: the share of the old average that an update keeps
    /// # Errors
    /// - `rate` is outside its range
    /// - a name or a tensor is listed twice
    /// - a parameter is not contiguous f32
    pub fn new(rate: f64, ramp: EmaRamp, params: &[(String, Var)]) -> Result<Self> {
        check_range((0.0..=1.0).contains(&rate), "EMA rate", rate, "[0, 1]")?;
        check_parameters(params)?;
        let shadow = params
            .iter()
            .map(|(_, var)| Shadow::of(var))
            .collect::<Result<_>>()?;
        Ok(Self {
            rate,
            ramp,
            n_updates: 0,
            params: params.to_vec(),
            shadow,
        })
    }

    /// The share of the old average that the next update keeps.
    #[must_use]
    pub fn next_rate(&self) -> f64 {
        self.ramp.rate(self.rate, self.n_updates)
    }

    /// Moves every shadow weight towards its parameter.
    ///
    /// # Errors
    /// A tensor operation fails.
    pub fn update(&mut self) -> Result<()> {
        let rate = self.next_rate();
        let (params, shadow) = (&self.params, &mut self.shadow);
        rayon::scope(|_| {
            for ((_, var), shadow) in params.iter().zip(shadow) {
                shadow.follow(var, rate)?;
            }
            Ok::<_, OptimError>(())
        })?;
        self.n_updates += 1;
        Ok(())
    }

    /// Whether this averages these parameters, in this order.
    pub(crate) fn follows<'a>(&self, vars: impl ExactSizeIterator<Item = &'a Var>) -> bool {
        vars.len() == self.params.len()
            && vars
                .zip(&self.params)
                .all(|(var, (_, own))| var.id() == own.id())
    }

    /// An update in parts: `f` is called for each parameter with its index, its variable, and its average if that is on the CPU. Then all
    /// other averages are updated.
    pub(crate) fn update_with(
        &mut self,
        mut f: impl FnMut(usize, Option<Average<'_>>) -> Result<()>,
    ) -> Result<()> {
        let keep = self.next_rate();
        for (i, ((_, var), shadow)) in self.params.iter().zip(&mut self.shadow).enumerate() {
            match shadow {
                Shadow::Host(shadow) => f(i, Some(Average { shadow, keep }))?,
                Shadow::Device(_) => {
                    f(i, None)?;
                    shadow.follow(var, keep)?;
                }
            }
        }
        self.n_updates += 1;
        Ok(())
    }

    /// The rate, and how it begins.
    #[cfg(feature = "cuda")]
    pub(crate) fn rate(&self) -> (f64, EmaRamp) {
        (self.rate, self.ramp)
    }

    /// Sets the number of updates, which a device counts itself.
    #[cfg(feature = "cuda")]
    pub(crate) fn set_n_updates(&mut self, n_updates: u64) {
        self.n_updates = n_updates;
    }

    /// Every average that is on a device.
    #[cfg(feature = "cuda")]
    pub(crate) fn device_averages(&self) -> Vec<Option<&Tensor>> {
        self.shadow
            .iter()
            .map(|shadow| match shadow {
                Shadow::Host(_) => None,
                Shadow::Device(shadow) => Some(shadow.as_tensor()),
            })
            .collect()
    }

    /// Number of updates so far; part of the state when there is a ramp.
    #[must_use]
    pub fn n_updates(&self) -> u64 {
        self.n_updates
    }

    /// A copy of the shadow weights under the names of the parameters, in their order.
    ///
    /// # Errors
    /// A device runs out of memory.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let named = self.params.iter().zip(&self.shadow);
        named
            .map(|((name, var), shadow)| {
                let copy = match shadow {
                    Shadow::Host(shadow) => Tensor::from_slice(shadow, var.shape(), &Device::Cpu)?,
                    Shadow::Device(shadow) => shadow.as_tensor().copy()?.detach(),
                };
                Ok((name.clone(), copy))
            })
            .collect()
    }

    /// Continues from a [`state`](Self::state), given in any order, after `n_updates` updates; on an error nothing has changed.
    ///
    /// # Errors
    /// Names are missing or unexpected, or shapes or types differ; one message lists all of them.
    pub fn load_state(
        &mut self,
        state: impl IntoIterator<Item = (String, Tensor)>,
        n_updates: u64,
    ) -> Result<()> {
        let expected: Vec<_> = self
            .params
            .iter()
            .map(|(name, var)| (name.clone(), DType::F32, var.shape().clone()))
            .collect();
        let tensors = match_state("EMA", &expected, state)?;
        for (shadow, tensor) in self.shadow.iter_mut().zip(tensors) {
            match shadow {
                Shadow::Host(shadow) => {
                    *shadow = tensor.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?;
                }
                Shadow::Device(shadow) => shadow.set(&tensor.to_device(shadow.device())?)?,
            }
        }
        self.n_updates = n_updates;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_of_the_start_is_the_product_of_all_rates() {
        for ramp in [EmaRamp::None, EmaRamp::Early] {
            for rate in [0.0, 0.05, 0.5, 0.99, 0.9999, 1.0] {
                for updates in [0, 1, 7, 200, 3000] {
                    let product: f64 = (0..updates).map(|n| ramp.rate(rate, n)).product();
                    let share = ramp.start_share(rate, updates);
                    assert!(
                        (share - product).abs() <= 1e-9 * product + 1e-300,
                        "{ramp:?} {rate} {updates}: {share} {product}"
                    );
                }
            }
        }
        // With guided-diffusion's rate the average of a short run stays close to its start. With the ramp it does not.
        assert!(EmaRamp::None.start_share(0.9999, 200) > 0.98);
        assert!(EmaRamp::default().start_share(0.9999, 200) < 1e-12);
        assert!(EmaRamp::None.start_share(0.9999, 1 << 40) < 1e-300);
    }
}
