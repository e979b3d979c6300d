//! Everything that decides a run, as it is in `plan.toml`.

use sdft_adapters::AdapterConfig;
use sdft_diffusion::{PredictionType, Process};
use sdft_eval::SetFeatures;
use sdft_losses::{Distillation, Objective, Variational};
use sdft_schedule::{Respacing, Weighting};
use serde::{Deserialize, Serialize};

pub use check::{
    MAX_RUN_STEPS, PlanError, adapter_error, check_counts, check_name, check_optim, check_pace,
    check_process,
};

pub use data::{ClassesPlan, DataPlan, check_classes};
pub use methods::{AnchorPlan, AntPlan, BankPlan, DogfitPlan, KeepPlan, PairwisePlan};
pub use only::OnlyPlan;
pub use output::{ModelFormat, OutputPlan};
pub use pace::{LoopPlan, Precision};
pub use size::{Size, SizeError};

mod advice;
mod check;
mod data;
mod methods;
mod only;
mod output;
mod pace;
mod size;

/// What is trained, and against what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Starts from random weights.
    Scratch,
    /// Starts from the source weights, with the base loss alone.
    Naive,
    /// Starts from the source weights and distills the frozen source model.
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

/// Which images the source model sees for the image term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DistillSampling {
    /// All.
    All,
    /// All with a large weight `w(t)`, and a random part of the others with a larger factor: the same expectation at a lower cost.
    Weighted,
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

/// The learning rate after warm-up. If a direction is trained, its steps are epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LrSchedule {
    /// Does not change.
    Constant,
    /// Falls to 0 at the last step.
    Linear,
    /// Falls along half a cosine to `lr_final` times the start.
    Cosine,
    /// Is multiplied by `lr_factor` after every `lr_every` steps.
    Step,
}

/// The objective, Eq. (2) to (6).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossPlan {
    /// Weight of the squared error of what the network predicts: `constant`, `p2-GAMMA`, .., and `edm` for a continuous process
    /// ([`Process::usual_base`]).
    #[serde(with = "text")]
    pub base: Weighting,
    /// Leaves the variational term out even if the network learns its variance.
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
    /// The quantity in which student and source model are compared: `epsilon`, `sample` or `v_prediction`; written only if it is not
    /// the noise.
    #[serde(skip_serializing_if = "PredictionType::is_epsilon")]
    pub distill_space: PredictionType,
    /// Which images the source model sees.
    pub distill_sampling: DistillSampling,
    /// `uniform`, `loss-second-moment`, or `power-P` for Diff-Tuning's `(t + 1)^P`. A continuous process draws its levels from its own distribution.
    pub timesteps: String,
    /// The share of class labels that are replaced by the null class; with 0 there is none, and no classifier-free guidance. Written only
    /// if it is not 0.1.
    #[serde(skip_serializing_if = "is_usual_label_dropout")]
    pub label_dropout: f64,
    /// DogFit. This and the sections below are written only if they are not the default, which is to do nothing.
    #[serde(skip_serializing_if = "methods::is_default")]
    pub dogfit: DogfitPlan,
    /// DDPM-PA.
    #[serde(skip_serializing_if = "methods::is_default")]
    pub pairwise: PairwisePlan,
    /// ANT.
    #[serde(skip_serializing_if = "methods::is_default")]
    pub ant: AntPlan,
    /// Diff-Tuning.
    #[serde(skip_serializing_if = "methods::is_default")]
    pub keep: KeepPlan,
    /// L2-SP and EWC.
    #[serde(skip_serializing_if = "methods::is_default")]
    pub anchor: AnchorPlan,
    /// Samples of the source model, where a method needs them.
    #[serde(skip_serializing_if = "methods::is_default")]
    pub bank: BankPlan,
}

/// The share that Ho and Salimans 2022 recommend.
const LABEL_DROPOUT: f64 = 0.1;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_usual_label_dropout(share: &f64) -> bool {
    *share == LABEL_DROPOUT
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
            distill_space: PredictionType::Epsilon,
            distill_sampling: DistillSampling::Weighted,
            timesteps: "uniform".to_owned(),
            label_dropout: LABEL_DROPOUT,
            dogfit: DogfitPlan::default(),
            pairwise: PairwisePlan::default(),
            ant: AntPlan::default(),
            keep: KeepPlan::default(),
            anchor: AnchorPlan::default(),
            bank: BankPlan::default(),
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
    /// How it changes.
    pub schedule: LrSchedule,
    /// Cosine only: the fraction of `lr` at the last step.
    pub lr_final: f64,
    /// Step only: steps between two changes.
    pub lr_every: u64,
    /// Step only: the factor of a change.
    pub lr_factor: f64,
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
    /// Rate of the moving average: the share of the old average that a step keeps.
    pub ema: f64,
    /// Step n (0-based) uses the rate min(ema, (1 + n)/(10 + n)), so that the average of a short run follows its weights.
    pub ema_ramp: bool,
}

impl Default for OptimPlan {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Adamw,
            lr: 2e-5,
            schedule: LrSchedule::Constant,
            lr_final: 0.1,
            lr_every: 20,
            lr_factor: 0.9,
            warmup: 0,
            betas: (0.9, 0.999),
            eps: 1e-8,
            momentum: 0.0,
            weight_decay: 0.0,
            clip: 0.0,
            ema: 0.9999,
            ema_ramp: true,
        }
    }
}

/// How the best checkpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BestBy {
    /// The smallest KID against the training images.
    Kid,
    /// Digits and emoji only: the largest share of samples in the target's style with a class or an attribute that the target set lacks.
    Coverage,
}

/// Evaluation while training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalPlan {
    /// Steps between two evaluations; 0 means none.
    pub every: u64,
    /// Samples of an evaluation, always from the same noise.
    pub samples: usize,
    /// Steps of their sampler, as a respacing.
    pub sampler: String,
    /// How the best checkpoint is chosen.
    pub best: BestBy,
    /// Evaluations without improvement after which the run ends; 0 means it does not.
    pub patience: u64,
    /// The network whose features KID is computed in. Digits and emoji have their judges.
    pub features: SetFeatures,
    /// The file of its weights; if empty, the one in the cache of the Hugging Face client. Digits and emoji need none.
    pub weights: String,
    /// SHA-256 of the weights, set when they are found: scores of other weights cannot be compared.
    pub weights_sha256: String,
}

impl Default for EvalPlan {
    fn default() -> Self {
        Self {
            every: 0,
            samples: 64,
            sampler: "ddim40".into(),
            best: BestBy::Kid,
            patience: 0,
            features: SetFeatures::Inception,
            weights: String::new(),
            weights_sha256: String::new(),
        }
    }
}

/// A whole run. `M` is the type of the `[model]` section, from which the network is made; the trainer does not read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[serde(bound(deserialize = "M: Deserialize<'de> + Default"))]
pub struct Plan<M = toml::Table> {
    /// The name of the run and of its folder.
    pub name: String,
    /// The seed of every random number of the run.
    pub seed: u64,
    /// What is trained, and against what.
    pub method: Method,
    /// The source model: a file, or `digits-source` or `emoji-source` for an embedded one; empty for `scratch`.
    pub source: String,
    /// The part of the source file to take where it holds several; empty chooses the moving average.
    pub source_key: String,
    /// SHA-256 of the source file, set when it is read.
    pub source_sha256: String,
    /// The architecture.
    pub model: M,
    /// Which weights are trained; written only if not all.
    #[serde(skip_serializing_if = "AdapterConfig::is_default")]
    pub adapter: AdapterConfig,
    /// The diffusion process.
    pub process: Process,
    /// The training images.
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
    /// Evaluation while training.
    pub eval: EvalPlan,
}

impl<M: Default> Default for Plan<M> {
    /// SDFT with the paper's settings for MetFaces. The user sets data and source.
    fn default() -> Self {
        Self {
            name: "run".into(),
            seed: 0,
            method: Method::Sdft,
            source: String::new(),
            source_key: String::new(),
            source_sha256: String::new(),
            model: M::default(),
            adapter: AdapterConfig::default(),
            process: Process::default(),
            data: DataPlan::default(),
            loss: LossPlan::default(),
            optim: OptimPlan::default(),
            steps: LoopPlan::default(),
            output: OutputPlan::default(),
            eval: EvalPlan::default(),
        }
    }
}

impl Plan {
    /// SDFT with the paper's settings for MetFaces. The plan and the model's file record the source model and the images by these names.
    pub fn sdft(source: impl Into<String>, images: impl Into<String>) -> Self {
        let mut plan = Self::default();
        (plan.source, plan.data.path) = (source.into(), images.into());
        plan
    }
}

/// The most images that are sampled at once.
const SAMPLED: usize = 16;

impl<M> Plan<M> {
    /// The objective of the plan's method, for a network that learns its variance or does not.
    pub fn objective(&self, learns_variance: bool) -> Objective {
        let variational = if learns_variance && !self.loss.simple_only {
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
            distill_space: self.loss.distill_space,
            keep: (self.loss.keep.weight > 0.0).then_some(self.loss.keep.weight),
            pairwise: self.pairwise(),
            ..base
        }
    }

    /// Images that go through the network at once.
    pub fn micro_batch(&self) -> usize {
        self.steps.at_once()
    }

    /// Images that are sampled at once for grids and evaluations. They are at most as many as a micro-batch, so that sampling needs no
    /// more memory than training.
    #[must_use]
    pub fn sampled_at_once(&self) -> usize {
        self.micro_batch().clamp(1, SAMPLED)
    }
}

/// Values that are text in TOML.
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
