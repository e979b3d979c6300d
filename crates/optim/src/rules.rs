//! Update rules and their hyper-parameters.

use crate::{
    error::{Result, check_range},
    kernels::{AdamWScalars, SgdScalars},
};

/// Adam with decoupled weight decay (Loshchilov and Hutter 2019), with the semantics of torch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay rates of the two moments, each in [0, 1).
    pub betas: (f64, f64),
    /// Added to the root of the second moment, >= 0.
    pub eps: f64,
    /// Share of a weight that is subtracted per unit of learning rate, >= 0.
    pub weight_decay: f64,
}

impl Default for AdamW {
    /// The values of guided-diffusion: torch's, without weight decay.
    fn default() -> Self {
        Self {
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
        }
    }
}

/// Stochastic gradient descent with the semantics of torch.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sgd {
    /// Decay rate of the running sum of gradients, in [0, 1); 0 keeps none.
    pub momentum: f64,
    /// Multiple of a weight that is added to its gradient, >= 0.
    pub weight_decay: f64,
}

/// How a gradient changes a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// See [`AdamW`].
    AdamW(AdamW),
    /// See [`Sgd`].
    Sgd(Sgd),
}

impl Rule {
    /// Whether every hyper-parameter is in its range.
    ///
    /// # Errors
    /// A hyper-parameter is outside its range; the message names both.
    pub fn check(&self) -> Result<()> {
        let rate =
            |name, value: f64| check_range((0.0..1.0).contains(&value), name, value, "[0, 1)");
        let size = |name, value: f64| {
            check_range(value >= 0.0 && value.is_finite(), name, value, "[0, inf)")
        };
        match self {
            Self::AdamW(rule) => {
                rate("beta1", rule.betas.0)?;
                rate("beta2", rule.betas.1)?;
                size("eps", rule.eps)?;
                size("weight_decay", rule.weight_decay)
            }
            Self::Sgd(rule) => {
                rate("momentum", rule.momentum)?;
                size("weight_decay", rule.weight_decay)
            }
        }
    }

    /// The names of the moments of this rule, as in torch.
    pub(crate) fn memory(&self) -> &'static [&'static str] {
        match self {
            Self::AdamW(_) => &["exp_avg", "exp_avg_sq"],
            Self::Sgd(Sgd { momentum: 0.0, .. }) => &[],
            Self::Sgd(_) => &["momentum_buffer"],
        }
    }
}

impl AdamW {
    /// The numbers of update `k` (1-based) of a parameter.
    pub(crate) fn scalars(&self, k: u32, lr: f64, scale: f64) -> AdamWScalars {
        let (beta1, beta2) = self.betas;
        let k = f64::from(k);
        AdamWScalars {
            scale: scale as f32,
            decay: (1.0 - lr * self.weight_decay) as f32,
            one_minus_beta1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            step_size: (lr / (1.0 - beta1.powf(k))) as f32,
            sqrt_correction2: (1.0 - beta2.powf(k)).sqrt() as f32,
            eps: self.eps as f32,
        }
    }
}

impl Sgd {
    pub(crate) fn scalars(&self, lr: f64, scale: f64) -> SgdScalars {
        SgdScalars {
            scale: scale as f32,
            weight_decay: self.weight_decay as f32,
            momentum: self.momentum as f32,
            lr: lr as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyper_parameters_outside_their_range_are_named() {
        let adamw = |betas, eps, weight_decay| {
            Rule::AdamW(AdamW {
                betas,
                eps,
                weight_decay,
            })
        };
        let sgd = |momentum, weight_decay| {
            Rule::Sgd(Sgd {
                momentum,
                weight_decay,
            })
        };
        for (rule, message) in [
            (adamw((1.0, 0.9), 1e-8, 0.0), "beta1 = 1 is outside [0, 1)"),
            (
                adamw((0.9, -0.1), 1e-8, 0.0),
                "beta2 = -0.1 is outside [0, 1)",
            ),
            (adamw((0.9, 0.9), -1.0, 0.0), "eps = -1 is outside [0, inf)"),
            (
                adamw((0.9, 0.9), 0.0, f64::NAN),
                "weight_decay = NaN is outside [0, inf)",
            ),
            (sgd(1.5, 0.0), "momentum = 1.5 is outside [0, 1)"),
            (
                sgd(0.0, f64::INFINITY),
                "weight_decay = inf is outside [0, inf)",
            ),
        ] {
            assert_eq!(rule.check().unwrap_err().to_string(), message);
        }
        assert!(Rule::AdamW(AdamW::default()).check().is_ok());
        assert!(Rule::Sgd(Sgd::default()).check().is_ok());
    }
}
