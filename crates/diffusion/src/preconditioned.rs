//! A network with its preconditioning, as the traits of networks.

use crate::level::per_image;
use crate::{
    Bottleneck, BottleneckNet, Change, ComputeMode, Condition, Denoiser, Edited, FeatureNet,
    Network, Precond, Prediction, PredictionType, Trainable,
};
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var, bail};
use std::collections::BTreeMap;

/// The key of a preconditioning in the metadata of a network's file.
pub const PRECOND_KEY: &str = "sdft.precond";

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
/// `x_t = sqrt(ab) x0 + sqrt(1 - ab) n` and with `t = sigma = sqrt((1 - ab) / ab)`, with a flow's preconditioning with
/// `t = tau = sigma / (1 + sigma)`, and predicts the clean image. So losses, samplers and
/// translators of the discrete process apply. [`Self::denoise`] is D(x; sigma) itself. The output of `net` is F,
/// regardless of its prediction type.
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

    fn call(&self, xt: &Tensor, t: &[f32]) -> Result<Call> {
        Call::new(self.precond, State::VariancePreserving, xt, t)
    }
}

/// One evaluation of D: the inputs of F, and the factors of its output.
struct Call {
    input: Tensor,
    time: Vec<f32>,
    /// Factors of the state and of F's output.
    skip: Vec<f64>,
    out: Vec<f64>,
}

/// The factors at one level, and the time that F is called with.
struct Factors {
    input: f64,
    skip: f64,
    out: f64,
    time: f64,
}

impl Factors {
    fn at(precond: Precond, state: State, t: f64) -> Self {
        match (precond, state) {
            // With tau, all are finite where sigma is not.
            (Precond::Flow { convention }, State::VariancePreserving) => {
                let scale = t.hypot(1.0 - t);
                Self {
                    input: scale,
                    skip: scale,
                    out: -convention.sign() * t,
                    time: convention.time(t),
                }
            }
            (precond, state) => {
                // From the given state to x0 + sigma n.
                let to_exploding = match state {
                    State::VariancePreserving => t.hypot(1.0),
                    State::VarianceExploding => 1.0,
                };
                Self {
                    input: precond.c_in(t) * to_exploding,
                    skip: precond.c_skip(t) * to_exploding,
                    out: precond.c_out(t),
                    time: precond.c_noise(t),
                }
            }
        }
    }
}

impl Call {
    /// `t` is sigma, or for the variance-preserving state of a flow tau.
    #[expect(clippy::cast_possible_truncation, reason = "networks take f32 times")]
    fn new(precond: Precond, state: State, x: &Tensor, t: &[f32]) -> Result<Self> {
        if t.len() != x.dim(0)? {
            bail!(
                "expected a noise level for each of {} images, found {}",
                x.dim(0)?,
                t.len()
            );
        }
        let is_tau = matches!(precond, Precond::Flow { .. }) && state == State::VariancePreserving;
        let is_level = |t: f32| match is_tau {
            true => (0.0..=1.0).contains(&t),
            false => t.is_finite() && t > 0.0,
        };
        if let Some(wrong) = t.iter().find(|t| !is_level(**t)) {
            let expected = match is_tau {
                true => "times from 0 to 1",
                false => "noise levels that are positive and finite",
            };
            bail!("expected {expected}, found {wrong}");
        }
        let factors: Vec<Factors> = t
            .iter()
            .map(|&t| Factors::at(precond, state, f64::from(t)))
            .collect();
        let each = |of: fn(&Factors) -> f64| factors.iter().map(of).collect::<Vec<f64>>();
        Ok(Self {
            input: x.broadcast_mul(&per_image(&each(|f| f.input), x)?)?,
            time: factors.iter().map(|f| f.time as f32).collect(),
            skip: each(|f| f.skip),
            out: each(|f| f.out),
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

    fn predict_edited_with(
        &self,
        xt: &Tensor,
        t: &[f32],
        condition: &Condition<'_>,
        change: &mut Change<'_>,
    ) -> Result<Edited> {
        let call = self.call(xt, t)?;
        let net = &self.net;
        let edited = net.predict_edited_with(&call.input, &call.time, condition, change)?;
        let changed = edited.changed.map(|f| call.prediction(xt, &f)).transpose();
        Ok(Edited {
            plain: call.prediction(xt, &edited.plain)?,
            changed: changed?,
            h: edited.h,
        })
    }

    fn n_classes(&self) -> usize {
        self.net.n_classes()
    }
}

impl<N: Network> BottleneckNet for Preconditioned<N> {
    fn predict_edited(&self, xt: &Tensor, t: &[f32], change: &mut Change<'_>) -> Result<Edited> {
        self.predict_edited_with(xt, t, &Condition::default(), change)
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

    fn augment_dim(&self) -> usize {
        self.net.augment_dim()
    }

    fn has_zero_gradient(&self, name: &str) -> bool {
        self.net.has_zero_gradient(name)
    }

    fn pull_back(&self, gradients: &mut GradStore) -> Result<()> {
        self.net.pull_back(gradients)
    }

    fn pulls_back(&self) -> bool {
        self.net.pulls_back()
    }

    fn file_tensors(&self, values: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>> {
        self.net.file_tensors(values)
    }

    fn adapter_metadata(&self) -> Option<BTreeMap<String, String>> {
        self.net.adapter_metadata()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::precond::tests::ALL;

    /// F: the input and the time, so that every factor is visible.
    fn f(x: &Tensor, t: &[f32]) -> Result<Tensor> {
        let t: Vec<f64> = t.iter().map(|&t| f64::from(t)).collect();
        x.broadcast_add(&per_image(&t, x)?)
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
            let t = match precond {
                Precond::Flow { .. } => sigma.map(|s| s / (1.0 + s)),
                _ => sigma,
            };
            let call = net.call(&x, &t).unwrap();
            let output = Prediction::from(f(&call.input, &call.time).unwrap());
            let from_preserving = call.prediction(&x, &output).unwrap().output;
            let (a, b) = (values(&from_exploding), values(&from_preserving));
            // A time of a flow is rounded to f32, and F is called with 1000 times that.
            let bound = match precond {
                Precond::Flow { .. } => 1e-4,
                _ => 1e-12,
            };
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < bound));
            // (x_t - sqrt(ab) D) / sqrt(1 - ab) is (x - D) / sigma.
            for (i, &s) in sigma.iter().enumerate() {
                let s = f64::from(s);
                let alpha_bar = 1.0 / (1.0 + s * s);
                for j in [2 * i, 2 * i + 1] {
                    let eps = (values(&exploding)[j] - a[j]) / s;
                    let discrete =
                        (values(&x)[j] - alpha_bar.sqrt() * b[j]) / (1.0 - alpha_bar).sqrt();
                    assert!((eps - discrete).abs() < bound.max(1e-9), "{eps} {discrete}");
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
}
