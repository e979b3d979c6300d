//! The process that a network was trained on, as files and plans store it.

use crate::{Diffusion, EdmProcess, PredictionType, TimeUnit, Variance};
use sdft_schedule::{BetaSchedule, Respacing, Schedule, ScheduleError, Weighting};
use serde::{Deserialize, Serialize};

/// The diffusion process that a network was trained on; field names follow guided-diffusion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// `linear` or `cosine`.
    pub noise_schedule: String,
    /// Number of steps, T.
    pub diffusion_steps: usize,
    /// The smaller of the two fixed variances, for networks that do not learn theirs.
    pub sigma_small: bool,
    /// The network is called with thousandths of the process instead of steps.
    pub rescale_timesteps: bool,
    /// What the network predicts; written only if it is not the noise.
    #[serde(skip_serializing_if = "PredictionType::is_epsilon")]
    pub prediction_type: PredictionType,
    /// The continuous process that the network was trained on (EDM); the fields above are then the discrete view that steps are counted
    /// in. Written only if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continuous: Option<EdmProcess>,
}

/// Why a process cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProcessError {
    /// The schedule is unknown.
    #[error("process.noise_schedule: {0}")]
    NoiseSchedule(ScheduleError),
    /// The number of steps does not fit the schedule.
    #[error("process.diffusion_steps: {0}")]
    DiffusionSteps(ScheduleError),
    /// A field of the continuous process is out of range.
    #[error("process.continuous.{field}: expected a number in {range}, found {found}")]
    Continuous {
        /// The field.
        field: &'static str,
        /// Its range.
        range: &'static str,
        /// Its value.
        found: f64,
    },
    /// A field of the discrete process does not go with a continuous one.
    #[error("process.{0}: expected {1}, as process.continuous (EDM) needs it")]
    OnlyDiscrete(&'static str, &'static str),
    /// Edits count timesteps as the network does.
    #[error(
        "edits need a process whose timesteps the network sees unscaled: expected 1000 steps or process.rescale_timesteps=false, found {0} steps"
    )]
    RescaledTimesteps(usize),
    /// Edits count timesteps, and a continuous process has none.
    #[error(
        "edits need a network that is called with timesteps, found process.continuous (EDM): edit with an ADM or UNet2DModel network"
    )]
    WithoutTimesteps,
}

impl Default for Process {
    /// Linear, 1000 steps: that of every public ADM checkpoint.
    fn default() -> Self {
        Self {
            noise_schedule: "linear".to_owned(),
            diffusion_steps: 1000,
            sigma_small: false,
            rescale_timesteps: false,
            prediction_type: PredictionType::Epsilon,
            continuous: None,
        }
    }
}

impl Process {
    /// The process on tensors, with only the steps that `respacing` keeps.
    ///
    /// # Errors
    /// An unknown schedule, too few steps, a respacing that the steps do not allow.
    pub fn diffusion(
        &self,
        learns_variance: bool,
        respacing: &Respacing,
    ) -> Result<Diffusion, ScheduleError> {
        let kind: BetaSchedule = self.noise_schedule.parse()?;
        let schedule = Schedule::new(kind, self.diffusion_steps)?.respaced(respacing)?;
        let variance = match (learns_variance, self.sigma_small) {
            (true, _) => Variance::LearnedRange,
            (false, true) => Variance::FixedSmall,
            (false, false) => Variance::FixedLarge,
        };
        Ok(Diffusion {
            schedule,
            variance,
            time: self.time_unit(),
            continuous: self.continuous,
        })
    }

    /// Every step of the process with its tables in single precision, as the published samplers of SDEdit, EGSDE and Asyrp have them, and the
    /// smaller fixed variance.
    ///
    /// # Errors
    /// An unknown schedule, too few steps.
    pub fn published(&self) -> Result<Diffusion, ScheduleError> {
        let kind: BetaSchedule = self.noise_schedule.parse()?;
        Ok(Diffusion {
            schedule: Schedule::from_betas_in_f32(&kind.betas(self.diffusion_steps)?)?,
            variance: Variance::FixedSmall,
            time: self.time_unit(),
            continuous: self.continuous,
        })
    }

    /// The usual weight of the base loss: P2's for a discrete process, as in the paper, and EDM's for a continuous one.
    pub fn usual_base(&self) -> Weighting {
        match self.continuous {
            None => Weighting::P2 { k: 1.0, gamma: 1.0 },
            Some(EdmProcess { sigma_data, .. }) => Weighting::Edm { sigma_data },
        }
    }

    fn time_unit(&self) -> TimeUnit {
        match (self.continuous, self.rescale_timesteps) {
            (Some(_), _) => TimeUnit::Sigma,
            (None, true) => TimeUnit::Thousandths,
            (None, false) => TimeUnit::Steps,
        }
    }

    /// Whether both processes noise images alike and count timesteps alike; what their networks predict may differ.
    pub fn same_noise(&self, other: &Self) -> bool {
        let alike = Self {
            prediction_type: self.prediction_type,
            ..other.clone()
        };
        *self == alike
    }

    /// Fails unless the schedule is known and allows this number of steps, and a continuous process is complete and goes with the rest.
    ///
    /// # Errors
    /// The field, what was expected and what was found.
    pub fn check(&self) -> Result<(), ProcessError> {
        let kind = self.noise_schedule.parse::<BetaSchedule>();
        let kind = kind.map_err(ProcessError::NoiseSchedule)?;
        let schedule = Schedule::new(kind, self.diffusion_steps);
        schedule.map_err(ProcessError::DiffusionSteps)?;
        let Some(continuous) = &self.continuous else {
            return Ok(());
        };
        if let Some((field, range, found)) = continuous.outside() {
            return Err(ProcessError::Continuous {
                field,
                range,
                found,
            });
        }
        if self.rescale_timesteps {
            return Err(ProcessError::OnlyDiscrete("rescale_timesteps", "false"));
        }
        if self.prediction_type != PredictionType::Sample {
            return Err(ProcessError::OnlyDiscrete("prediction_type", "sample"));
        }
        Ok(())
    }

    /// Fails unless images can be edited with this process: the network must see the timesteps as they are counted.
    ///
    /// # Errors
    /// As [`Self::check`]; rescaled timesteps.
    pub fn check_editable(&self) -> Result<(), ProcessError> {
        self.check()?;
        if self.continuous.is_some() {
            return Err(ProcessError::WithoutTimesteps);
        }
        if self.rescale_timesteps && self.diffusion_steps != 1000 {
            return Err(ProcessError::RescaledTimesteps(self.diffusion_steps));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_texts_stay_valid_and_unchanged() {
        let old = r#"{"noise_schedule":"linear","diffusion_steps":1000,"sigma_small":false,"rescale_timesteps":false}"#;
        let process: Process = serde_json::from_str(old).unwrap();
        assert_eq!(process, Process::default());
        assert_eq!(serde_json::to_string(&process).unwrap(), old);
        for kind in [PredictionType::Sample, PredictionType::V] {
            let process = Process {
                prediction_type: kind,
                ..Process::default()
            };
            let text = serde_json::to_string(&process).unwrap();
            assert!(text.contains(kind.name()), "{text}");
            assert_eq!(serde_json::from_str::<Process>(&text).unwrap(), process);
            assert!(process.same_noise(&Process::default()));
        }
    }

    #[test]
    fn fields_that_cannot_be_are_named() {
        let error = |process: Process| process.check().unwrap_err().to_string();
        let steps = |diffusion_steps| Process {
            diffusion_steps,
            ..Process::default()
        };
        assert!(error(steps(1)).starts_with("process.diffusion_steps: "));
        assert!(error(steps(usize::MAX)).starts_with("process.diffusion_steps: "));
        let unknown = Process {
            noise_schedule: "quadratic".to_owned(),
            ..Process::default()
        };
        assert!(error(unknown).contains("process.noise_schedule: unknown noise schedule"));
        let rescaled = Process {
            rescale_timesteps: true,
            ..steps(4000)
        };
        let error = rescaled.check_editable().unwrap_err().to_string();
        assert!(error.contains("found 4000 steps"), "{error}");
        assert!(steps(4000).check_editable().is_ok());
        assert!(!steps(4000).same_noise(&steps(1000)));
    }

    #[test]
    fn a_continuous_process_goes_with_networks_that_predict_the_image() {
        let edm = |change: fn(&mut Process, &mut EdmProcess)| {
            let mut process = Process {
                prediction_type: PredictionType::Sample,
                ..Process::default()
            };
            let mut continuous = EdmProcess::default();
            change(&mut process, &mut continuous);
            process.continuous = Some(continuous);
            process
        };
        let plain = edm(|_, _| {});
        assert_eq!(plain.check(), Ok(()));
        let text = serde_json::to_string(&plain).unwrap();
        assert_eq!(serde_json::from_str::<Process>(&text).unwrap(), plain);
        assert!(!plain.same_noise(&Process::default()));
        let diffusion = plain.diffusion(false, &Respacing::All).unwrap();
        assert_eq!(diffusion.time, TimeUnit::Sigma);
        let level = diffusion.levels(&[700]).unwrap()[0];
        assert!((f64::from(level.t) - level.sigma()).abs() < 1e-5 * level.sigma());
        for (process, named) in [
            (
                edm(|p, _| p.rescale_timesteps = true),
                "process.rescale_timesteps",
            ),
            (
                edm(|p, _| p.prediction_type = PredictionType::Epsilon),
                "process.prediction_type",
            ),
            (
                edm(|_, c| c.sigma_min = 0.0),
                "process.continuous.sigma_min",
            ),
            (
                edm(|_, c| c.sigma_max = 0.001),
                "process.continuous.sigma_max",
            ),
            (edm(|_, c| c.p_std = f64::NAN), "process.continuous.p_std"),
        ] {
            let error = process.check().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        assert!(plain.check_editable().is_err());
    }
}
