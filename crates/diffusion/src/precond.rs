//! Preconditioning: how a network becomes a denoiser at any noise level.

use crate::level::per_image;
use crate::{
    Bottleneck, BottleneckNet, Change, ComputeMode, Condition, Denoiser, Edited, FeatureNet,
    Network, Prediction, PredictionType, Trainable,
};
use candle_core::{Result, Tensor, Var, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The key of a preconditioning in the metadata of a network's file.
pub const PRECOND_KEY: &str = "sdft.precond";

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
    /// Variance preserving (`VPPrecond`): F predicts the noise at `c_noise = (M - 1) t`, where `sigma(t)` is that of a linear beta.
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

    /// The name of the class in NVlabs/edm, or `ConsistencyAdm`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Edm { .. } => "EDMPrecond",
            Self::Vp { .. } => "VPPrecond",
            Self::Ve { .. } => "VEPrecond",
            Self::ConsistencyAdm { .. } => "ConsistencyAdm",
        }
    }

    /// The factor of the noised image in the result.
    pub fn c_skip(&self, sigma: f64) -> f64 {
        match *self {
            Self::Edm { sigma_data, .. } | Self::ConsistencyAdm { sigma_data, .. } => {
                sigma_data * sigma_data / (sigma * sigma + sigma_data * sigma_data)
            }
            Self::Vp { .. } | Self::Ve { .. } => 1.0,
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
        }
    }

    /// The time that the network is called with.
    pub fn c_noise(&self, sigma: f64) -> f64 {
        match *self {
            Self::Edm { .. } => sigma.ln() / 4.0,
            Self::Vp {
                beta_d,
                beta_min,
                m,
                ..
            } => {
                let log = (sigma * sigma).ln_1p();
                (m - 1.0) * ((beta_min * beta_min + 2.0 * beta_d * log).sqrt() - beta_min) / beta_d
            }
            Self::Ve { .. } => (sigma / 2.0).ln(),
            Self::ConsistencyAdm { .. } => 250.0 * (sigma + 1e-44).ln(),
        }
    }

    /// The smallest noise level for samplers.
    pub fn sigma_min(&self) -> f64 {
        match *self {
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
            Self::Vp { .. } | Self::Ve { .. } => None,
        }
    }

    /// The noise level of `VPPrecond` at time `t`.
    fn vp_sigma(&self, t: f64) -> f64 {
        match *self {
            Self::Vp {
                beta_d, beta_min, ..
            } => (0.5 * beta_d * t * t + beta_min * t).exp_m1().sqrt(),
            _ => f64::NAN,
        }
    }
}

/// The state that a noised image is given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `sqrt(ab) x0 + sqrt(1 - ab) n`, with `sigma^2 = (1 - ab) / ab`.
    VariancePreserving,
    /// `x0 + sigma n`.
    VarianceExploding,
}

/// A network F with a preconditioning: the denoiser D.
///
/// As a [`Denoiser`], a [`Network`] or a [`Trainable`] it is called with the variance-preserving state
/// `x_t = sqrt(ab) x0 + sqrt(1 - ab) n` and with `t = sigma = sqrt((1 - ab) / ab)`, and predicts the clean image. So losses, samplers and
/// translators of the discrete process apply. [`Self::denoise`] is D(x; sigma) itself. The output of `net` is F, whatever its prediction
/// type says.
#[derive(Clone, Debug)]
pub struct Preconditioned<N> {
    net: N,
    precond: Precond,
}

impl<N> Preconditioned<N> {
    /// D from F.
    pub fn new(net: N, precond: Precond) -> Self {
        Self { net, precond }
    }

    /// F.
    pub fn net(&self) -> &N {
        &self.net
    }

    /// F, to be changed.
    pub fn net_mut(&mut self) -> &mut N {
        &mut self.net
    }

    /// The preconditioning.
    pub fn precond(&self) -> Precond {
        self.precond
    }

    /// `D(x; sigma)` where `f` is F, for a clean image plus noise of standard deviation sigma.
    ///
    /// # Shapes
    /// - `x`: `[B, C, H, W]` · `sigma`: `B` noise levels above 0 · returns: `[B, C, H, W]` in the type of F's output
    ///
    /// # Errors
    /// A noise level that is not positive and finite, or another number of them than images; those of `f`.
    pub fn denoise_by(
        &self,
        x: &Tensor,
        sigma: &[f32],
        f: impl FnOnce(&Tensor, &[f32]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let call = Call::new(self.precond, State::VarianceExploding, x, sigma)?;
        call.finish(x, &f(&call.input, &call.time)?)
    }

    fn call(&self, xt: &Tensor, sigma: &[f32]) -> Result<Call> {
        Call::new(self.precond, State::VariancePreserving, xt, sigma)
    }
}

/// One evaluation of D: what F is called with, and how its output continues.
struct Call {
    input: Tensor,
    time: Vec<f32>,
    /// Factors of the state and of F's output.
    skip: Vec<f64>,
    out: Vec<f64>,
}

impl Call {
    #[expect(clippy::cast_possible_truncation, reason = "networks take f32 times")]
    fn new(precond: Precond, state: State, x: &Tensor, sigma: &[f32]) -> Result<Self> {
        if sigma.len() != x.dim(0)? {
            bail!(
                "expected a noise level for each of {} images, found {}",
                x.dim(0)?,
                sigma.len()
            );
        }
        if let Some(wrong) = sigma.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            bail!("expected noise levels that are positive and finite, found {wrong}");
        }
        let each = |f: &dyn Fn(f64) -> f64| sigma.iter().map(|&s| f(f64::from(s))).collect();
        // From the given state to x0 + sigma n.
        let to_exploding = |sigma: f64| match state {
            State::VariancePreserving => sigma.hypot(1.0),
            State::VarianceExploding => 1.0,
        };
        let c_in: Vec<f64> = each(&|s| precond.c_in(s) * to_exploding(s));
        let time: Vec<f64> = each(&|s| precond.c_noise(s));
        Ok(Self {
            input: x.broadcast_mul(&per_image(&c_in, x)?)?,
            time: time.into_iter().map(|t| t as f32).collect(),
            skip: each(&|s| precond.c_skip(s) * to_exploding(s)),
            out: each(&|s| precond.c_out(s)),
        })
    }

    /// `c_skip x + c_out f`.
    fn finish(&self, x: &Tensor, f: &Tensor) -> Result<Tensor> {
        let x = x.to_dtype(f.dtype())?;
        let skip = x.broadcast_mul(&per_image(&self.skip, &x)?)?;
        skip + f.broadcast_mul(&per_image(&self.out, f)?)?
    }

    fn prediction(&self, x: &Tensor, f: &Prediction) -> Result<Prediction> {
        let clean = self.finish(x, &f.output)?;
        Ok(Prediction::new(clean, PredictionType::Sample))
    }
}

impl<N: Network> Preconditioned<N> {
    /// `D(x; sigma)`: the clean image behind a clean image plus noise of standard deviation sigma.
    ///
    /// # Shapes
    /// - `x`: `[B, C, H, W]` · `sigma`: `B` noise levels above 0 · returns: `[B, C, H, W]`
    ///
    /// # Errors
    /// As [`Self::denoise_by`] and [`Network::predict_with`].
    pub fn denoise(&self, x: &Tensor, sigma: &[f32], condition: &Condition<'_>) -> Result<Tensor> {
        self.denoise_by(x, sigma, |x, t| {
            Ok(self.net.predict_with(x, t, condition)?.output)
        })
    }
}

impl<N: Network> Denoiser for Preconditioned<N> {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        self.predict_with(xt, t, &Condition::default())
    }
}

impl<N: Network> Network for Preconditioned<N> {
    fn predict_with(
        &self,
        xt: &Tensor,
        t: &[f32],
        condition: &Condition<'_>,
    ) -> Result<Prediction> {
        let call = self.call(xt, t)?;
        let f = self.net.predict_with(&call.input, &call.time, condition)?;
        call.prediction(xt, &f)
    }

    fn n_classes(&self) -> usize {
        self.net.n_classes()
    }
}

impl<N: Network> BottleneckNet for Preconditioned<N> {
    fn predict_edited(&self, xt: &Tensor, t: &[f32], change: &mut Change<'_>) -> Result<Edited> {
        let call = self.call(xt, t)?;
        let edited = self.net.predict_edited(&call.input, &call.time, change)?;
        let changed = edited.changed.map(|f| call.prediction(xt, &f)).transpose();
        Ok(Edited {
            plain: call.prediction(xt, &edited.plain)?,
            changed: changed?,
            h: edited.h,
        })
    }

    fn bottleneck(&self) -> Bottleneck {
        self.net.bottleneck()
    }
}

impl<N: Network> FeatureNet for Preconditioned<N> {
    fn features(&self, xt: &Tensor, t: &[f32]) -> Result<Tensor> {
        let call = self.call(xt, t)?;
        self.net.features(&call.input, &call.time)
    }
}

impl<N: Trainable> Trainable for Preconditioned<N> {
    fn vars(&self) -> Vec<(String, Var)> {
        self.net.vars()
    }

    fn buffers(&self) -> Vec<(String, Tensor)> {
        self.net.buffers()
    }

    fn predict(&self, xt: &Tensor, t: &[f32], condition: &Condition<'_>) -> Result<Prediction> {
        let call = self.call(xt, t)?;
        let f = self.net.predict(&call.input, &call.time, condition)?;
        call.prediction(xt, &f)
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let mut metadata = self.net.metadata();
        if !metadata.is_empty() {
            // A struct of numbers always has JSON.
            let precond = serde_json::to_string(&self.precond).unwrap_or_default();
            metadata.insert(PRECOND_KEY.to_owned(), precond);
        }
        metadata
    }

    fn compute_mode(&self) -> ComputeMode {
        self.net.compute_mode()
    }

    fn has_zero_gradient(&self, name: &str) -> bool {
        self.net.has_zero_gradient(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Precond; 4] = [
        Precond::EDM,
        Precond::VP,
        Precond::VE,
        Precond::CONSISTENCY_ADM,
    ];

    /// F: the input and the time, so that every factor is visible.
    fn f(x: &Tensor, t: &[f32]) -> Result<Tensor> {
        let t: Vec<f64> = t.iter().map(|&t| f64::from(t)).collect();
        x.broadcast_add(&per_image(&t, x)?)
    }

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
        // At time 1 of the VP process, F is called with step 999.
        near(Precond::VP.c_noise(Precond::VP.sigma_max()), 999.0);
        near(Precond::VP.sigma_max(), (10.05f64.exp() - 1.0).sqrt());
        near(Precond::VP.sigma_min(), 1.000_995e-6f64.sqrt());
        assert_eq!((edm.sigma_min(), edm.sigma_max()), (0.0, f64::INFINITY));
    }

    #[test]
    fn both_states_of_one_image_are_denoised_alike_and_imply_the_same_noise() {
        let x = Tensor::new(&[0.3f64, -0.8, 1.7, 0.1], &candle_core::Device::Cpu).unwrap();
        let x = x.reshape((2, 1, 1, 2)).unwrap();
        let sigma = [0.25f32, 7.5];
        let to_exploding = sigma.map(|s| f64::from(s).hypot(1.0));
        let exploding = x
            .broadcast_mul(&per_image(&to_exploding, &x).unwrap())
            .unwrap();
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for precond in ALL {
            let net = Preconditioned::new((), precond);
            let from_exploding = net.denoise_by(&exploding, &sigma, f).unwrap();
            let call = net.call(&x, &sigma).unwrap();
            let output = Prediction::from(f(&call.input, &call.time).unwrap());
            let from_preserving = call.prediction(&x, &output).unwrap().output;
            let (a, b) = (values(&from_exploding), values(&from_preserving));
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-12));
            // (x_t - sqrt(ab) D) / sqrt(1 - ab) is (x - D) / sigma.
            for (i, &s) in sigma.iter().enumerate() {
                let s = f64::from(s);
                let alpha_bar = 1.0 / (1.0 + s * s);
                for j in [2 * i, 2 * i + 1] {
                    let eps = (values(&exploding)[j] - a[j]) / s;
                    let discrete =
                        (values(&x)[j] - alpha_bar.sqrt() * b[j]) / (1.0 - alpha_bar).sqrt();
                    assert!((eps - discrete).abs() < 1e-9, "{eps} {discrete}");
                }
            }
        }
    }

    #[test]
    fn noise_levels_that_are_no_levels_are_refused() {
        let net = Preconditioned::new((), Precond::EDM);
        let x = Tensor::zeros(
            (1, 1, 2, 2),
            candle_core::DType::F32,
            &candle_core::Device::Cpu,
        )
        .unwrap();
        for wrong in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let error = net.denoise_by(&x, &[wrong], f).unwrap_err().to_string();
            assert!(error.contains("positive and finite"), "{error}");
        }
        let error = net.denoise_by(&x, &[1.0, 1.0], f).unwrap_err().to_string();
        assert!(error.contains("each of 1 images"), "{error}");
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
