//! Continuous processes, and how training draws noise levels from either kind of process.

use crate::quantile::normal_quantile;
use crate::{Diffusion, FlowProcess, Level, Precond, TimeUnit};
use sdft_schedule::{LossSecondMoment, ScheduleError, TimestepSampler, Weighting};
use serde::de::{Deserializer, Error as _};
use serde::ser::{Error as _, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The continuous process of an EDM network: `x = x0 + sigma eps`, with any `sigma` in a range.
///
/// Source: Karras et al. 2022; names and defaults as in NVlabs/edm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdmProcess {
    /// The smallest noise level of samplers, above 0.
    pub sigma_min: f64,
    /// The largest noise level of samplers.
    pub sigma_max: f64,
    /// How samplers space the levels: `sigma^(1/rho)` falls evenly.
    pub rho: f64,
    /// Training draws `ln sigma` from a normal distribution of this mean.
    pub p_mean: f64,
    /// The standard deviation of that distribution.
    pub p_std: f64,
    /// The standard deviation of the images, from which EDM's loss weight follows.
    pub sigma_data: f64,
}

impl Default for EdmProcess {
    fn default() -> Self {
        Self {
            sigma_min: 0.002,
            sigma_max: 80.0,
            rho: 7.0,
            p_mean: -1.2,
            p_std: 1.2,
            sigma_data: 0.5,
        }
    }
}

impl EdmProcess {
    /// The process of a network with this preconditioning: its own range of noise levels, as far as it states one, and its own standard
    /// deviation of the images.
    pub fn of(precond: &Precond) -> Self {
        let usual = Self::default();
        let (least, most) = (precond.sigma_min(), precond.sigma_max());
        Self {
            sigma_min: if least > 0.0 { least } else { usual.sigma_min },
            sigma_max: if most.is_finite() {
                most
            } else {
                usual.sigma_max
            },
            sigma_data: precond.sigma_data().unwrap_or(usual.sigma_data),
            ..usual
        }
    }

    /// The noise level of training at a standard normal number.
    pub fn level_at(&self, normal: f64) -> Level {
        Level::of_sigma((self.p_mean + self.p_std * normal).exp())
    }

    /// The first field of a process that is outside its range, with the range and the value.
    pub(crate) fn outside(&self) -> Option<(&'static str, &'static str, f64)> {
        let positive = |value: f64| value > 0.0 && value.is_finite();
        [
            (
                "continuous.sigma_min",
                "(0, inf)",
                self.sigma_min,
                positive(self.sigma_min),
            ),
            (
                "continuous.sigma_max",
                "(sigma_min, inf)",
                self.sigma_max,
                self.sigma_max > self.sigma_min && self.sigma_max.is_finite(),
            ),
            ("continuous.rho", "(0, inf)", self.rho, positive(self.rho)),
            (
                "continuous.p_mean",
                "(-inf, inf)",
                self.p_mean,
                self.p_mean.is_finite(),
            ),
            (
                "continuous.p_std",
                "(0, inf)",
                self.p_std,
                positive(self.p_std),
            ),
            (
                "continuous.sigma_data",
                "(0, inf)",
                self.sigma_data,
                positive(self.sigma_data),
            ),
        ]
        .into_iter()
        .find(|&(_, _, _, inside)| !inside)
        .map(|(field, range, value, _)| (field, range, value))
    }
}

/// A continuous process: of EDM's networks, or a flow.
///
/// As a section of a file it is the fields of the process, and `process_type = "flow"` for a flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Continuous {
    /// EDM's, whose networks are called with `sigma`.
    Edm(EdmProcess),
    /// Flow matching, whose networks are called with `tau`.
    Flow(FlowProcess),
}

/// The field that names the kind of process, and its only value.
const KIND: &str = "process_type";
const FLOW: &str = "flow";

impl Continuous {
    /// The process of a network with this preconditioning.
    pub fn of(precond: &Precond) -> Self {
        match precond {
            Precond::Flow { .. } => Self::Flow(FlowProcess::default()),
            _ => Self::Edm(EdmProcess::of(precond)),
        }
    }

    /// Whether networks with this preconditioning are trained on this kind of process.
    pub fn fits(&self, precond: &Precond) -> bool {
        matches!(self, Self::Flow(_)) == matches!(precond, Precond::Flow { .. })
    }

    /// The time that networks are called with.
    pub fn time_unit(&self) -> TimeUnit {
        match self {
            Self::Edm(_) => TimeUnit::Sigma,
            Self::Flow(_) => TimeUnit::Tau,
        }
    }

    /// The usual weight of the base loss.
    pub fn usual_base(&self) -> Weighting {
        match self {
            Self::Edm(EdmProcess { sigma_data, .. }) => Weighting::Edm {
                sigma_data: *sigma_data,
            },
            Self::Flow(_) => Weighting::Flow,
        }
    }

    /// EDM's process, if it is one.
    pub fn edm(&self) -> Option<&EdmProcess> {
        match self {
            Self::Edm(process) => Some(process),
            Self::Flow(_) => None,
        }
    }

    /// The smallest and largest `sigma` of samplers that choose their levels by `sigma`.
    pub fn sigma_range(&self) -> (f64, f64) {
        match self {
            Self::Edm(process) => (process.sigma_min, process.sigma_max),
            Self::Flow(_) => FlowProcess::SIGMAS,
        }
    }

    /// The first field that is outside its range, with the range and the value.
    pub(crate) fn outside(&self) -> Option<(&'static str, &'static str, f64)> {
        match self {
            Self::Edm(process) => process.outside(),
            Self::Flow(process) => process.outside(),
        }
    }
}

impl From<EdmProcess> for Continuous {
    fn from(process: EdmProcess) -> Self {
        Self::Edm(process)
    }
}

impl From<FlowProcess> for Continuous {
    fn from(process: FlowProcess) -> Self {
        Self::Flow(process)
    }
}

impl NoiseLevels for Continuous {
    fn draw(&self, uniforms: &[f64]) -> Vec<LevelDraw> {
        match self {
            Self::Edm(process) => process.draw(uniforms),
            Self::Flow(process) => process.draw(uniforms),
        }
    }
}

impl Serialize for Continuous {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // In the order of its fields, which hashes of older versions cover.
            Self::Edm(process) => process.serialize(serializer),
            Self::Flow(process) => {
                let mut fields = Map::from_iter([(KIND.to_owned(), FLOW.into())]);
                if let Value::Object(own) =
                    serde_json::to_value(process).map_err(S::Error::custom)?
                {
                    fields.extend(own);
                }
                fields.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Continuous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::<String, Value>::deserialize(deserializer)?;
        let process = match fields.remove(KIND) {
            None => serde_json::from_value(Value::Object(fields)).map(Self::Edm),
            Some(kind) if kind == FLOW => {
                serde_json::from_value(Value::Object(fields)).map(Self::Flow)
            }
            Some(other) => {
                return Err(D::Error::custom(format!(
                    "{KIND}: expected \"{FLOW}\" or no such field, found {other}"
                )));
            }
        };
        process.map_err(D::Error::custom)
    }
}

/// A noise level with the factor that corrects for its non-uniform choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelDraw {
    /// The level.
    pub level: Level,
    /// Its importance weight.
    pub weight: f64,
}

/// How training draws the noise levels of its images: from the steps of a discrete process or from a continuous one.
pub trait NoiseLevels {
    /// One level for each uniform number in [0, 1).
    fn draw(&self, uniforms: &[f64]) -> Vec<LevelDraw>;

    /// Records the loss at a level, where later draws depend on it.
    ///
    /// # Errors
    /// A level that is not one of this process; a loss that is not finite.
    fn update(&mut self, level: &Level, loss: f64) -> Result<(), ScheduleError> {
        let (_, _) = (level, loss);
        Ok(())
    }

    /// The losses that draws depend on; `None` if they do not.
    fn history(&self) -> Option<&LossSecondMoment> {
        None
    }

    /// Replaces the losses that draws depend on.
    fn set_history(&mut self, history: LossSecondMoment) {
        drop(history);
    }
}

/// The steps of a discrete process.
#[derive(Clone, Debug)]
pub struct StepLevels {
    levels: Vec<Level>,
    sampler: TimestepSampler,
}

impl StepLevels {
    /// Draws the steps of `diffusion` with the sampler of this name, `uniform` or `loss-second-moment`.
    ///
    /// # Errors
    /// An unknown name.
    pub fn named(name: &str, diffusion: &Diffusion) -> Result<Self, ScheduleError> {
        Ok(Self {
            levels: diffusion.all_levels(),
            sampler: TimestepSampler::named(name, diffusion.n_steps())?,
        })
    }
}

impl NoiseLevels for StepLevels {
    fn draw(&self, uniforms: &[f64]) -> Vec<LevelDraw> {
        let draws = self.sampler.sample(uniforms).into_iter();
        draws
            .map(|draw| LevelDraw {
                level: self.levels[draw.t],
                weight: draw.weight,
            })
            .collect()
    }

    fn update(&mut self, level: &Level, loss: f64) -> Result<(), ScheduleError> {
        let n_steps = self.levels.len();
        self.sampler.update(level.step.unwrap_or(n_steps), loss)
    }

    fn history(&self) -> Option<&LossSecondMoment> {
        match &self.sampler {
            TimestepSampler::Uniform { .. } | TimestepSampler::Weighted(_) => None,
            TimestepSampler::LossSecondMoment(history) => Some(history),
        }
    }

    fn set_history(&mut self, history: LossSecondMoment) {
        self.sampler = TimestepSampler::LossSecondMoment(history);
    }
}

impl NoiseLevels for EdmProcess {
    /// `ln sigma ~ N(p_mean, p_std^2)`, by the inverse of the normal distribution. Every weight is 1.
    fn draw(&self, uniforms: &[f64]) -> Vec<LevelDraw> {
        uniforms
            .iter()
            .map(|&u| LevelDraw {
                level: self.level_at(normal_quantile(u)),
                weight: 1.0,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Variance;
    use sdft_schedule::{BetaSchedule, Schedule};

    #[test]
    fn a_process_comes_back_from_its_text_and_texts_without_a_kind_are_edm_s() {
        let flow = Continuous::from(FlowProcess {
            logit_std: 2.0,
            ..FlowProcess::default()
        });
        let edm = Continuous::from(EdmProcess::default());
        for process in [flow, edm] {
            let text = serde_json::to_string(&process).unwrap();
            assert_eq!(serde_json::from_str::<Continuous>(&text).unwrap(), process);
            assert_eq!(text.contains("process_type"), process == flow, "{text}");
        }
        let old = serde_json::to_string(&EdmProcess::default()).unwrap();
        assert_eq!(serde_json::to_string(&edm).unwrap(), old);
        for wrong in [
            r#"{"process_type":"flows"}"#,
            r#"{"process_type":"flow","p_mean":1}"#,
            r#"{"logit_mean":1}"#,
        ] {
            assert!(
                serde_json::from_str::<Continuous>(wrong).is_err(),
                "{wrong}"
            );
        }
        let sit = Precond::SIT;
        assert!(Continuous::of(&sit).fits(&sit) && !edm.fits(&sit));
        assert!(edm.fits(&Precond::VE) && !flow.fits(&Precond::VE));
    }

    #[test]
    fn the_process_of_a_network_has_its_range_of_noise() {
        let range = |precond| {
            let process = EdmProcess::of(precond);
            (process.sigma_min, process.sigma_max)
        };
        assert_eq!(EdmProcess::of(&Precond::EDM), EdmProcess::default());
        assert_eq!(range(&Precond::VE), (0.02, 100.0));
        let (low, high) = range(&Precond::VP);
        assert!(
            low == 2f64.powi(-10) && (150.0..153.0).contains(&high),
            "{low} {high}"
        );
    }

    #[test]
    fn levels_of_edm_are_log_normal_and_equally_important() {
        let process = EdmProcess::default();
        let grid: Vec<f64> = (0..4000).map(|i| (f64::from(i) + 0.5) / 4000.0).collect();
        let draws = process.draw(&grid);
        let logs: Vec<f64> = draws.iter().map(|draw| draw.level.sigma().ln()).collect();
        let mean = logs.iter().sum::<f64>() / 4000.0;
        let spread = logs.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / 4000.0;
        assert!((mean + 1.2).abs() < 1e-6, "{mean}");
        assert!((spread.sqrt() - 1.2).abs() < 1e-3, "{spread}");
        for LevelDraw { level, weight } in draws {
            assert_eq!((weight, level.step), (1.0, None));
            assert!((f64::from(level.t) / level.sigma() - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn levels_of_steps_are_those_of_the_timestep_sampler() {
        let schedule = Schedule::new(BetaSchedule::Linear, 100).unwrap();
        let diffusion = Diffusion::new(schedule, Variance::FixedSmall);
        let mut levels = StepLevels::named("loss-second-moment", &diffusion).unwrap();
        let mut sampler = TimestepSampler::named("loss-second-moment", 100).unwrap();
        let all = diffusion.all_levels();
        for t in (0..100).cycle().take(1000) {
            levels.update(&all[t], (t * t) as f64).unwrap();
            sampler.update(t, (t * t) as f64).unwrap();
        }
        let uniforms = [0.0, 0.2, 0.7, 0.999];
        let pairs = levels
            .draw(&uniforms)
            .into_iter()
            .zip(sampler.sample(&uniforms));
        for (found, expected) in pairs {
            assert_eq!(found.level.step, Some(expected.t));
            assert_eq!(found.weight.to_bits(), expected.weight.to_bits());
            assert_eq!(
                found.level.alpha_bar,
                diffusion.schedule.alpha_bar()[expected.t]
            );
        }
        assert!(levels.history().is_some());
        assert!(levels.update(&Level::of_sigma(1.0), 1.0).is_err());
    }
}
