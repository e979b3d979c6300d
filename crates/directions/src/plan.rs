//! Everything that decides the training of a direction, as it is in `plan.toml`.

use sdft_asyrp::GoalWeights;
use sdft_diffusion::Process;
use sdft_imaging::ImageSpec;
use sdft_models::Architecture;
use sdft_train::{LoopPlan, LrSchedule, OnlyPlan, OptimPlan, OptimizerKind, OutputPlan};
use serde::{Deserialize, Serialize};

/// How an edit is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EditMethod {
    /// A block learns to shift the deepest features of the model, which stays as it is.
    #[default]
    Asyrp,
    /// A copy of the whole model is fine-tuned.
    DiffusionClip,
}

impl EditMethod {
    /// The name in plans and options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Asyrp => "asyrp",
            Self::DiffusionClip => "diffusionclip",
        }
    }
}

/// The images that a direction is trained on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectionData {
    /// An image folder, or `digits` or `emoji` for embedded images.
    pub path: String,
    /// The number of images, the first ones; 0 means all.
    pub images: usize,
    /// Unreadable images stop the run instead of being skipped.
    pub strict: bool,
    /// Hash of the images' names and of some of their pixels, set when they are read.
    pub fingerprint: String,
    /// Of the digits `chalk` or `ember`, of the emoji `noto` or `fluent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub style: Option<String>,
    /// Digits only: the classes to take; all if empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<u8>>,
    /// Digits only: at most this many of each class, the first ones; 0 means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_class: Option<usize>,
    /// Emoji only: which of them are taken, by what they show; all if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<OnlyPlan>,
}

impl Default for DirectionData {
    fn default() -> Self {
        Self {
            path: String::new(),
            images: 100,
            strict: false,
            fingerprint: String::new(),
            style: Some("ember".into()),
            classes: Some(Vec::new()),
            per_class: Some(0),
            only: None,
        }
    }
}

/// The goal of the edit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GoalPlan {
    /// What the images show: a text, a class of digits, or a value of an attribute of emoji, such as `gender=man`.
    pub from: String,
    /// What the edited images show.
    pub to: String,
    /// The network that measures the edit: `clip-b16`, `clip-b32`, or `digits` or `emoji` for an embedded classifier.
    pub network: String,
    /// Its files; if empty, those in the cache.
    pub weights: Vec<String>,
    /// SHA-256 of these files or of the embedded classifier, set when they are read.
    pub weights_sha256: String,
    /// IR-SE50's files, for `identity`; if empty, those in the cache.
    pub identity_weights: Vec<String>,
    /// SHA-256 of these files, set when they are read.
    pub identity_sha256: String,
    /// Weight of the direction.
    pub clip: f64,
    /// Weight of the distance: with Asyrp to what the unchanged model draws, with DiffusionCLIP to the image.
    pub l1: f64,
    /// Weight of the face's identity; published is 0.
    pub identity: f64,
    /// CLIP's input is resized with antialiasing, as torchvision does from 0.17 on; the published code did not.
    pub antialias: bool,
}

impl Default for GoalPlan {
    fn default() -> Self {
        let GoalWeights { clip, l1, identity } = GoalWeights::default();
        Self {
            from: String::new(),
            to: String::new(),
            network: "clip-b16".into(),
            weights: Vec::new(),
            weights_sha256: String::new(),
            identity_weights: Vec::new(),
            identity_sha256: String::new(),
            clip,
            l1,
            identity,
            antialias: false,
        }
    }
}

/// The steps of trajectories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WalkPlan {
    /// The step at which images are noise.
    pub t_0: usize,
    /// Steps of an inversion.
    pub inversion: usize,
    /// Steps of a trajectory from `t_0` to 0, those below `t_edit` included, at which nothing is trained.
    pub steps: usize,
    /// The edit changes features at this step and above it.
    pub t_edit: usize,
    /// Below this step fresh noise is added when the edit is applied; 0 adds none.
    pub t_boost: usize,
}

impl Default for WalkPlan {
    /// The paper's steps, and the editing range of Asyrp's scripts.
    fn default() -> Self {
        Self {
            t_0: 999,
            inversion: 100,
            steps: 50,
            t_edit: 500,
            t_boost: 200,
        }
    }
}

/// Length and batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectionLoop {
    /// Trajectories of each image.
    pub epochs: u64,
    /// Images of a trajectory.
    pub batch: usize,
    /// Trajectories in a row with a loss or gradient that is not finite before the run stops.
    pub max_skips: u64,
}

impl Default for DirectionLoop {
    fn default() -> Self {
        Self {
            epochs: 5,
            batch: 1,
            max_skips: 5,
        }
    }
}

/// What is written, and how often; steps are trajectories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectionOutput {
    /// Steps between two log lines.
    pub log_every: u64,
    /// Images in the picture at the end: as they are, drawn by the unchanged model, edited.
    pub samples: usize,
    /// Steps of the trajectories behind it.
    pub sampler: usize,
    /// Steps between two checkpoints; 0 keeps only the last.
    pub checkpoint_every: u64,
    /// How many of the newest checkpoints are kept.
    pub keep: usize,
}

impl Default for DirectionOutput {
    fn default() -> Self {
        Self {
            // A trajectory takes seconds on a GPU and minutes on a CPU.
            log_every: 1,
            samples: 8,
            sampler: 40,
            checkpoint_every: 5,
            keep: 2,
        }
    }
}

/// A run that trains a direction, as it is in `plan.toml`. The defaults are the paper's, or Asyrp's if the paper has none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectionPlan {
    /// The name of the run and of its folder.
    pub name: String,
    /// The seed of every random number of the run.
    pub seed: u64,
    /// How the edit is trained: [`EditMethod::Asyrp`].
    pub method: EditMethod,
    /// The model whose features the edit changes. The model itself does not change.
    pub source: String,
    /// The part of its file to take if it holds several; empty chooses.
    pub source_key: String,
    /// SHA-256 of its file, set when it is read.
    pub source_sha256: String,
    /// SHA-256 of its architecture and weights, set when it is read.
    pub network_sha256: String,
    /// Its architecture, set when it is read.
    pub model: Architecture,
    /// Its diffusion process, set when it is read.
    pub process: Process,
    /// The label of the class that the model is asked for; if absent, the null class of a class-conditional model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u32>,
    /// The form of the images, if it is not the model's own in 8 bits, set when the model is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSpec>,
    /// The images.
    pub data: DirectionData,
    /// The goal of the edit.
    pub goal: GoalPlan,
    /// The steps of trajectories.
    pub walk: WalkPlan,
    /// The optimiser.
    pub optim: OptimPlan,
    /// Length and batches.
    #[serde(rename = "loop")]
    pub pace: DirectionLoop,
    /// What is written.
    pub output: DirectionOutput,
}

impl Default for DirectionPlan {
    fn default() -> Self {
        Self {
            name: "edit".into(),
            seed: 1234,
            method: EditMethod::Asyrp,
            source: String::new(),
            source_key: String::new(),
            source_sha256: String::new(),
            network_sha256: String::new(),
            model: Architecture::default(),
            process: Process::default(),
            class: None,
            image: None,
            data: DirectionData::default(),
            goal: GoalPlan::default(),
            walk: WalkPlan::default(),
            optim: OptimPlan {
                kind: OptimizerKind::Sgd,
                lr: 0.5,
                schedule: LrSchedule::Step,
                lr_every: 20,
                lr_factor: 0.9,
                ema: 0.0,
                ..OptimPlan::default()
            },
            pace: DirectionLoop::default(),
            output: DirectionOutput::default(),
        }
    }
}

impl DirectionPlan {
    /// The networks that can measure an edit.
    pub const NETWORKS: [&str; 4] = ["clip-b16", "clip-b32", "digits", "emoji"];

    /// Trajectories in an epoch of `images`.
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
            ..LoopPlan::default()
        };
        loop_of(pace, &self.output, images)
    }
}

/// Trajectories in an epoch of `images`.
pub(crate) fn steps_per_epoch(images: usize, batch: usize) -> u64 {
    images.div_ceil(batch.max(1)).max(1) as u64
}

/// The loop with the steps of all epochs of `images`; `pace.steps` is the number of epochs.
pub(crate) fn loop_of(
    pace: LoopPlan,
    output: &DirectionOutput,
    images: usize,
) -> (LoopPlan, OutputPlan) {
    let steps = pace
        .steps
        .saturating_mul(steps_per_epoch(images, pace.batch));
    let output = OutputPlan {
        log_every: output.log_every,
        checkpoint_every: output.checkpoint_every,
        keep: output.keep,
        sample_every: 0,
        ..OutputPlan::default()
    };
    (LoopPlan { steps, ..pace }, output)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use sdft_train::RunPlan;

    /// A complete plan for faces.
    pub(crate) fn plan() -> DirectionPlan {
        let mut plan = DirectionPlan {
            source: "metfaces.safetensors".into(),
            ..DirectionPlan::default()
        };
        plan.data.path = "metfaces".into();
        (plan.goal.from, plan.goal.to) = ("face".into(), "smiling face".into());
        plan
    }

    #[test]
    fn the_published_recipe_is_the_default_and_survives_its_file() {
        let plan = plan();
        assert_eq!(plan.validate(), Ok(()));
        let text = toml::to_string(&plan).unwrap();
        assert_eq!(toml::from_str::<DirectionPlan>(&text).unwrap(), plan);
        // Five times a hundred images, one at a time.
        assert_eq!(plan.loop_of(100).0.steps, 500);
        assert_eq!(plan.steps_per_epoch(7), 7);
        // The last of an epoch's batches may be part of the next one's images.
        let mut pairs = plan.clone();
        pairs.pace.batch = 2;
        assert_eq!(pairs.loop_of(7).0.steps, 5 * 4);
    }
}
