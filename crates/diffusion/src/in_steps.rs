//! Networks that are called with the steps of their process, regardless of their own unit of time.

use crate::{
    Bottleneck, BottleneckNet, Change, ComputeMode, Condition, Denoiser, Diffusion, Edited,
    FeatureNet, Network, Prediction, Process, TimeUnit, Trainable,
};
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var, bail};
use sdft_schedule::{Respacing, ScheduleError};
use std::collections::BTreeMap;

/// A network that is called with original steps.
struct InSteps<N> {
    net: N,
    /// The time that the network is called with for each original step.
    times: Vec<f32>,
}

impl Process {
    /// A network of this process that is called with original steps. Methods that count steps, or that call several networks at the same
    /// steps, take networks of any process this way, with [`Diffusion::in_steps`].
    ///
    /// # Errors
    /// An invalid schedule.
    pub fn in_steps(
        &self,
        net: Box<dyn Network>,
    ) -> std::result::Result<Box<dyn Network>, ScheduleError> {
        Ok(match self.times()? {
            None => net,
            Some(times) => Box::new(InSteps { net, times }),
        })
    }

    /// As [`Process::in_steps`], for a network in training. Its files are those of the network.
    ///
    /// # Errors
    /// An invalid schedule.
    pub fn trainable_in_steps(
        &self,
        net: Box<dyn Trainable>,
    ) -> std::result::Result<Box<dyn Trainable>, ScheduleError> {
        Ok(match self.times()? {
            None => net,
            Some(times) => Box::new(InSteps { net, times }),
        })
    }

    /// As [`Process::in_steps`], for a classifier of noised images.
    ///
    /// # Errors
    /// An invalid schedule.
    pub fn features_in_steps(
        &self,
        net: Box<dyn FeatureNet>,
    ) -> std::result::Result<Box<dyn FeatureNet>, ScheduleError> {
        Ok(match self.times()? {
            None => net,
            Some(times) => Box::new(InSteps { net, times }),
        })
    }

    /// The time that a network is called with for each original step; `None` if that is the step.
    fn times(&self) -> std::result::Result<Option<Vec<f32>>, ScheduleError> {
        let diffusion = self.diffusion(false, &Respacing::All)?;
        let levels = diffusion.all_levels();
        let times = levels.iter().map(|level| level.t).collect();
        Ok((diffusion.time != TimeUnit::Steps).then_some(times))
    }
}

impl Diffusion {
    /// The same process for networks that are called with original steps, as [`Process::in_steps`] makes them.
    #[must_use]
    pub fn in_steps(self) -> Self {
        Self {
            time: TimeUnit::Steps,
            ..self
        }
    }
}

impl<N> InSteps<N> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "compared with the step"
    )]
    fn times(&self, steps: &[f32]) -> Result<Vec<f32>> {
        let time = |&step: &f32| match self.times.get(step as usize) {
            Some(&time) if step >= 0.0 && step.fract() == 0.0 => Ok(time),
            _ => bail!(
                "time {step}: expected a step of the process, 0 to {}",
                self.times.len().saturating_sub(1)
            ),
        };
        steps.iter().map(time).collect()
    }
}

impl FeatureNet for InSteps<Box<dyn FeatureNet>> {
    fn features(&self, xt: &Tensor, t: &[f32]) -> Result<Tensor> {
        self.net.features(xt, &self.times(t)?)
    }
}

impl Denoiser for InSteps<Box<dyn Network>> {
    fn predict(&self, xt: &Tensor, t: &[f32]) -> Result<Prediction> {
        self.net.predict(xt, &self.times(t)?)
    }
}

impl BottleneckNet for InSteps<Box<dyn Network>> {
    fn predict_edited(&self, xt: &Tensor, t: &[f32], change: &mut Change<'_>) -> Result<Edited> {
        self.predict_edited_with(xt, t, &Condition::default(), change)
    }

    fn bottleneck(&self) -> Bottleneck {
        self.net.bottleneck()
    }
}

impl FeatureNet for InSteps<Box<dyn Network>> {
    fn features(&self, xt: &Tensor, t: &[f32]) -> Result<Tensor> {
        self.net.features(xt, &self.times(t)?)
    }
}

impl Network for InSteps<Box<dyn Network>> {
    fn predict_with(
        &self,
        xt: &Tensor,
        t: &[f32],
        condition: &Condition<'_>,
    ) -> Result<Prediction> {
        self.net.predict_with(xt, &self.times(t)?, condition)
    }

    fn predict_edited_with(
        &self,
        xt: &Tensor,
        t: &[f32],
        condition: &Condition<'_>,
        change: &mut Change<'_>,
    ) -> Result<Edited> {
        let times = self.times(t)?;
        self.net.predict_edited_with(xt, &times, condition, change)
    }

    fn n_classes(&self) -> usize {
        self.net.n_classes()
    }
}

impl Trainable for InSteps<Box<dyn Trainable>> {
    fn vars(&self) -> Vec<(String, Var)> {
        self.net.vars()
    }

    fn buffers(&self) -> Vec<(String, Tensor)> {
        self.net.buffers()
    }

    fn predict(&self, xt: &Tensor, t: &[f32], condition: &Condition<'_>) -> Result<Prediction> {
        self.net.predict(xt, &self.times(t)?, condition)
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        self.net.metadata()
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
    use crate::{EdmProcess, PredictionType};
    use candle_core::{DType, Device};

    /// Returns the times that it is called with.
    struct Times;

    impl Trainable for Times {
        fn vars(&self) -> Vec<(String, Var)> {
            Vec::new()
        }

        fn predict(&self, xt: &Tensor, t: &[f32], _: &Condition<'_>) -> Result<Prediction> {
            Ok(Tensor::new(t, xt.device())?.into())
        }
    }

    #[test]
    fn a_network_in_training_is_called_with_steps_whatever_its_unit_of_time() {
        let edm = Process {
            prediction_type: PredictionType::Sample,
            continuous: Some(EdmProcess::default().into()),
            ..Process::default()
        };
        let x = Tensor::zeros((2, 1, 1, 1), DType::F32, &Device::Cpu).unwrap();
        let times = |process: &Process, t: &[f32]| {
            let net = process.trainable_in_steps(Box::new(Times)).unwrap();
            let prediction = net.predict(&x, t, &Condition::default())?;
            prediction.output.to_vec1::<f32>()
        };
        assert_eq!(
            times(&Process::default(), &[0.0, 999.0]).unwrap(),
            [0.0, 999.0]
        );
        let levels = edm.diffusion(false, &Respacing::All).unwrap().all_levels();
        let last = levels.len() - 1;
        let found = times(&edm, &[0.0, last as f32]).unwrap();
        assert_eq!(found, [levels[0].t, levels[last].t]);
        assert!(found[0] < found[1] && found[1] != last as f32);
        assert!(times(&edm, &[0.5, 1.0]).is_err());
    }
}
