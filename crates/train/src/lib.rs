//! The training loop: a plan in, a run folder out, and nothing lost in between.
//!
//! ```text
//! runs/<name>/plan.toml            everything resolved, before step 0
//!             log.jsonl            one JSON object per interval; what depends on the clock stands under "time"
//!             events.out.tfevents  the same and the pictures, for TensorBoard
//!             samples/step-N.png   the source model's samples beside the target's, from the same noise
//!             checkpoints/step-N/  weights, moving average, optimiser, position, SHA256SUMS of all
//!             best.safetensors     the moving average at the best evaluation, where there are any
//!             final.safetensors    the moving average
//!             SHA256SUMS           of the two
//! ```
//! A step draws its timesteps and noise as functions of (seed, step, sample), so a run that is killed and resumed ends like one
//! that was not: same weights, same average, same moments, same log lines apart from their times.
//!
//! # Example: a plan is checked before anything happens
//! ```
//! use sdft_train::{DataPlan, Plan};
//!
//! let plan = Plan { data: DataPlan { path: "faces".into(), ..DataPlan::default() }, ..Plan::default() };
//! assert_eq!(plan.validate().unwrap_err().key, "source");
//! ```
//!
//! **Invariant:** opens no network connection, and never writes over the only good copy of anything.

pub use crate::{
    audit::audit_gradients,
    classifier::{
        Accuracy, ClassifierData, ClassifierModel, ClassifierOutput, ClassifierPlan,
        ClassifierSetup, DomainPlan, LevelAccuracy, start_classifier, train_classifier,
    },
    direction::{
        DirectionData, DirectionLoop, DirectionOutput, DirectionPlan, DirectionSetup, GoalPlan,
        WalkPlan, train_direction,
    },
    drive::{Ending, Progress, StepReport},
    error::{Result, TrainError},
    evaluator::Evaluator,
    folder::{RunFolder, RunPlan, free_run_folder, runs_near},
    follow::{Follower, follow},
    learner::{Learner, Outcome, PendingStep},
    pick::{RunModel, model_of_run, verify_recorded},
    plan::{
        Accumulate, AuxSampling, BestBy, DataPlan, DistillSampling, EvalPlan, LoopPlan, LossPlan,
        LrSchedule, Method, OptimPlan, OptimizerKind, OutputPlan, Plan, PlanError, Precision,
    },
    preview::{contact_sheet, sheet, to_images, to_pictures, to_tensor},
    run::{Setup, run},
};

mod audit;
mod checksums;
mod classifier;
mod direction;
mod drive;
mod error;
mod evaluator;
mod folder;
mod follow;
mod learner;
mod log;
mod pick;
mod plan;
mod preview;
mod run;
mod snapshot;
mod tensorboard;
mod update;
