//! The transformer as a network that can be trained: its variables, and the metadata of its file.

use crate::{Dit, DitConfig};
use candle_core::{Result, Tensor, Var};
use sdft_diffusion::{
    ComputeMode, Condition, KIND_KEY, MODEL_KEY, Network, Prediction, PredictionType, Trainable,
};
use sdft_nn::Params;
use std::collections::BTreeMap;

impl DitConfig {
    /// The metadata of a file of such a network: its kind `dit`, and its configuration as JSON.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        // A struct of numbers always has JSON.
        let config = serde_json::to_string(self).unwrap_or_default();
        BTreeMap::from([
            (KIND_KEY.to_owned(), "dit".to_owned()),
            (MODEL_KEY.to_owned(), config),
        ])
    }
}

/// A [`Dit`] with the variables that it computes with.
#[derive(Clone, Debug)]
pub struct TrainableDit {
    dit: Dit,
    vars: Vec<(String, Var)>,
    frozen: Vec<(String, Tensor)>,
    mode: ComputeMode,
}

impl TrainableDit {
    /// A network that starts from a copy of `params`, predicts `prediction_type`, and computes in `mode`.
    ///
    /// # Errors
    /// A configuration that cannot be trained; parameters that are missing or of another shape.
    pub fn new(
        params: &Params,
        config: &DitConfig,
        prediction_type: PredictionType,
        mode: ComputeMode,
    ) -> Result<Self> {
        config.check_trainable().map_err(candle_core::Error::wrap)?;
        let (params, vars) = params.trainable()?;
        let dit = Dit::load(&params, config)?
            .with_prediction_type(prediction_type)
            .with_compute_dtype(mode.dtype);
        let dit = match mode.recompute {
            true => dit.recomputed(),
            false => dit,
        };
        Ok(Self {
            dit,
            vars,
            frozen: params.frozen(),
            mode,
        })
    }

    /// The network.
    pub fn dit(&self) -> &Dit {
        &self.dit
    }
}

impl Trainable for TrainableDit {
    fn vars(&self) -> Vec<(String, Var)> {
        self.vars.clone()
    }

    fn buffers(&self) -> Vec<(String, Tensor)> {
        self.frozen.clone()
    }

    fn predict(&self, xt: &Tensor, t: &[f32], condition: &Condition<'_>) -> Result<Prediction> {
        self.dit.predict_with(xt, t, condition)
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        self.dit.config().metadata()
    }

    fn pulls_back(&self) -> bool {
        false
    }

    fn compute_mode(&self) -> ComputeMode {
        self.mode
    }

    /// Biases of keys add a constant to all keys, which the softmax removes.
    fn has_zero_gradient(&self, name: &str) -> bool {
        name.ends_with(".attn1.to_k.bias")
    }
}
