//! Whether a network computes and predicts as a plan says.

use crate::plan::{Plan, PlanError};
use candle_core::DType;
use sdft_diffusion::{PredictionType, Trainable};

/// Fails unless the network has the prediction type of the process.
pub(crate) fn check_prediction_type<M>(
    plan: &Plan<M>,
    found: PredictionType,
) -> Result<(), PlanError> {
    let expected = plan.process.prediction_type;
    if expected == found {
        return Ok(());
    }
    Err(PlanError {
        key: "process.prediction_type".into(),
        problem: format!("the plan says {expected}, this network predicts {found}"),
    })
}

/// Fails unless the network computes as the plan says.
pub(crate) fn check_compute_mode<M>(
    plan: &Plan<M>,
    network: &dyn Trainable,
) -> Result<(), PlanError> {
    let (asked, has) = (plan.steps.precision.compute_dtype(), network.compute_mode());
    let name = |dtype: DType| dtype.as_str();
    if asked != has.dtype {
        return Err(PlanError {
            key: "loop.precision".into(),
            problem: format!(
                "the plan asks for feature maps in {}, this network computes in {}; expected a precision with {1}, or a network made for {0}",
                name(asked),
                name(has.dtype)
            ),
        });
    }
    if plan.steps.recompute != has.recompute {
        return Err(PlanError {
            key: "loop.recompute".into(),
            problem: format!(
                "the plan says {}, but this network {}",
                plan.steps.recompute,
                match has.recompute {
                    true => "recomputes its blocks",
                    false => "does not recompute its blocks",
                }
            ),
        });
    }
    Ok(())
}
