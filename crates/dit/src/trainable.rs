//! The transformer in training, and the metadata of its file.

use crate::{Dit, DitConfig};
use candle_core::{Result, Var};
use sdft_diffusion::{ComputeMode, PredictionType, TrainableNetwork, Trained, config_metadata};
use sdft_nn::Params;
use std::collections::BTreeMap;

impl DitConfig {
    /// The metadata of a file of such a network: its kind `dit`, and its configuration as JSON.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        config_metadata("dit", self)
    }
}

/// A [`Dit`] that starts from a copy of `params`, predicts `prediction_type`, and computes in `mode`.
///
/// # Errors
/// A configuration that cannot be trained; parameters that are missing or of another shape.
pub fn trainable_dit(
    params: &Params,
    config: &DitConfig,
    prediction_type: PredictionType,
    mode: ComputeMode,
) -> Result<Trained<Dit>> {
    config.check_trainable().map_err(candle_core::Error::wrap)?;
    let (params, vars) = params.trainable()?;
    let dit = Dit::load(&params, config)?
        .with_prediction_type(prediction_type)
        .with_compute_dtype(mode.dtype);
    let dit = match mode.recompute {
        true => dit.recomputed(),
        false => dit,
    };
    Ok(Trained::new(dit, vars, params.frozen(), mode))
}

impl TrainableNetwork for Dit {
    fn metadata(&self) -> BTreeMap<String, String> {
        self.config().metadata()
    }

    /// Biases of keys add a constant to all keys, which the softmax removes.
    fn has_zero_gradient(&self, name: &str, _: &[(String, Var)]) -> bool {
        name.ends_with(".attn1.to_k.bias")
    }
}
