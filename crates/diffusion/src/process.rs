//! The process that a network was trained on, as files and plans store it.

use crate::{Continuous, Diffusion, PredictionType, Sampling, TimeUnit, Variance};
use sdft_schedule::{
    BetaEnds, BetaSchedule, Respacing, Schedule, ScheduleError, Weighting,
    rescale_zero_terminal_snr,
};
use serde::{Deserialize, Serialize};

/// The diffusion process that a network was trained on; field names follow guided-diffusion and diffusers' schedulers.
///
/// The fields after `rescale_timesteps` are written only if they differ from their default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// `linear`, `cosine`, `scaled_linear`, `sigmoid` or `laplace`; `squaredcos_cap_v2` is another name of `cosine`.
    pub noise_schedule: String,
    /// Number of steps, T.
    pub diffusion_steps: usize,
    /// The smaller of the two fixed variances, for networks that do not learn theirs.
    pub sigma_small: bool,
    /// The network is called with thousandths of the process instead of steps.
    pub rescale_timesteps: bool,
    /// The quantity that the network predicts.
    #[serde(skip_serializing_if = "PredictionType::is_epsilon")]
    pub prediction_type: PredictionType,
    /// The first beta; by default the schedule's ([`BetaSchedule::betas_between`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_start: Option<f64>,
    /// The last beta, as `beta_start`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_end: Option<f64>,
    /// The betas of all steps, instead of those of `noise_schedule`; empty by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trained_betas: Vec<f64>,
    /// The betas are rescaled so that the last step is pure noise (Lin et al. 2023).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rescale_betas_zero_snr: bool,
    /// The states have no range, because they are latents: samplers never clamp them. Without effect where `sampling` is given, which has its own fields for that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unbounded: bool,
    /// How diffusers' schedulers sample, with tables in single precision; `None` samples as guided-diffusion does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    /// The continuous process that the network was trained on (EDM's, or a flow); the fields above are then the discrete view that steps are counted
    /// in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continuous: Option<Continuous>,
}

/// Why a process cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("process.{field}: {problem}")]
pub struct ProcessError {
    /// The field of the process.
    pub field: &'static str,
    /// What was expected and what was found.
    pub problem: String,
}

impl Default for Process {
    /// Linear, 1000 steps, as every public ADM checkpoint has.
    fn default() -> Self {
        Self {
            noise_schedule: "linear".to_owned(),
            diffusion_steps: 1000,
            sigma_small: false,
            rescale_timesteps: false,
            prediction_type: PredictionType::Epsilon,
            beta_start: None,
            beta_end: None,
            trained_betas: Vec::new(),
            rescale_betas_zero_snr: false,
            unbounded: false,
            sampling: None,
            continuous: None,
        }
    }
}

impl Process {
    /// The process on tensors, with only the steps that `respacing` keeps.
    ///
    /// With [`Process::sampling`], a single number of steps is spread as diffusers' schedulers do, whether it is written `ddim40` or `40`.
    ///
    /// # Errors
    /// An invalid schedule, a network that predicts the noise where no image is left, a respacing that the steps do not allow.
    pub fn diffusion(
        &self,
        learns_variance: bool,
        respacing: &Respacing,
    ) -> Result<Diffusion, ScheduleError> {
        let betas = self.betas()?;
        let schedule = match &self.sampling {
            None => Schedule::from_betas(betas)?.respaced(respacing)?,
            Some(sampling) => sampling.respaced(&Schedule::of_diffusers(&betas)?, respacing)?,
        };
        self.check_signal(&schedule)?;
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
            unbounded: self.unbounded,
            sampling: self.sampling,
        })
    }

    /// Every step of the process with its tables in single precision, as the published samplers of SDEdit, EGSDE and Asyrp have them, and the
    /// smaller fixed variance.
    ///
    /// # Errors
    /// An invalid schedule, a network that predicts the noise where no image is left.
    pub fn published(&self) -> Result<Diffusion, ScheduleError> {
        let schedule = Schedule::from_betas_in_f32(&self.betas()?)?;
        self.check_signal(&schedule)?;
        Ok(Diffusion {
            schedule,
            variance: Variance::FixedSmall,
            time: self.time_unit(),
            continuous: self.continuous,
            unbounded: self.unbounded,
            sampling: None,
        })
    }

    /// The usual weight of the base loss: P2's for a discrete process, as in the paper, EDM's for EDM's, and that of the velocity
    /// for a flow.
    pub fn usual_base(&self) -> Weighting {
        match self.continuous {
            None => Weighting::P2 { k: 1.0, gamma: 1.0 },
            Some(continuous) => continuous.usual_base(),
        }
    }

    /// The time that the network is called with.
    pub fn time_unit(&self) -> TimeUnit {
        match (self.continuous, self.rescale_timesteps) {
            (Some(continuous), _) => continuous.time_unit(),
            (None, true) => TimeUnit::Thousandths,
            (None, false) => TimeUnit::Steps,
        }
    }

    /// The betas of all steps; with [`Process::sampling`] in single precision.
    ///
    /// # Errors
    /// An unknown schedule, a number of steps or an end that it does not allow, a list of another length than the process.
    pub fn betas(&self) -> Result<Vec<f64>, ScheduleError> {
        let n_steps = self.diffusion_steps;
        let betas = match self.trained_betas.len() {
            0 => {
                let kind: BetaSchedule = self.noise_schedule.parse()?;
                match self.sampling {
                    None => kind.betas_between(self.ends(), n_steps)?,
                    Some(_) => kind.betas_of_diffusers(self.ends(), n_steps)?,
                }
            }
            found if found != n_steps => return Err(ScheduleError::BetaCount { found, n_steps }),
            _ => self.trained_betas.clone(),
        };
        Ok(match self.rescale_betas_zero_snr {
            true => rescale_zero_terminal_snr(&betas),
            false => betas,
        })
    }

    /// Fails unless the continuous process, if there is one, is complete and agrees with the other fields.
    fn check_continuous(&self) -> Result<(), ProcessError> {
        let Some(continuous) = &self.continuous else {
            return Ok(());
        };
        if let Some((field, range, found)) = continuous.outside() {
            let problem = format!("expected a number in {range}, found {found}");
            return Err(ProcessError { field, problem });
        }
        let needs = |field, expected: &str| {
            let problem = format!("expected {expected}, as process.continuous needs it");
            Err(ProcessError { field, problem })
        };
        if self.rescale_timesteps {
            return needs("rescale_timesteps", "false");
        }
        if self.prediction_type != PredictionType::Sample {
            return needs("prediction_type", "sample");
        }
        Ok(())
    }

    fn ends(&self) -> BetaEnds {
        BetaEnds {
            start: self.beta_start,
            end: self.beta_end,
        }
    }

    /// Fails if the network predicts the noise and the last step is pure noise.
    fn check_signal(&self, schedule: &Schedule) -> Result<(), ScheduleError> {
        let is_pure_noise = schedule.alpha_bar().last() == Some(&0.0);
        match self.prediction_type {
            PredictionType::Epsilon if is_pure_noise => Err(ScheduleError::NoSignal),
            _ => Ok(()),
        }
    }

    /// The discrete process for a network of another kind next to this one, such as a classifier of noised images: the same noise, and times
    /// that count steps.
    #[must_use]
    pub fn discrete(&self) -> Self {
        Self {
            prediction_type: PredictionType::Epsilon,
            continuous: None,
            ..self.clone()
        }
    }

    /// Whether both processes noise images alike, up to rounding. The predicted quantities, the unit of time and the sampling
    /// may differ.
    pub fn same_noise(&self, other: &Self) -> bool {
        let alpha_bar = |process: &Self| {
            let betas = process.betas()?.into_iter();
            let product = betas.scan(1.0, |product, beta| {
                *product *= 1.0 - beta;
                Some(*product)
            });
            Ok::<Vec<f64>, ScheduleError>(product.collect())
        };
        // diffusers rounds to f32: 1 - beta, and the square roots if the last step is pure noise.
        let alike =
            |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-6 && (a.sqrt() - b.sqrt()).abs() <= 1e-5;
        match (alpha_bar(self), alpha_bar(other)) {
            (Ok(own), Ok(others)) => {
                own.len() == others.len() && own.iter().zip(&others).all(alike)
            }
            _ => false,
        }
    }

    /// Fails unless a schedule can be made and every setting is in its range.
    ///
    /// # Errors
    /// The field, what was expected and what was found.
    pub fn check(&self) -> Result<(), ProcessError> {
        self.check_continuous()?;
        if let Some(problem) = self.sampling.and_then(|sampling| sampling.problem()) {
            let field = "sampling";
            return Err(ProcessError { field, problem });
        }
        let schedule = self.diffusion(false, &Respacing::All);
        schedule.map(|_| ()).map_err(|error| {
            let field = match error {
                ScheduleError::UnknownSchedule { .. } => "noise_schedule",
                ScheduleError::EndOutOfRange { value } => match self.beta_start {
                    Some(start) if start.to_bits() == value.to_bits() => "beta_start",
                    _ => "beta_end",
                },
                ScheduleError::NoEnds { .. } => match self.beta_start {
                    Some(_) => "beta_start",
                    None => "beta_end",
                },
                ScheduleError::BetaCount { .. } => "trained_betas",
                ScheduleError::BetaOutOfRange { .. } | ScheduleError::AddsNoNoise { .. }
                    if !self.trained_betas.is_empty() =>
                {
                    "trained_betas"
                }
                ScheduleError::AddsNoNoise { .. } => "beta_end",
                ScheduleError::NoSignal => "prediction_type",
                _ => "diffusion_steps",
            };
            let problem = error.to_string();
            ProcessError { field, problem }
        })
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
    fn fields_of_diffusers_are_written_if_they_differ_from_the_default() {
        let process = Process {
            noise_schedule: "scaled_linear".to_owned(),
            beta_start: Some(0.00085),
            beta_end: Some(0.012),
            rescale_betas_zero_snr: true,
            prediction_type: PredictionType::V,
            sampling: Some(Sampling {
                clip_sample: false,
                ..Sampling::default()
            }),
            ..Process::default()
        };
        let text = serde_json::to_string(&process).unwrap();
        for words in ["beta_start", "\"clip_sample\":false", "\"leading\""] {
            assert!(text.contains(words), "{text}");
        }
        assert_eq!(serde_json::from_str::<Process>(&text).unwrap(), process);
        // A setting of the sampler alone is enough.
        let short = r#"{"sampling":{"timestep_spacing":"trailing"}}"#;
        let sampling = serde_json::from_str::<Process>(short).unwrap().sampling;
        let trailing = Sampling {
            timestep_spacing: sdft_schedule::Spacing::Trailing,
            ..Sampling::default()
        };
        assert_eq!(sampling, Some(trailing));
        for wrong in [
            r#"{"sampling":{"spacing":"trailing"}}"#,
            r#"{"sampling":{"timestep_spacing":"karras"}}"#,
        ] {
            assert!(serde_json::from_str::<Process>(wrong).is_err(), "{wrong}");
        }
        // How a process is sampled does not change how it noises.
        let plain = Process {
            sampling: None,
            sigma_small: true,
            ..process.clone()
        };
        assert!(process.same_noise(&plain));
        assert!(!process.same_noise(&Process {
            beta_end: Some(0.02),
            ..plain
        }));
    }

    #[test]
    fn invalid_fields_of_diffusers_are_named() {
        type Change = fn(&mut Process);
        let sampling = |change: fn(&mut Sampling)| {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            Process {
                sampling: Some(sampling),
                ..Process::default()
            }
        };
        for (field, change) in [
            ("beta_start", (|p| p.beta_start = Some(0.0)) as Change),
            ("beta_end", |p| p.beta_end = Some(f64::NAN)),
            ("beta_end", |p| {
                (p.beta_start, p.beta_end) = (Some(0.1), Some(2.0))
            }),
            ("beta_end", |p| {
                (p.beta_end, p.sampling) = (Some(0.5), Some(Sampling::default()));
            }),
            ("trained_betas", |p| {
                (p.trained_betas, p.sampling) = (vec![0.01; 1000], Some(Sampling::default()));
                p.trained_betas[7] = 1e-9;
            }),
            ("beta_end", |p| {
                (p.noise_schedule, p.beta_end) = ("cosine".into(), Some(0.5));
            }),
            ("trained_betas", |p| p.trained_betas = vec![0.1; 3]),
            ("trained_betas", |p| p.trained_betas = vec![-0.1; 1000]),
            ("prediction_type", |p| p.rescale_betas_zero_snr = true),
        ] {
            let mut process = Process::default();
            change(&mut process);
            assert_eq!(process.check().unwrap_err().field, field);
        }
        for (process, words) in [
            (
                sampling(|s| s.clip_sample_range = -1.0),
                "clip_sample_range: expected a number above 0, found -1",
            ),
            (
                sampling(|s| s.dynamic_thresholding_ratio = 1.5),
                "dynamic_thresholding_ratio: expected a number from 0 to 1",
            ),
            (
                sampling(|s| s.sample_max_value = f64::INFINITY),
                "sample_max_value: expected a number of at least 1",
            ),
        ] {
            let error = process.check().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
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
        assert!(rescaled.same_noise(&steps(4000)));
        assert!(!steps(4000).same_noise(&steps(1000)));
    }
}
