//! Runs that train a diffusion network: their plan, its checks, and the networks that it needs.

use candle_core::{DType, Device};
use sdft_diffusion::{ComputeMode, Denoiser, Trainable};
use sdft_models::Architecture;
use sdft_nn::Params;
use sdft_train::PlanError;

/// A plan whose `[model]` section is an architecture.
pub type TrainPlan = sdft_train::Plan<Architecture>;

/// Checks a plan and its architecture.
pub(super) fn validate(plan: &TrainPlan) -> Result<(), PlanError> {
    plan.model.check_trainable().map_err(|error| PlanError {
        key: format!("model.{}", error.field),
        problem: error.problem,
    })?;
    plan.check_images(plan.model.image_size())?;
    plan.validate()
}

/// The networks of a run.
pub(crate) struct Networks {
    /// The network in training.
    pub(crate) network: Box<dyn Trainable>,
    /// The frozen source model, unless the run starts from random weights.
    pub(crate) source: Option<Box<dyn Denoiser>>,
}

/// The networks of a plan on a device; `source` are the weights of the source model.
pub(crate) fn networks(
    plan: &TrainPlan,
    source: Option<Params>,
    device: &Device,
) -> candle_core::Result<Networks> {
    let Some(source) = source else {
        let start = Params::init(&plan.model.specs()?, plan.seed, device)?;
        return Ok(Networks {
            network: trainable(&start, plan)?,
            source: None,
        });
    };
    let start = source.to(DType::F32, device)?;
    let dtype = plan.steps.precision.compute_dtype();
    let frozen = plan
        .model
        .load(&start, plan.process.prediction_type, dtype)?;
    Ok(Networks {
        network: trainable(&start, plan)?,
        source: Some(frozen),
    })
}

/// A network that starts from a copy of `params` and computes as the plan says.
pub(crate) fn trainable(
    params: &Params,
    plan: &TrainPlan,
) -> candle_core::Result<Box<dyn Trainable>> {
    let mode = ComputeMode {
        dtype: plan.steps.precision.compute_dtype(),
        recompute: plan.steps.recompute,
    };
    let kind = plan.process.prediction_type;
    plan.model.trainable(params, kind, mode)
}
