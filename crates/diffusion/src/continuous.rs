//! Continuous processes, and how training draws noise levels from either kind of process.

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
/// As a section of a file it is the fields of the process, and `kind = "flow"` for a flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Continuous {
    /// EDM's, whose networks are called with `sigma`.
    Edm(EdmProcess),
    /// Flow matching, whose networks are called with `tau`.
    Flow(FlowProcess),
}

/// The field that names the kind of process, and its only value.
const KIND: &str = "kind";
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

/// The number below which a share `u` of a standard normal distribution lies; `u` is kept 2^-54 away from 0 and 1.
///
/// Source: Wichura 1988, algorithm AS 241 (PPND16), accurate to about 1e-16.
pub(crate) fn normal_quantile(u: f64) -> f64 {
    let u = u.clamp(f64::EPSILON / 4.0, 1.0 - f64::EPSILON / 2.0);
    let q = u - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return q * ratio(r, &CENTRE);
    }
    let r = (-u.min(1.0 - u).ln()).sqrt();
    let tail = if r <= 5.0 {
        ratio(r - 1.6, &TAIL)
    } else {
        ratio(r - 5.0, &FAR_TAIL)
    };
    tail.copysign(q)
}

/// Coefficients of numerator and denominator, the highest power first.
type Ratio = ([f64; 8], [f64; 8]);

fn ratio(x: f64, (above, below): &Ratio) -> f64 {
    let polynomial = |coefficients: &[f64; 8]| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    polynomial(above) / polynomial(below)
}

const CENTRE: Ratio = (
    [
        2_509.080_928_730_122_6,
        33_430.575_583_588_13,
        67_265.770_927_008_7,
        45_921.953_931_549_87,
        13_731.693_765_509_46,
        1_971.590_950_306_551_3,
        133.141_667_891_784_38,
        3.387_132_872_796_366_5,
    ],
    [
        5_226.495_278_852_855,
        28_729.085_735_721_943,
        39_307.895_800_092_71,
        21_213.794_301_586_597,
        5_394.196_021_424_751,
        687.187_007_492_057_9,
        42.313_330_701_600_91,
        1.0,
    ],
);

const TAIL: Ratio = (
    [
        7.745_450_142_783_414e-4,
        0.022_723_844_989_269_184,
        0.241_780_725_177_450_6,
        1.270_458_252_452_368_4,
        3.647_848_324_763_204_5,
        5.769_497_221_460_691,
        4.630_337_846_156_546,
        1.423_437_110_749_683_5,
    ],
    [
        1.050_750_071_644_416_9e-9,
        5.475_938_084_995_345e-4,
        0.015_198_666_563_616_457,
        0.148_103_976_427_480_08,
        0.689_767_334_985_1,
        1.676_384_830_183_803_8,
        2.053_191_626_637_759,
        1.0,
    ],
);

const FAR_TAIL: Ratio = (
    [
        2.010_334_399_292_288_1e-7,
        2.711_555_568_743_487_6e-5,
        0.001_242_660_947_388_078_4,
        0.026_532_189_526_576_124,
        0.296_560_571_828_504_87,
        1.784_826_539_917_291_3,
        5.463_784_911_164_114,
        6.657_904_643_501_103,
    ],
    [
        2.044_263_103_389_939_8e-15,
        1.421_511_758_316_446e-7,
        1.846_318_317_510_054_8e-5,
        7.868_691_311_456_133e-4,
        0.014_875_361_290_850_615,
        0.136_929_880_922_735_8,
        0.599_832_206_555_888,
        1.0,
    ],
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Variance;
    use sdft_schedule::{BetaSchedule, Schedule};

    #[test]
    fn quantiles_of_the_normal_distribution_are_the_known_ones() {
        for (u, expected) in [
            (0.5, 0.0),
            (0.3, -0.524_400_512_708_040_9),
            (0.975, 1.959_963_984_540_054),
            (1e-5, -4.264_890_793_922_825),
            (1e-12, -7.034_483_825_301_132),
        ] {
            let found = normal_quantile(u);
            assert!((found - expected).abs() < 1e-14 * 10.0, "{u}: {found}");
        }
        for u in [0.0, 1.0] {
            assert!(normal_quantile(u).is_finite(), "{u}");
        }
    }

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
            assert_eq!(text.contains("kind"), process == flow, "{text}");
        }
        let old = serde_json::to_string(&EdmProcess::default()).unwrap();
        assert_eq!(serde_json::to_string(&edm).unwrap(), old);
        for wrong in [
            r#"{"kind":"flows"}"#,
            r#"{"kind":"flow","p_mean":1}"#,
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
