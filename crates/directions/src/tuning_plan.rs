//! Everything that decides how a model is tuned for an edit, as it is in `plan.toml`.

use crate::check::{
    MOST_SAMPLES, check_goal, check_inputs, check_method, check_model, check_walk, wrong,
};
use crate::plan::{DirectionData, DirectionOutput, EditMethod, GoalPlan, loop_of, steps_per_epoch};
use sdft_adapters::AdapterConfig;
use sdft_diffusion::Process;
use sdft_imaging::ImageSpec;
use sdft_models::Architecture;
use sdft_schedule::MAX_STEPS;
use sdft_train::{
    LoopPlan, LrSchedule, MAX_RUN_STEPS, OptimPlan, OutputPlan, PlanError, RunPlan, adapter_error,
    check_counts, check_optim, check_pace,
};
use serde::{Deserialize, Serialize};

/// The steps of inversions and generations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TuningWalk {
    /// The step at which inversions end and generations start: the further from 0, the more an edit can change.
    pub t_0: usize,
    /// Steps of an inversion.
    pub inversion: usize,
    /// Steps of a generation.
    pub steps: usize,
}

impl Default for TuningWalk {
    fn default() -> Self {
        Self {
            t_0: 500,
            inversion: 40,
            steps: 6,
        }
    }
}

/// What an update of the weights is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpdateEach {
    /// A generation: the gradient of the generated image passes through all its steps.
    #[default]
    Generation,
    /// A step of a generation, with the clean image that it predicts: no gradient passes from step to step, as in the published variant
    /// for less memory.
    Step,
}

/// Length, batches and updates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TuningLoop {
    /// Generations of each image.
    pub epochs: u64,
    /// Images of a generation.
    pub batch: usize,
    /// When the weights are updated.
    pub update: UpdateEach,
    /// The backward pass computes values inside the network's blocks again instead of keeping them: less memory, more time, the same
    /// result up to rounding.
    pub recompute: bool,
    /// Generations in a row with a loss or gradient that is not finite before the run stops.
    pub max_skips: u64,
}

impl Default for TuningLoop {
    fn default() -> Self {
        Self {
            epochs: 5,
            batch: 1,
            update: UpdateEach::Generation,
            recompute: false,
            max_skips: 5,
        }
    }
}

/// A run that tunes a model for an edit (DiffusionCLIP), as it is in `plan.toml`. The defaults are those of the published command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TuningPlan {
    /// The name of the run and of its folder.
    pub name: String,
    /// The seed of every random number of the run.
    pub seed: u64,
    /// How the edit is trained: [`EditMethod::DiffusionClip`].
    pub method: EditMethod,
    /// The original model: it inverts the images, and its copy is tuned.
    pub source: String,
    /// The part of its file to take if it holds several; empty chooses.
    pub source_key: String,
    /// SHA-256 of its file, set when it is read.
    pub source_sha256: String,
    /// SHA-256 of its architecture and weights, set when it is read.
    pub network_sha256: String,
    /// Its architecture, set when it is read.
    pub model: Architecture,
    /// Which weights are trained; written only if not all.
    #[serde(skip_serializing_if = "AdapterConfig::is_default")]
    pub adapter: AdapterConfig,
    /// Its diffusion process, set when it is read.
    pub process: Process,
    /// The label of the class that the models are asked for; if absent, the null class of a class-conditional model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u32>,
    /// The form of the images, if it is not the model's own in 8 bits, set when the model is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSpec>,
    /// The images.
    pub data: DirectionData,
    /// The goal of the edit.
    pub goal: GoalPlan,
    /// The steps of inversions and generations.
    pub walk: TuningWalk,
    /// The optimiser; its schedule counts epochs.
    pub optim: OptimPlan,
    /// Length, batches and updates.
    #[serde(rename = "loop")]
    pub pace: TuningLoop,
    /// What is written.
    pub output: DirectionOutput,
}

impl Default for TuningPlan {
    /// Source: the README of DiffusionCLIP's code, for faces of 256x256; `main.py` for what it does not set.
    fn default() -> Self {
        Self {
            name: "edit".into(),
            seed: 1234,
            method: EditMethod::DiffusionClip,
            source: String::new(),
            source_key: String::new(),
            source_sha256: String::new(),
            network_sha256: String::new(),
            model: Architecture::default(),
            adapter: AdapterConfig::default(),
            process: Process::default(),
            class: None,
            image: None,
            data: DirectionData {
                images: 50,
                ..DirectionData::default()
            },
            goal: GoalPlan {
                clip: 3.0,
                l1: 1.0,
                identity: 0.0,
                ..GoalPlan::default()
            },
            walk: TuningWalk::default(),
            // AdamW without decay is Adam.
            optim: OptimPlan {
                lr: 8e-6,
                schedule: LrSchedule::Step,
                lr_every: 1,
                lr_factor: 1.3,
                ema: 0.0,
                ..OptimPlan::default()
            },
            pace: TuningLoop::default(),
            output: DirectionOutput {
                // Four copies of all weights.
                checkpoint_every: 50,
                keep: 1,
                ..DirectionOutput::default()
            },
        }
    }
}

impl TuningPlan {
    /// Generations in an epoch of `images`.
    #[must_use]
    pub fn steps_per_epoch(&self, images: usize) -> u64 {
        steps_per_epoch(images, self.pace.batch)
    }

    /// Length and intervals of the loop for `images`.
    pub(crate) fn loop_of(&self, images: usize) -> (LoopPlan, OutputPlan) {
        let pace = LoopPlan {
            steps: self.pace.epochs,
            batch: self.pace.batch,
            max_skips: self.pace.max_skips,
            recompute: self.pace.recompute,
            ..LoopPlan::default()
        };
        loop_of(pace, &self.output, images)
    }

    /// As [`RunPlan::validate`], without the architecture and the process, which may be unknown until the model's file is read.
    ///
    /// # Errors
    /// The first [`PlanError`].
    pub fn validate_settings(&self) -> Result<(), PlanError> {
        check_method(self.method, EditMethod::DiffusionClip)?;
        check_inputs(&self.name, &self.source, &self.data)?;
        check_goal(&self.goal)?;
        self.adapter.check().map_err(adapter_error)?;
        let walk = &self.walk;
        check_counts(&[
            (
                "output.samples",
                self.output.samples as u64,
                0,
                MOST_SAMPLES,
            ),
            ("loop.epochs", self.pace.epochs, 1, MAX_RUN_STEPS),
            ("walk.t_0", walk.t_0 as u64, 1, MAX_STEPS as u64 - 1),
        ])?;
        let (pace, output) = self.loop_of(1);
        check_pace(&pace, &output)?;
        check_optim(&self.optim)?;
        check_walk(
            walk.t_0,
            &[
                ("walk.inversion", walk.inversion),
                ("walk.steps", walk.steps),
                ("output.sampler", self.output.sampler),
            ],
        )
    }
}

impl RunPlan for TuningPlan {
    const VERB: &'static str = "edit train";

    fn validate(&self) -> Result<(), PlanError> {
        self.validate_settings()?;
        check_model(&self.model, &self.process, self.walk.t_0)?;
        self.model
            .check_trainable()
            .map_err(|e| wrong(&format!("model.{}", e.field), e.problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> TuningPlan {
        let mut plan = TuningPlan {
            source: "faces.safetensors".into(),
            ..TuningPlan::default()
        };
        plan.data.path = "faces".into();
        (plan.goal.from, plan.goal.to) = ("face".into(), "smiling face".into());
        plan
    }

    #[test]
    fn the_published_recipe_is_the_default_and_survives_its_file() {
        let plan = plan();
        assert_eq!(plan.validate(), Ok(()));
        let text = toml::to_string(&plan).unwrap();
        assert!(text.contains("method = \"diffusionclip\""), "{text}");
        assert_eq!(toml::from_str::<TuningPlan>(&text).unwrap(), plan);
        // Five times fifty images, one at a time.
        assert_eq!(plan.loop_of(50).0.steps, 250);
    }

    #[test]
    fn impossible_plans_name_the_key() {
        type Change = fn(&mut TuningPlan);
        let broken: [(&str, Change); 11] = [
            ("method", |p| p.method = EditMethod::Asyrp),
            ("source", |p| p.source.clear()),
            ("data.path", |p| p.data.path.clear()),
            ("goal.to", |p| p.goal.to = "face".into()),
            ("goal.clip", |p| p.goal.clip = 0.0),
            ("adapter.rank", |p| p.adapter.rank = Some(4)),
            ("loop.epochs", |p| p.pace.epochs = 0),
            ("walk.steps", |p| p.walk.steps = 502),
            ("walk.inversion", |p| p.walk.inversion = 1),
            ("walk.t_0", |p| p.walk.t_0 = 1000),
            ("optim.lr_factor", |p| p.optim.lr_factor = 11.0),
        ];
        for (key, change) in broken {
            let mut plan = plan();
            change(&mut plan);
            assert_eq!(plan.validate().unwrap_err().key, key);
        }
    }
}
