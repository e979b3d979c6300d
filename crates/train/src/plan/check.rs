//! Whether a plan makes sense, before anything is read or written.

use super::*;

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
        self.validate_model()?;
        self.validate_settings()
    }

    fn validate_model(&self) -> Result<(), PlanError> {
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
        if self.data.shift >= self.model.image_size {
            return wrong(
                "data.shift",
                format!(
                    "expected less than the image size {}, found {}",
                    self.model.image_size, self.data.shift
                ),
            );
        }
        if self.model.in_channels != 3 {
            return wrong(
                "model.in_channels",
                format!("images have 3 channels, found {}", self.model.in_channels),
            );
        }
        Ok(())
    }

    /// As [`Self::validate`], without the architecture, which may still be unknown because a file tells it.
    ///
    /// # Errors
    /// The first [`PlanError`].
    pub fn validate_settings(&self) -> Result<(), PlanError> {
        let wrong = |key: &str, problem: String| {
            Err(PlanError {
                key: key.to_owned(),
                problem,
            })
        };
        check_name(&self.name)?;
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
                        "method scratch starts from random weights, found source {:?}; drop it, or use --config digits-scratch",
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
        check_pace(&self.steps, &self.output)?;
        if self.output.samples == 0 || self.output.samples > 4096 {
            return wrong(
                "output.samples",
                format!("expected 1 to 4096, found {}", self.output.samples),
            );
        }
        if self.eval.every > 0 {
            if !(2..=4096).contains(&self.eval.samples) {
                return wrong(
                    "eval.samples",
                    format!("expected 2 to 4096, found {}", self.eval.samples),
                );
            }
            if self.eval.best == BestBy::Coverage && self.data.path != "digits" {
                return wrong(
                    "eval.best",
                    "coverage counts classes, which only the digits have; expected kid".into(),
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
        ])?;
        check_optim(&self.optim)?;
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
        if let Some(class) = self.data.classes.iter().find(|class| **class > 9) {
            return wrong(
                "data.classes",
                format!("expected digits from 0 to 9, found {class}"),
            );
        }
        if let (Some(aux), AuxSampling::Weighted, Ok(diffusion)) = (
            self.objective().aux,
            self.loss.aux_sampling,
            self.process.diffusion(false, &Respacing::All),
        ) && let Err(error) =
            sdft_schedule::WeightedTimesteps::new(&aux.weighting.weights(&diffusion.schedule))
        {
            return wrong("loss.weight_aux", error.to_string());
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
}

fn error(key: &str, problem: String) -> PlanError {
    PlanError {
        key: key.to_owned(),
        problem,
    }
}

/// Fails unless the name can be a folder's.
pub(crate) fn check_name(name: &str) -> Result<(), PlanError> {
    if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
        return Err(error(
            "name",
            format!("expected a plain folder name, found {name:?}"),
        ));
    }
    Ok(())
}

/// Fails unless steps, batches and intervals make sense.
pub(crate) fn check_pace(pace: &LoopPlan, output: &OutputPlan) -> Result<(), PlanError> {
    let at_least_one = [
        ("loop.steps", pace.steps),
        ("loop.batch", pace.batch as u64),
        ("loop.max_skips", pace.max_skips),
        ("output.log_every", output.log_every),
        ("output.keep", output.keep as u64),
    ];
    if let Some((key, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
        return Err(error(key, "expected 1 or more, found 0".into()));
    }
    // Addresses of random numbers leave this much room for a batch.
    let at_most = [
        ("loop.steps", pace.steps, 1 << 40),
        ("loop.batch", pace.batch as u64, 1 << 20),
    ];
    if let Some((key, value, most)) = at_most.into_iter().find(|(_, value, most)| value > most) {
        return Err(error(
            key,
            format!("expected at most {most}, found {value}"),
        ));
    }
    Ok(())
}

/// Fails unless the optimiser's numbers are in their ranges.
pub(crate) fn check_optim(optim: &OptimPlan) -> Result<(), PlanError> {
    if optim.lr_every == 0 {
        return Err(error(
            "optim.lr_every",
            "expected 1 or more, found 0".into(),
        ));
    }
    check_ranges(&[
        ("optim.lr", optim.lr, 0.0, f64::MAX),
        ("optim.lr_final", optim.lr_final, 0.0, 1.0),
        ("optim.lr_factor", optim.lr_factor, 0.0, 1.0),
        ("optim.betas", optim.betas.0, 0.0, 0.999_999_999),
        ("optim.betas", optim.betas.1, 0.0, 0.999_999_999),
        ("optim.eps", optim.eps, f64::MIN_POSITIVE, f64::MAX),
        ("optim.momentum", optim.momentum, 0.0, 1.0),
        ("optim.weight_decay", optim.weight_decay, 0.0, f64::MAX),
        ("optim.clip", optim.clip, 0.0, f64::MAX),
        ("optim.ema", optim.ema, 0.0, 1.0),
    ])
}

fn check_ranges(ranges: &[(&str, f64, f64, f64)]) -> Result<(), PlanError> {
    match ranges
        .iter()
        .find(|(_, value, low, high)| !(low..=high).contains(&value))
    {
        Some((key, value, low, high)) => Err(error(
            key,
            format!("expected {low:?} to {high:?}, found {value}"),
        )),
        None => Ok(()),
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
