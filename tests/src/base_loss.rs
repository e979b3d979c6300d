//! The base loss of the reference implementation.

use anyhow::Result;
use sdft_losses::Variational;
use sdft_schedule::Weighting;
use sdft_testing::{flag, number_or};
use serde_json::Value;

/// The base loss of a `diffusion` object.
pub(crate) fn base_loss(object: &Value) -> Result<(Weighting, Variational)> {
    let gamma = number_or(object, "p2_gamma", 0.0)?;
    let k = number_or(object, "p2_k", 1.0)?;
    let variational = match (
        flag(object, "learn_sigma", false)?,
        flag(object, "rescale_learned_sigmas", false)?,
    ) {
        (false, _) => Variational::Off,
        (true, true) => Variational::Rescaled,
        (true, false) => Variational::Plain,
    };
    Ok((Weighting::P2 { k, gamma }, variational))
}
