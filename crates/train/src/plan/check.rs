//! The checks of a plan before anything is read or written.

use super::*;
use sdft_schedule::ScheduleError;

/// A plan that is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct PlanError {
    /// The key in the TOML file.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

impl<M> Plan<M> {
    /// Fails, naming the key, unless the settings make sense. The `[model]` section is for the network's own code to check.
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
        check_name(&self.name)?;
        check_process(&self.process)?;
        self.data.check()?;
        match self.method {
            Method::Scratch if !self.source.is_empty() => {
                return wrong(
                    "source",
                    format!(
                        "method scratch starts from random weights, found source {:?}; drop it, or fine-tune it with --method sdft",
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
        self.adapter.check().map_err(adapter_error)?;
        if self.method == Method::Scratch && !self.adapter.is_full() {
            return wrong(
                "adapter.kind",
                format!(
                    "method scratch trains all weights, found {:?}; drop it, or fine-tune a source model",
                    self.adapter.kind.name()
                ),
            );
        }
        check_pace(&self.steps, &self.output)?;
        let few = if self.eval.every > 0 { 2 } else { 0 };
        check_counts(&[
            ("output.samples", self.output.samples as u64, 1, 4096),
            ("eval.every", self.eval.every, 0, MAX_RUN_STEPS),
            ("eval.samples", self.eval.samples as u64, few, 4096),
            ("eval.patience", self.eval.patience, 0, MAX_RUN_STEPS),
        ])?;
        if self.eval.every > 0 {
            let is_judged = self.data.is_digits() || self.data.is_emoji();
            if self.eval.best == BestBy::Coverage && !is_judged {
                return wrong(
                    "eval.best",
                    "coverage counts what the judges of digits and emoji see; expected kid for other images".into(),
                );
            }
            if self.eval.features != SetFeatures::Inception && is_judged {
                return wrong(
                    "eval.features",
                    "the judges of digits and emoji measure them; drop it, or train on other images".into(),
                );
            }
            let problem = match self.eval.sampler.parse() {
                Err(error) => Some(error),
                Ok(respacing) => self.process.diffusion(false, &respacing).err(),
            };
            if let Some(problem) = problem {
                return wrong("eval.sampler", problem.to_string());
            }
        }
        check_ranges(&[
            ("loss.lambda", self.loss.lambda, 0.0, f64::MAX),
            ("loss.lambda_aux", self.loss.lambda_aux, 0.0, f64::MAX),
            ("loss.label_dropout", self.loss.label_dropout, 0.0, 1.0),
        ])?;
        self.check_methods()?;
        check_optim(&self.optim)?;
        let respacing = self
            .sampler()
            .map_err(|problem| error("output.sampler", problem.to_string()))?;
        if let Err(error) = self.process.diffusion(false, &respacing) {
            return wrong("output.sampler", error.to_string());
        }
        if let Err(error) = sdft_schedule::TimestepSampler::named(
            &self.loss.timesteps,
            self.process.diffusion_steps,
        ) {
            return wrong("loss.timesteps", error.to_string());
        }
        if self.process.continuous.is_some() && self.loss.timesteps != "uniform" {
            return wrong(
                "loss.timesteps",
                format!(
                    "a continuous process draws its levels from its own distribution (process.continuous); expected \"uniform\", found {:?}",
                    self.loss.timesteps
                ),
            );
        }
        if let (Some(aux), AuxSampling::Weighted, Ok(diffusion)) = (
            self.objective(false).aux,
            self.loss.aux_sampling,
            self.process.diffusion(false, &Respacing::All),
        ) && let Err(error) =
            sdft_schedule::WeightedTimesteps::new(&aux.weighting.weights(&diffusion.schedule))
        {
            return wrong("loss.weight_aux", error.to_string());
        }
        Ok(())
    }

    /// Fails unless images of this height and width can be shifted as far as the plan says.
    ///
    /// # Errors
    /// The [`PlanError`] of `data.shift`.
    pub fn check_images(&self, [height, width]: [usize; 2]) -> Result<(), PlanError> {
        if self.data.shift < height.min(width) {
            return Ok(());
        }
        let size = Size::new(height, width);
        Err(error(
            "data.shift",
            format!(
                "expected less than the image size {size}, found {}",
                self.data.shift
            ),
        ))
    }

    /// The sampler's steps for the grids.
    ///
    /// # Errors
    /// The text is not a respacing.
    pub fn sampler(&self) -> Result<Respacing, ScheduleError> {
        self.output.sampler.parse()
    }
}

pub(super) fn error(key: &str, problem: String) -> PlanError {
    PlanError {
        key: key.to_owned(),
        problem,
    }
}

/// The error about a setting of the section `adapter`.
pub fn adapter_error(error: sdft_adapters::Error) -> PlanError {
    match error {
        sdft_adapters::Error::Config { key, problem } => {
            self::error(&format!("adapter.{key}"), problem)
        }
        other => self::error("adapter", other.to_string()),
    }
}

/// File names have up to 255 bytes, and a second run of the same name gets a number.
const LONGEST_NAME: usize = 200;

/// Fails unless the name is a plain folder name.
///
/// # Errors
/// The [`PlanError`] of `name`.
pub fn check_name(name: &str) -> Result<(), PlanError> {
    if name.len() > LONGEST_NAME {
        return Err(error(
            "name",
            format!(
                "expected at most {LONGEST_NAME} bytes, found {}",
                name.len()
            ),
        ));
    }
    if name.is_empty() || name.contains(['/', '\\', '\0']) || name.starts_with('.') {
        return Err(error(
            "name",
            format!("expected a plain folder name, found {name:?}"),
        ));
    }
    Ok(())
}

/// The largest number of steps.
pub const MAX_RUN_STEPS: u64 = 1 << 40;
/// The largest batch. The addresses of random numbers have this much room for it.
const MOST_IMAGES: u64 = 1 << 20;

/// Fails unless each count, given as (key, value, least, most), is in its range.
///
/// # Errors
/// The [`PlanError`] of the first count outside its range.
pub fn check_counts(counts: &[(&str, u64, u64, u64)]) -> Result<(), PlanError> {
    let outside =
        |(_, value, least, most): &&(&str, u64, u64, u64)| !(least..=most).contains(&value);
    match counts.iter().find(outside) {
        None => Ok(()),
        Some((key, value, least, most)) => Err(error(
            key,
            format!("expected {least} to {most}, found {value}"),
        )),
    }
}

/// Fails unless the tables of the process can be made and its settings are in their ranges.
///
/// # Errors
/// The [`PlanError`] of the first invalid field.
pub fn check_process(process: &Process) -> Result<(), PlanError> {
    process
        .check()
        .map_err(|e| error(&format!("process.{}", e.field), e.problem))
}

/// Fails unless steps, batches and intervals are in their ranges.
///
/// # Errors
/// The first [`PlanError`].
pub fn check_pace(pace: &LoopPlan, output: &OutputPlan) -> Result<(), PlanError> {
    check_counts(&[
        ("loop.steps", pace.steps, 1, MAX_RUN_STEPS),
        ("loop.batch", pace.batch as u64, 1, MOST_IMAGES),
        ("loop.micro_batch", pace.micro_batch as u64, 0, MOST_IMAGES),
        ("loop.max_skips", pace.max_skips, 1, MAX_RUN_STEPS),
        ("output.log_every", output.log_every, 1, MAX_RUN_STEPS),
        ("output.sample_every", output.sample_every, 0, MAX_RUN_STEPS),
        (
            "output.checkpoint_every",
            output.checkpoint_every,
            0,
            MAX_RUN_STEPS,
        ),
        ("output.keep", output.keep as u64, 1, MOST_IMAGES),
    ])
}

/// Fails unless the optimiser's numbers are in their ranges.
///
/// # Errors
/// The first [`PlanError`].
pub fn check_optim(optim: &OptimPlan) -> Result<(), PlanError> {
    check_counts(&[
        ("optim.lr_every", optim.lr_every, 1, MAX_RUN_STEPS),
        ("optim.warmup", optim.warmup, 0, MAX_RUN_STEPS),
    ])?;
    check_ranges(&[
        ("optim.lr", optim.lr, 0.0, f64::MAX),
        ("optim.lr_final", optim.lr_final, 0.0, 1.0),
        ("optim.lr_factor", optim.lr_factor, 0.0, 10.0),
        ("optim.betas", optim.betas.0, 0.0, 0.999_999_999),
        ("optim.betas", optim.betas.1, 0.0, 0.999_999_999),
        ("optim.eps", optim.eps, f64::MIN_POSITIVE, f64::MAX),
        ("optim.momentum", optim.momentum, 0.0, 1.0),
        ("optim.weight_decay", optim.weight_decay, 0.0, f64::MAX),
        ("optim.clip", optim.clip, 0.0, f64::MAX),
        ("optim.ema", optim.ema, 0.0, 1.0),
    ])
}

pub(super) fn check_ranges(ranges: &[(&str, f64, f64, f64)]) -> Result<(), PlanError> {
    match ranges
        .iter()
        .find(|(_, value, low, high)| !(low..=high).contains(&value))
    {
        Some((key, value, low, high)) => Err(error(
            key,
            match *high {
                f64::MAX => format!("expected {low} or more, found {value}"),
                high => format!("expected {low:?} to {high:?}, found {value}"),
            },
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sdft_adapters::AdapterKind;
    use sdft_diffusion::EdmProcess;

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
        assert!(!text.contains("adapter"), "{text}");
        assert_eq!(toml::from_str::<Plan>(&text).unwrap(), plan);
        let plan = Plan {
            adapter: AdapterConfig {
                kind: AdapterKind::Lora,
                alpha: Some(16.0),
                targets: vec!["qkv".into()],
                ..AdapterConfig::default()
            },
            ..digits()
        };
        let text = toml::to_string(&plan).unwrap();
        assert_eq!(toml::from_str::<Plan>(&text).unwrap(), plan);
    }

    #[test]
    fn the_paper_is_the_default() {
        let plan = digits();
        assert_eq!(plan.validate(), Ok(()));
        assert_eq!(plan.objective(true), Objective::metfaces(true));
        let naive = Plan {
            method: Method::Naive,
            ..digits()
        };
        assert!(!naive.objective(true).distills());
    }

    #[test]
    fn a_continuous_process_refuses_what_only_steps_have() {
        let edm = |change: fn(&mut Plan)| {
            let mut plan = digits();
            plan.process.prediction_type = PredictionType::Sample;
            plan.process.continuous = Some(EdmProcess::default().into());
            plan.loss.base = plan.process.usual_base();
            change(&mut plan);
            plan.validate()
        };
        assert_eq!(edm(|_| {}), Ok(()));
        let key = |change| edm(change).unwrap_err().key;
        assert_eq!(
            key(|plan| plan.loss.timesteps = "loss-second-moment".into()),
            "loss.timesteps"
        );
        assert_eq!(
            key(|plan| plan.process.prediction_type = PredictionType::V),
            "process.prediction_type"
        );
        assert_eq!(
            key(|plan| {
                let process = EdmProcess {
                    p_std: -1.0,
                    ..EdmProcess::default()
                };
                plan.process.continuous = Some(process.into());
            }),
            "process.continuous.p_std"
        );
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
        let lora = AdapterConfig {
            kind: AdapterKind::Lora,
            ..AdapterConfig::default()
        };
        assert_eq!(
            key(Plan {
                method: Method::Scratch,
                source: String::new(),
                adapter: lora.clone(),
                ..digits()
            }),
            "adapter.kind"
        );
        assert_eq!(
            key(Plan {
                adapter: AdapterConfig {
                    rank: Some(0),
                    ..lora
                },
                ..digits()
            }),
            "adapter.rank"
        );
        assert_eq!(
            key(Plan {
                name: "a/b".into(),
                ..digits()
            }),
            "name"
        );
        for batch in [0, usize::MAX] {
            assert_eq!(
                key(Plan {
                    steps: LoopPlan {
                        batch,
                        ..LoopPlan::default()
                    },
                    ..digits()
                }),
                "loop.batch"
            );
        }
        assert_eq!(
            key(Plan {
                process: Process {
                    diffusion_steps: 10_000_000_000,
                    ..Process::default()
                },
                ..digits()
            }),
            "process.diffusion_steps"
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
    }
}
