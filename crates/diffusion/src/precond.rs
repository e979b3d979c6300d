//! Preconditioning: how a network becomes a denoiser at any noise level.

use crate::FlowConvention;
use serde::{Deserialize, Serialize};

/// How the output of a network F becomes the clean image behind `x = x0 + sigma n`, the denoiser D of Karras et al. 2022.
///
/// ```text
/// D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)
/// ```
/// Names and defaults of the fields are those of NVlabs/edm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "class", deny_unknown_fields)]
pub enum Precond {
    /// EDM's own (`EDMPrecond`): inputs, outputs and targets of unit variance; `c_noise = ln(sigma) / 4`.
    #[serde(rename = "EDMPrecond")]
    Edm {
        /// Smallest noise level for samplers; 0 is no limit.
        #[serde(default)]
        sigma_min: f64,
        /// Largest noise level for samplers; missing is no limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sigma_max: Option<f64>,
        /// Standard deviation of the images.
        #[serde(default = "half")]
        sigma_data: f64,
    },
    /// Variance preserving (`VPPrecond`): F predicts the noise at `c_noise = (M - 1) t`, where `sigma(t)` is the one of a linear beta.
    #[serde(rename = "VPPrecond")]
    Vp {
        /// Slope of beta.
        beta_d: f64,
        /// Beta at time 0.
        beta_min: f64,
        /// Steps of the discrete process that F was made for.
        #[serde(rename = "M")]
        m: f64,
        /// Smallest time in training.
        epsilon_t: f64,
    },
    /// Variance exploding (`VEPrecond`): F predicts the negative noise at `c_noise = ln(sigma / 2)`.
    #[serde(rename = "VEPrecond")]
    Ve {
        /// Smallest noise level.
        sigma_min: f64,
        /// Largest noise level.
        sigma_max: f64,
    },
    /// EDM's scalings around guided-diffusion's network, with `c_noise = 250 ln(sigma + 1e-44)`.
    ///
    /// Source: openai/consistency_models `KarrasDenoiser`, without distillation.
    ConsistencyAdm {
        /// Smallest noise level.
        sigma_min: f64,
        /// Largest noise level.
        sigma_max: f64,
        /// Standard deviation of the images.
        sigma_data: f64,
    },
    /// Flow matching: F predicts the velocity `eps - x0`, or its negative, at `x_tau = (1 - tau) x0 + tau eps`, which is `x / (1 + sigma)`
    /// with `tau = sigma / (1 + sigma)`.
    Flow {
        /// The time that F is called with, and its sign.
        convention: FlowConvention,
    },
}

fn half() -> f64 {
    0.5
}

impl Precond {
    /// `EDMPrecond` with its defaults.
    pub const EDM: Self = Self::Edm {
        sigma_min: 0.0,
        sigma_max: None,
        sigma_data: 0.5,
    };
    /// `VPPrecond` with its defaults.
    pub const VP: Self = Self::Vp {
        beta_d: 19.9,
        beta_min: 0.1,
        m: 1000.0,
        epsilon_t: 1e-5,
    };
    /// `VEPrecond` with its defaults.
    pub const VE: Self = Self::Ve {
        sigma_min: 0.02,
        sigma_max: 100.0,
    };
    /// The values of all files of openai/consistency_models.
    pub const CONSISTENCY_ADM: Self = Self::ConsistencyAdm {
        sigma_min: 0.002,
        sigma_max: 80.0,
        sigma_data: 0.5,
    };

    /// A flow as willisma/SiT trains it.
    pub const SIT: Self = Self::Flow {
        convention: FlowConvention::Sit,
    };

    /// The name of the class in NVlabs/edm, `ConsistencyAdm` or `Flow`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Edm { .. } => "EDMPrecond",
            Self::Vp { .. } => "VPPrecond",
            Self::Ve { .. } => "VEPrecond",
            Self::ConsistencyAdm { .. } => "ConsistencyAdm",
            Self::Flow { .. } => "Flow",
        }
    }

    /// The factor of the noised image in the result.
    pub fn c_skip(&self, sigma: f64) -> f64 {
        match *self {
            Self::Edm { sigma_data, .. } | Self::ConsistencyAdm { sigma_data, .. } => {
                sigma_data * sigma_data / (sigma * sigma + sigma_data * sigma_data)
            }
            Self::Vp { .. } | Self::Ve { .. } => 1.0,
            Self::Flow { .. } => 1.0 / (1.0 + sigma),
        }
    }

    /// The factor of the network's output in the result.
    pub fn c_out(&self, sigma: f64) -> f64 {
        match *self {
            Self::Edm { sigma_data, .. } | Self::ConsistencyAdm { sigma_data, .. } => {
                sigma * sigma_data / sigma.hypot(sigma_data)
            }
            Self::Vp { .. } => -sigma,
            Self::Ve { .. } => sigma,
            Self::Flow { convention } => -convention.sign() * sigma / (1.0 + sigma),
        }
    }

    /// The factor of the noised image in the network's input.
    pub fn c_in(&self, sigma: f64) -> f64 {
        match *self {
            Self::Edm { sigma_data, .. } | Self::ConsistencyAdm { sigma_data, .. } => {
                1.0 / sigma.hypot(sigma_data)
            }
            Self::Vp { .. } => 1.0 / sigma.hypot(1.0),
            Self::Ve { .. } => 1.0,
            Self::Flow { .. } => 1.0 / (1.0 + sigma),
        }
    }

    /// The time that the network is called with.
    ///
    /// Where it reaches 1000, each step is rounded to f32 as the reference does: sinusoids of that many radians see the difference.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the reference works in f32"
    )]
    pub fn c_noise(&self, sigma: f64) -> f64 {
        match *self {
            Self::Edm { .. } => sigma.ln() / 4.0,
            Self::Vp {
                beta_d,
                beta_min,
                m,
                ..
            } => {
                let sigma = sigma as f32;
                let log = f64::from(1.0 + sigma * sigma).ln() as f32;
                let inner = (beta_min * beta_min) as f32 + (2.0 * beta_d) as f32 * log;
                let time = (inner.sqrt() - beta_min as f32) / beta_d as f32;
                f64::from((m - 1.0) as f32 * time)
            }
            Self::Ve { .. } => (sigma / 2.0).ln(),
            Self::Flow { convention } => convention.time(sigma / (1.0 + sigma)),
            Self::ConsistencyAdm { .. } => f64::from(250.0 * ((sigma + 1e-44).ln() as f32)),
        }
    }

    /// The smallest noise level for samplers.
    pub fn sigma_min(&self) -> f64 {
        match *self {
            Self::Flow { .. } => 0.0,
            Self::Vp { epsilon_t, .. } => self.vp_sigma(epsilon_t),
            Self::Edm { sigma_min, .. }
            | Self::Ve { sigma_min, .. }
            | Self::ConsistencyAdm { sigma_min, .. } => sigma_min,
        }
    }

    /// The largest noise level for samplers.
    pub fn sigma_max(&self) -> f64 {
        match *self {
            Self::Vp { .. } => self.vp_sigma(1.0),
            Self::Flow { .. } => f64::INFINITY,
            Self::Edm { sigma_max, .. } => sigma_max.unwrap_or(f64::INFINITY),
            Self::Ve { sigma_max, .. } | Self::ConsistencyAdm { sigma_max, .. } => sigma_max,
        }
    }

    /// The standard deviation of the images, where the preconditioning states one.
    pub fn sigma_data(&self) -> Option<f64> {
        match *self {
            Self::Edm { sigma_data, .. } | Self::ConsistencyAdm { sigma_data, .. } => {
                Some(sigma_data)
            }
            Self::Vp { .. } | Self::Ve { .. } | Self::Flow { .. } => None,
        }
    }

    /// The noise level of `VPPrecond` at time `t`, in f32 as in the reference: near 0 rounding changes it by a few percent.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the reference works in f32"
    )]
    fn vp_sigma(&self, t: f64) -> f64 {
        match *self {
            Self::Vp {
                beta_d, beta_min, ..
            } => {
                let t = t as f32;
                let log = (0.5 * beta_d) as f32 * (t * t) + beta_min as f32 * t;
                f64::from((f64::from(log).exp() as f32 - 1.0).sqrt())
            }
            _ => f64::NAN,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const ALL: [Precond; 6] = [
        Precond::EDM,
        Precond::VP,
        Precond::VE,
        Precond::CONSISTENCY_ADM,
        Precond::SIT,
        Precond::Flow {
            convention: FlowConvention::Diffusers,
        },
    ];

    #[test]
    fn the_factors_are_those_of_the_paper() {
        let near = |got: f64, want: f64| {
            let error = (got - want).abs() / want.abs().max(1e-9);
            assert!(error < 1e-6, "{got} instead of {want}");
        };
        let (edm, s) = (Precond::EDM, 2.0f64);
        near(edm.c_skip(s), 0.25 / 4.25);
        near(edm.c_out(s), 1.0 / 4.25f64.sqrt());
        near(edm.c_in(s), 1.0 / 4.25f64.sqrt());
        near(edm.c_noise(s), 2.0f64.ln() / 4.0);
        near(Precond::CONSISTENCY_ADM.c_noise(s), 250.0 * 2.0f64.ln());
        near(Precond::VE.c_noise(s), 0.0);
        near(Precond::SIT.c_noise(s), 1.0 / 3.0);
        near(Precond::SIT.c_out(s), 2.0 / 3.0);
        // At time 1 of the VP process, F is called with step 999.
        near(Precond::VP.c_noise(Precond::VP.sigma_max()), 999.0);
        near(Precond::VP.sigma_max(), (10.05f64.exp() - 1.0).sqrt());
        // 1.000995e-6 without rounding; 1 + that is 1 + 2^-20 in f32.
        near(Precond::VP.sigma_min(), 2f64.powi(-10));
        assert_eq!((edm.sigma_min(), edm.sigma_max()), (0.0, f64::INFINITY));
    }

    #[test]
    fn a_preconditioning_comes_back_from_its_file() {
        for precond in ALL {
            let json = serde_json::to_string(&precond).unwrap();
            assert_eq!(serde_json::from_str::<Precond>(&json).unwrap(), precond);
        }
        let json = r#"{"class":"EDMPrecond","sigma_dat":0.5}"#;
        assert!(serde_json::from_str::<Precond>(json).is_err());
    }
}
