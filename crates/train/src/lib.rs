//! The training loop: a plan in, a run folder out. It trains any network that implements [`Trainable`](sdft_diffusion::Trainable).
//!
//! ```text
//! runs/<name>/plan.toml            the resolved plan, before step 0
//!             log.jsonl            one JSON object per interval; everything that depends on the clock is under "time"
//!             events.out.tfevents  the same and the pictures, for TensorBoard
//!             sessions.jsonl       where, how and how long each process computed, and its notes
//!             samples/step-N.png   the source model's samples next to the target's, from the same noise
//!             checkpoints/step-N/  weights, moving average, optimiser, position, SHA256SUMS of all
//!             best.safetensors     the moving average at the best evaluation, if the plan evaluates
//!             final.safetensors    the moving average
//!             adapter.safetensors  the adapter, if not all weights are trained; checkpoints then hold only its tensors
//!             SHA256SUMS           of these
//! ```
//! A step draws its timesteps and noise as functions of (seed, step, sample) ([`Recipe`]). A run that is killed and resumed ends like
//! one that was not: same weights, same average, same moments, same log lines apart from their times.
//!
//! [`run`] fine-tunes a denoising network. A [`Task`] of another kind gets the same guards, logs and checkpoints from [`drive`].
//! [`Learner`] takes single steps.
//!
//! # Example: a plan is checked before anything happens
//! ```
//! use sdft_train::Plan;
//!
//! let mut plan = <Plan>::default();
//! plan.data.path = "faces".into();
//! assert_eq!(plan.validate().unwrap_err().key, "source");
//! ```
//!
//! **Invariant:** knows no architecture, opens no network connection, and never replaces the only good copy of anything.

pub use crate::{
    audit::audit_gradients,
    checkpoint::{Checkpoint, Position, Tensors, TrainingState},
    drive::{DriveSetup, Ending, drive, due},
    error::{Result, TrainError},
    evaluator::{Evaluator, SampleJudge},
    folder::{RunFolder, RunPlan},
    follow::{Follower, follow},
    images::StepImages,
    kept::KeptDraw,
    learner::Learner,
    log::Log,
    methods::LogProbGradient,
    model_files::{ModelFiles, with_buffers, without_buffers},
    near::{free_run_folder, runs_near},
    outcome::{Outcome, PendingStep},
    pick::{RunModel, model_of_run, verify_recorded},
    plan::{
        Accumulate, AnchorPlan, AntPlan, AuxSampling, BankPlan, BestBy, ClassesPlan, DataPlan,
        DistillSampling, DogfitPlan, EvalPlan, KeepPlan, LoopPlan, LossPlan, LrSchedule,
        MAX_RUN_STEPS, Method, ModelFormat, OnlyPlan, OptimPlan, OptimizerKind, OutputPlan,
        PairwisePlan, Plan, PlanError, Precision, Size, SizeError, adapter_error, check_classes,
        check_counts, check_name, check_optim, check_pace, check_process,
    },
    preview::{
        contact_sheet, drawn_for_grid, sheet, to_images, to_pictures, to_screens, to_tensor,
    },
    progress::{NoopProgress, Progress, StepReport},
    provenance::{model_metadata, provenance},
    recipe::{AuxDraw, PartDraw, Recipe, StepDraw, noise_levels},
    run::{MethodInputs, Setup, run},
    sessions::{Machine, Recorder, SessionLine},
    source::Source,
    task::{Finished, StepOutcome, Task},
    updater::{Snapshot, Updater},
    values::{Frozen, with_values},
};

mod audit;
mod best;
mod checkpoint;
mod checksums;
mod course;
mod drive;
mod error;
mod evaluator;
mod fine_tuning;
mod fit;
mod folder;
mod follow;
mod images;
mod inputs;
mod kept;
mod learner;
mod log;
mod methods;
mod model_files;
mod near;
mod outcome;
mod parts;
mod pick;
mod plan;
mod preview;
mod progress;
mod provenance;
mod recipe;
mod run;
mod sessions;
mod source;
mod task;
mod tensorboard;
mod updater;
mod values;
