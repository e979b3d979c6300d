//! Everything that decides a direction's training, as it is in `plan.toml`.

use sdft_adm::AdmConfig;
use sdft_asyrp::{GoalWeights, training_sequence};
use sdft_diffusion::Process;
use sdft_schedule::MAX_STEPS;
use sdft_train::{
    LoopPlan, LrSchedule, MAX_RUN_STEPS, OptimPlan, OptimizerKind, OutputPlan, PlanError, RunPlan,
    check_classes, check_counts, check_name, check_optim, check_pace, check_process,
};
use serde::{Deserialize, Serialize};

/// The images that a direction is trained on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectionData {
    /// An image folder, or `digits` for the embedded handwritten digits.
    pub path: String,
    /// The first so many are used; 0 means all.
    pub images: usize,
    /// Unreadable images stop the run instead of being left out.
    pub strict: bool,
    /// Hash of the images' names and of some of their pixels, filled in when they are read.
    pub fingerprint: String,
    /// Digits only: `chalk` or `ember`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub style: Option<String>,
    /// Digits only: the classes to take; all if empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<u8>>,
    /// Digits only: at most this many of each class, the first ones; 0 means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_class: Option<usize>,
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
        }
    }
}

/// Where the edit goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GoalPlan {
    /// What the images show; of the digits, a class.
    pub from: String,
    /// What they are to show.
    pub to: String,
    /// What says how far it got: `clip-b16`, `clip-b32`, or `digits` for the embedded classifier.
    pub network: String,
    /// Its files, filled in from the cache if empty.
    pub weights: Vec<String>,
    /// SHA-256 of these files, filled in when they are read.
    pub weights_sha256: String,
    /// IR-SE50's files, for `identity`, filled in from the cache if empty.
    pub identity_weights: Vec<String>,
    /// SHA-256 of these files, filled in when they are read.
    pub identity_sha256: String,
    /// Weight of the direction.
    pub clip: f64,
    /// Weight of the distance to what the unchanged model draws.
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
    /// Features are changed at this step and above it.
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
    /// How often each image is walked.
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

/// A run that trains a direction, as it stands in `plan.toml`. The defaults are the paper's, and Asyrp's where it says nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DirectionPlan {
    /// The run's name; its folder carries it.
    pub name: String,
    /// Every random number of the run follows from it.
    pub seed: u64,
    /// The model whose features are moved; it stays as it is.
    pub source: String,
    /// The part of its file to take where it holds several; empty chooses.
    pub source_key: String,
    /// SHA-256 of its file, filled in when it is read.
    pub source_sha256: String,
    /// SHA-256 of the network in it, architecture and weights, filled in likewise.
    pub network_sha256: String,
    /// Its architecture, filled in from the file.
    pub model: AdmConfig,
    /// Its diffusion process, filled in likewise.
    pub process: Process,
    /// The images.
    pub data: DirectionData,
    /// Where the edit goes.
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
            source: String::new(),
            source_key: String::new(),
            source_sha256: String::new(),
            network_sha256: String::new(),
            model: AdmConfig::default(),
            process: Process::default(),
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
    /// The networks that can say how far an edit got.
    pub const NETWORKS: [&str; 3] = ["clip-b16", "clip-b32", "digits"];

    /// Trajectories in an epoch of `images`.
    #[must_use]
    pub fn steps_per_epoch(&self, images: usize) -> u64 {
        images.div_ceil(self.pace.batch.max(1)).max(1) as u64
    }

    /// Length and intervals for `images`, as the loop takes them.
    pub(crate) fn loop_of(&self, images: usize) -> (LoopPlan, OutputPlan) {
        let steps = self
            .pace
            .epochs
            .saturating_mul(self.steps_per_epoch(images));
        let pace = LoopPlan {
            steps,
            batch: self.pace.batch,
            max_skips: self.pace.max_skips,
            ..LoopPlan::default()
        };
        let output = OutputPlan {
            log_every: self.output.log_every,
            checkpoint_every: self.output.checkpoint_every,
            keep: self.output.keep,
            sample_every: 0,
            ..OutputPlan::default()
        };
        (pace, output)
    }

    /// As [`RunPlan::validate`], without the architecture and the process, which may still be unknown because a file tells them.
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
        let said = [
            (
                "source",
                &self.source,
                "a model to edit with; give --model FILE",
            ),
            (
                "data.path",
                &self.data.path,
                "an image folder or \"digits\"; give --data",
            ),
            (
                "goal.from",
                &self.goal.from,
                "what the images show; give --from \"face\", or a preset as --config smiling",
            ),
            (
                "goal.to",
                &self.goal.to,
                "what they are to show; give --to \"smiling face\", or a preset as --config smiling",
            ),
        ];
        if let Some((key, _, what)) = said.into_iter().find(|(_, text, _)| text.trim().is_empty()) {
            return wrong(key, format!("expected {what}"));
        }
        if self.goal.from == self.goal.to {
            return wrong(
                "goal.to",
                format!(
                    "both texts are {:?}, and there is no direction between them",
                    self.goal.to
                ),
            );
        }
        let network = self.goal.network.as_str();
        if !Self::NETWORKS.contains(&network) {
            return wrong(
                "goal.network",
                format!(
                    "expected one of {}, found {network:?}",
                    Self::NETWORKS.join(", ")
                ),
            );
        }
        for (key, value) in [
            ("goal.clip", self.goal.clip),
            ("goal.l1", self.goal.l1),
            ("goal.identity", self.goal.identity),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return wrong(key, format!("expected a number, 0 or more, found {value}"));
            }
        }
        if self.goal.clip == 0.0 {
            return wrong(
                "goal.clip",
                "with weight 0 there is nothing to train".into(),
            );
        }
        if network == "digits" {
            for (key, text) in [("goal.from", &self.goal.from), ("goal.to", &self.goal.to)] {
                if !text.parse::<u8>().is_ok_and(|class| class < 10) {
                    return wrong(
                        key,
                        format!("the digits' classifier knows 0 to 9, found {text:?}"),
                    );
                }
            }
            if self.goal.identity > 0.0 {
                return wrong("goal.identity", "digits have no face".into());
            }
        }
        check_classes("data.classes", self.data.classes.as_deref())?;
        let walk = &self.walk;
        check_counts(&[
            ("output.samples", self.output.samples as u64, 0, 64),
            ("loop.epochs", self.pace.epochs, 1, MAX_RUN_STEPS),
            ("walk.t_0", walk.t_0 as u64, 1, MAX_STEPS as u64 - 1),
        ])?;
        let (pace, output) = self.loop_of(1);
        check_pace(&pace, &output)?;
        check_optim(&self.optim)?;
        for (key, n) in [
            ("walk.inversion", walk.inversion),
            ("walk.steps", walk.steps),
            ("output.sampler", self.output.sampler),
        ] {
            if !(2..=walk.t_0 + 1).contains(&n) {
                return wrong(
                    key,
                    format!(
                        "expected 2 to {}, as many steps as there are up to t_0, found {n}",
                        walk.t_0 + 1
                    ),
                );
            }
        }
        if walk.t_edit > walk.t_0 || training_sequence(walk.steps, walk.t_0, walk.t_edit).is_empty()
        {
            return wrong(
                "walk.t_edit",
                format!(
                    "expected a step from 0 to t_0 = {}, found {}",
                    walk.t_0, walk.t_edit
                ),
            );
        }
        if walk.t_boost > walk.t_0 {
            return wrong(
                "walk.t_boost",
                format!(
                    "expected a step from 0 to t_0 = {}, found {}",
                    walk.t_0, walk.t_boost
                ),
            );
        }
        Ok(())
    }
}

impl RunPlan for DirectionPlan {
    const VERB: &'static str = "edit train";

    fn validate(&self) -> Result<(), PlanError> {
        let wrong = |key: &str, problem: String| {
            Err(PlanError {
                key: key.to_owned(),
                problem,
            })
        };
        self.validate_settings()?;
        self.model.validate().map_err(|e| PlanError {
            key: format!("model.{}", e.field),
            problem: e.problem,
        })?;
        check_process(&self.process)?;
        if let Err(problem) = self.process.check_editable() {
            return wrong("process", problem.to_string());
        }
        if self.walk.t_0 >= self.process.diffusion_steps {
            return wrong(
                "walk.t_0",
                format!(
                    "the model's process has the steps 0 to {}, found {}",
                    self.process.diffusion_steps - 1,
                    self.walk.t_0
                ),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> DirectionPlan {
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

    #[test]
    fn impossible_plans_name_the_key() {
        type Change = fn(&mut DirectionPlan);
        let broken: [(&str, Change); 21] = [
            ("source", |p| p.source.clear()),
            ("data.path", |p| p.data.path.clear()),
            ("goal.from", |p| p.goal.from = " ".into()),
            ("goal.to", |p| p.goal.to = "face".into()),
            ("goal.network", |p| p.goal.network = "clip-l14".into()),
            ("goal.from", |p| p.goal.network = "digits".into()),
            ("goal.clip", |p| p.goal.clip = 0.0),
            ("goal.l1", |p| p.goal.l1 = f64::NAN),
            ("data.classes", |p| p.data.classes = Some(vec![10])),
            ("loop.epochs", |p| p.pace.epochs = 0),
            ("loop.batch", |p| p.pace.batch = 0),
            ("walk.steps", |p| p.walk.steps = 1),
            ("walk.t_edit", |p| p.walk.t_edit = 1000),
            ("walk.t_boost", |p| p.walk.t_boost = 1000),
            ("walk.inversion", |p| p.walk.inversion = 1001),
            ("output.sampler", |p| p.output.sampler = 1),
            ("output.sampler", |p| {
                (p.walk.t_0, p.walk.t_edit, p.walk.t_boost) = (30, 10, 0);
                (p.walk.inversion, p.walk.steps) = (20, 20);
            }),
            ("process", |p| {
                (p.process.rescale_timesteps, p.process.diffusion_steps) = (true, 2000);
            }),
            ("walk.t_0", |p| p.walk.t_0 = 1000),
            ("walk.t_0", |p| p.walk.t_0 = usize::MAX),
            ("optim.lr_every", |p| p.optim.lr_every = 0),
        ];
        for (key, change) in broken {
            let mut plan = plan();
            change(&mut plan);
            assert_eq!(plan.validate().unwrap_err().key, key);
        }
    }
}
