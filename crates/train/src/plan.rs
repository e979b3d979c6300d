//! Everything that decides a run, as it stands in `plan.toml`.

use sdft_adm::AdmConfig;
use sdft_losses::{Distillation, Objective, Variational};
use sdft_models::Process;
use sdft_schedule::{Respacing, Weighting};
use serde::{Deserialize, Serialize};

/// What is trained, and against what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// From random weights.
    Scratch,
    /// From the source weights, with the base loss alone.
    Naive,
    /// From the source weights, distilling the frozen source model.
    Sdft,
}

/// How timesteps of the auxiliary input are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuxSampling {
    /// Uniformly, as many as the batch, each weighted by `w_aux(t)`.
    Uniform,
    /// In proportion to `w_aux(t)`, a third of the batch, each weighted by the mean of `w_aux`: the same expectation, a third of the cost.
    Weighted,
    /// The timesteps of the images, as many as the batch.
    Shared,
}

/// How the losses of micro-batches add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accumulate {
    /// To the whole batch's mean.
    Mean,
    /// To the sum of the micro-batches' means, as guided-diffusion does.
    Sum,
}

/// The optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay.
    Adamw,
    /// Stochastic gradient descent.
    Sgd,
}

/// The course of the learning rate after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LrSchedule {
    /// Stays.
    Constant,
    /// Falls to 0 at the last step.
    Linear,
    /// Falls along half a cosine to `lr_final` times the start.
    Cosine,
}

/// Where images come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataPlan {
    /// An image folder, or `digits` for the embedded handwritten digits.
    pub path: String,
    /// Whether images are flipped horizontally half of the time.
    pub flip: bool,
    /// Images are shifted by up to this many pixels in both directions.
    pub shift: usize,
    /// Unreadable images stop the run instead of being left out.
    pub strict: bool,
    /// Digits only: `chalk` or `ember`.
    pub style: String,
    /// Digits only: the classes to take; all if empty.
    pub classes: Vec<u8>,
    /// Digits only: at most this many of each class, the first ones; 0 means all.
    pub per_class: usize,
}

impl Default for DataPlan {
    fn default() -> Self {
        Self {
            path: String::new(),
            flip: true,
            shift: 0,
            strict: false,
            style: "chalk".into(),
            classes: Vec::new(),
            per_class: 0,
        }
    }
}

/// The objective, Eq. (2) to (6).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossPlan {
    /// Weight of the squared error: `constant`, `p2-GAMMA`, ..
    #[serde(with = "text")]
    pub base: Weighting,
    /// Whether the variational term is left out although the network learns its variance.
    pub simple_only: bool,
    /// `lambda`, the factor of the distillation on images; 0 leaves the term out.
    pub lambda: f64,
    /// `w(t)` of the distillation on images.
    #[serde(with = "text")]
    pub weight: Weighting,
    /// `lambda_aux`, the factor of the distillation on pure noise; 0 leaves the term out.
    pub lambda_aux: f64,
    /// `w_aux(t)`.
    #[serde(with = "text")]
    pub weight_aux: Weighting,
    /// How the auxiliary timesteps are chosen.
    pub aux_sampling: AuxSampling,
    /// `uniform` or `loss-second-moment`.
    pub timesteps: String,
}

impl Default for LossPlan {
    fn default() -> Self {
        Self {
            base: Weighting::P2 { k: 1.0, gamma: 1.0 },
            simple_only: false,
            lambda: 0.1,
            weight: Weighting::Snr { k: 1.0, gamma: 3.0 },
            lambda_aux: 0.1,
            weight_aux: Weighting::Snr {
                k: 1.0,
                gamma: 50.0,
            },
            aux_sampling: AuxSampling::Weighted,
            timesteps: "uniform".to_owned(),
        }
    }
}

/// The optimiser and the moving average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimPlan {
    /// Which optimiser.
    pub kind: OptimizerKind,
    /// Learning rate after warm-up.
    pub lr: f64,
    /// Its course.
    pub schedule: LrSchedule,
    /// Cosine only: the fraction of `lr` at the last step.
    pub lr_final: f64,
    /// Steps over which the rate rises linearly.
    pub warmup: u64,
    /// AdamW's two decays.
    pub betas: (f64, f64),
    /// AdamW's epsilon.
    pub eps: f64,
    /// SGD's momentum.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Largest gradient norm; 0 does not clip.
    pub clip: f64,
    /// Rate of the moving average.
    pub ema: f64,
    /// The moving average starts with the rate (1 + n)/(10 + n), for short runs.
    pub ema_ramp: bool,
}

impl Default for OptimPlan {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Adamw,
            lr: 2e-5,
            schedule: LrSchedule::Constant,
            lr_final: 0.1,
            warmup: 0,
            betas: (0.9, 0.999),
            eps: 1e-8,
            momentum: 0.0,
            weight_decay: 0.0,
            clip: 0.0,
            ema: 0.9999,
            ema_ramp: false,
        }
    }
}

/// Length and batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoopPlan {
    /// Optimiser steps.
    pub steps: u64,
    /// Images per step.
    pub batch: usize,
    /// Images that go through the network at once; 0 means the whole batch.
    pub micro_batch: usize,
    /// How micro-batches add up.
    pub accumulate: Accumulate,
    /// Steps in a row whose loss or gradient is not finite before the run stops.
    pub max_skips: u64,
}

impl Default for LoopPlan {
    fn default() -> Self {
        Self {
            steps: 80_000,
            batch: 8,
            micro_batch: 0,
            accumulate: Accumulate::Mean,
            max_skips: 5,
        }
    }
}

/// What is written, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutputPlan {
    /// Steps between two log lines.
    pub log_every: u64,
    /// Steps between two sample grids; 0 draws only the last.
    pub sample_every: u64,
    /// Images in a grid.
    pub samples: usize,
    /// Steps of the sampler behind the grids, as a respacing.
    pub sampler: String,
    /// Steps between two checkpoints; 0 keeps only the last.
    pub checkpoint_every: u64,
    /// How many of the newest checkpoints are kept.
    pub keep: usize,
}

impl Default for OutputPlan {
    fn default() -> Self {
        Self {
            log_every: 10,
            sample_every: 1000,
            samples: 16,
            sampler: "ddim40".into(),
            checkpoint_every: 1000,
            keep: 3,
        }
    }
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// The run's name; its folder carries it.
    pub name: String,
    /// Every random number of the run follows from it.
    pub seed: u64,
    /// What is trained, and against what.
    pub method: Method,
    /// The source model: a file, or `digits-source` for the embedded one; empty for `scratch`.
    pub source: String,
    /// SHA-256 of the source file, filled in when it is read.
    pub source_sha256: String,
    /// The architecture.
    pub model: AdmConfig,
    /// The diffusion process.
    pub process: Process,
    /// Where images come from.
    pub data: DataPlan,
    /// The objective.
    pub loss: LossPlan,
    /// The optimiser.
    pub optim: OptimPlan,
    /// Length and batches.
    #[serde(rename = "loop")]
    pub steps: LoopPlan,
    /// What is written.
    pub output: OutputPlan,
}

impl Default for Plan {
    /// SDFT with the paper's settings for MetFaces; data and source are for the user to give.
    fn default() -> Self {
        Self {
            name: "run".into(),
            seed: 0,
            method: Method::Sdft,
            source: String::new(),
            source_sha256: String::new(),
            model: AdmConfig::default(),
            process: Process::default(),
            data: DataPlan::default(),
            loss: LossPlan::default(),
            optim: OptimPlan::default(),
            steps: LoopPlan::default(),
            output: OutputPlan::default(),
        }
    }
}

/// A plan that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct PlanError {
    /// The key to change, as in the TOML file.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Plan {
    /// Fails, naming the key, unless the plan makes sense.
    ///
    /// # Errors
    /// The first [`PlanError`].
    pub fn validate(&self) -> Result<(), PlanError> {
        let wrong = |key: &str, problem: String| {
            Err(PlanError {
                key: key.to_owned(),
                problem,
            })
        };
        self.model.validate().map_err(|e| PlanError {
            key: format!("model.{}", e.field),
            problem: e.problem,
        })?;
        if self.model.num_classes != 0 {
            return wrong(
                "model.num_classes",
                format!(
                    "training is unconditional, this network has {} classes; start from an unconditional model",
                    self.model.num_classes
                ),
            );
        }
        if !self.model.learns_variance() && self.model.out_channels != self.model.in_channels {
            return wrong(
                "model.out_channels",
                format!(
                    "expected {} or {}, found {}",
                    self.model.in_channels,
                    2 * self.model.in_channels,
                    self.model.out_channels
                ),
            );
        }
        if self.model.in_channels != 3 {
            return wrong(
                "model.in_channels",
                format!("images have 3 channels, found {}", self.model.in_channels),
            );
        }
        if self.name.is_empty() || self.name.contains(['/', '\\']) || self.name.starts_with('.') {
            return wrong(
                "name",
                format!("expected a plain folder name, found {:?}", self.name),
            );
        }
        if self.data.path.is_empty() {
            return wrong(
                "data.path",
                "expected an image folder or \"digits\"; give --data".into(),
            );
        }
        match self.method {
            Method::Scratch if !self.source.is_empty() => {
                return wrong(
                    "source",
                    format!(
                        "method scratch starts from random weights, found source {:?}",
                        self.source
                    ),
                );
            }
            Method::Naive | Method::Sdft if self.source.is_empty() => {
                return wrong("source", "fine-tuning starts from a source model; give --source FILE, or --method scratch".into());
            }
            _ => {}
        }
        for (key, weighting) in [
            ("loss.base", &self.loss.base),
            ("loss.weight", &self.loss.weight),
            ("loss.weight_aux", &self.loss.weight_aux),
        ] {
            if let Err(error) = weighting.check() {
                return wrong(key, error.to_string());
            }
        }
        if self.method == Method::Sdft && self.loss.lambda == 0.0 && self.loss.lambda_aux == 0.0 {
            return wrong(
                "loss.lambda",
                "method sdft without any distillation is method naive".into(),
            );
        }
        let at_least_one = [
            ("loop.steps", self.steps.steps),
            ("loop.batch", self.steps.batch as u64),
            ("loop.max_skips", self.steps.max_skips),
            ("output.log_every", self.output.log_every),
            ("output.keep", self.output.keep as u64),
        ];
        if let Some((key, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return wrong(key, "expected 1 or more, found 0".into());
        }
        // Addresses of random numbers leave this much room for a batch.
        if self.steps.batch > 1 << 20 {
            return wrong(
                "loop.batch",
                format!("expected at most {}, found {}", 1 << 20, self.steps.batch),
            );
        }
        if self.output.samples == 0 || self.output.samples > 4096 {
            return wrong(
                "output.samples",
                format!("expected 1 to 4096, found {}", self.output.samples),
            );
        }
        let ranges = [
            ("loss.lambda", self.loss.lambda, 0.0, f64::MAX),
            ("loss.lambda_aux", self.loss.lambda_aux, 0.0, f64::MAX),
            ("optim.lr", self.optim.lr, 0.0, f64::MAX),
            ("optim.lr_final", self.optim.lr_final, 0.0, 1.0),
            ("optim.betas", self.optim.betas.0, 0.0, 0.999_999_999),
            ("optim.betas", self.optim.betas.1, 0.0, 0.999_999_999),
            ("optim.eps", self.optim.eps, f64::MIN_POSITIVE, f64::MAX),
            ("optim.momentum", self.optim.momentum, 0.0, 1.0),
            ("optim.weight_decay", self.optim.weight_decay, 0.0, f64::MAX),
            ("optim.clip", self.optim.clip, 0.0, f64::MAX),
            ("optim.ema", self.optim.ema, 0.0, 1.0),
        ];
        if let Some((key, value, low, high)) = ranges
            .into_iter()
            .find(|(_, value, low, high)| !(low..=high).contains(&value))
        {
            return wrong(key, format!("expected {low:?} to {high:?}, found {value}"));
        }
        let respacing = self.sampler().map_err(|problem| PlanError {
            key: "output.sampler".into(),
            problem,
        })?;
        if let Err(error) = self.process.diffusion(false, &Respacing::All) {
            return wrong("process", error.to_string());
        }
        if let Err(error) = self.process.diffusion(false, &respacing) {
            return wrong("output.sampler", error.to_string());
        }
        if let Err(error) = sdft_schedule::TimestepSampler::named(
            &self.loss.timesteps,
            self.process.diffusion_steps,
        ) {
            return wrong("loss.timesteps", error.to_string());
        }
        Ok(())
    }

    /// The sampler's steps behind the grids.
    ///
    /// # Errors
    /// Text that is no respacing.
    pub fn sampler(&self) -> Result<Respacing, String> {
        self.output
            .sampler
            .parse()
            .map_err(|e: sdft_schedule::ScheduleError| e.to_string())
    }

    /// The objective of the plan's method.
    pub fn objective(&self) -> Objective {
        let variational = if self.model.learns_variance() && !self.loss.simple_only {
            Variational::Rescaled
        } else {
            Variational::Off
        };
        let base = Objective::base_only(self.loss.base, variational);
        let term = |lambda: f64, weighting| {
            (self.method == Method::Sdft && lambda > 0.0)
                .then_some(Distillation { lambda, weighting })
        };
        Objective {
            distill: term(self.loss.lambda, self.loss.weight),
            aux: term(self.loss.lambda_aux, self.loss.weight_aux),
            ..base
        }
    }

    /// Images that go through the network at once.
    pub fn micro_batch(&self) -> usize {
        match self.steps.micro_batch {
            0 => self.steps.batch,
            n => n.min(self.steps.batch),
        }
    }
}

/// Values that stand as text in TOML.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Display;
    use std::str::FromStr;

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits() -> Plan {
        Plan {
            data: DataPlan {
                path: "digits".into(),
                ..DataPlan::default()
            },
            source: "digits-source".into(),
            ..Plan::default()
        }
    }

    #[test]
    fn a_plan_survives_its_file() {
        let plan = digits();
        let text = toml::to_string(&plan).unwrap();
        assert!(text.contains("weight = \"snr-3\""), "{text}");
        assert_eq!(toml::from_str::<Plan>(&text).unwrap(), plan);
    }

    #[test]
    fn the_paper_is_the_default() {
        let plan = digits();
        assert_eq!(plan.validate(), Ok(()));
        assert_eq!(plan.objective(), Objective::metfaces(true));
        let naive = Plan {
            method: Method::Naive,
            ..digits()
        };
        assert!(!naive.objective().distills());
    }

    #[test]
    fn impossible_plans_name_the_key() {
        let key = |plan: Plan| plan.validate().unwrap_err().key;
        assert_eq!(
            key(Plan {
                source: String::new(),
                ..digits()
            }),
            "source"
        );
        assert_eq!(
            key(Plan {
                method: Method::Scratch,
                ..digits()
            }),
            "source"
        );
        assert_eq!(
            key(Plan {
                data: DataPlan::default(),
                ..digits()
            }),
            "data.path"
        );
        assert_eq!(
            key(Plan {
                name: "a/b".into(),
                ..digits()
            }),
            "name"
        );
        assert_eq!(
            key(Plan {
                steps: LoopPlan {
                    batch: 0,
                    ..LoopPlan::default()
                },
                ..digits()
            }),
            "loop.batch"
        );
        assert_eq!(
            key(Plan {
                optim: OptimPlan {
                    lr: f64::NAN,
                    ..OptimPlan::default()
                },
                ..digits()
            }),
            "optim.lr"
        );
        assert_eq!(
            key(Plan {
                output: OutputPlan {
                    sampler: "ddim60".into(),
                    ..OutputPlan::default()
                },
                ..digits()
            }),
            "output.sampler"
        );
        assert_eq!(
            key(Plan {
                loss: LossPlan {
                    timesteps: "often".into(),
                    ..LossPlan::default()
                },
                ..digits()
            }),
            "loss.timesteps"
        );
        let config = AdmConfig {
            num_head_channels: 48,
            ..AdmConfig::default()
        };
        assert_eq!(
            key(Plan {
                model: config,
                ..digits()
            }),
            "model.num_head_channels"
        );
        let classes = AdmConfig {
            num_classes: 10,
            ..AdmConfig::default()
        };
        assert_eq!(
            key(Plan {
                model: classes,
                ..digits()
            }),
            "model.num_classes"
        );
    }
}
