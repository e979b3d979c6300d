//! The U-Net as a network that can be trained: its variables, and the metadata of its file.

use crate::{TimeScaleShift, Unet2d, Unet2dConfig};
use candle_core::{Result, Tensor, Var};
use sdft_diffusion::{
    ComputeMode, Condition, KIND_KEY, MODEL_KEY, Network, Prediction, PredictionType, Trainable,
};
use sdft_nn::Params;
use std::collections::BTreeMap;

impl Unet2dConfig {
    /// The metadata of a file of such a network: its kind `unet2d`, and its configuration as JSON.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        // A struct of numbers, texts and lists always has JSON.
        let config = serde_json::to_string(self).unwrap_or_default();
        BTreeMap::from([
            (KIND_KEY.to_owned(), "unet2d".to_owned()),
            (MODEL_KEY.to_owned(), config),
        ])
    }
}

/// A [`Unet2d`] with the variables that it computes with.
#[derive(Clone, Debug)]
pub struct TrainableUnet2d {
    unet: Unet2d,
    vars: Vec<(String, Var)>,
    mode: ComputeMode,
}

impl TrainableUnet2d {
    /// A network that starts from a copy of `params`, predicts `prediction_type`, and computes as `mode` says.
    ///
    /// # Errors
    /// A configuration that cannot be trained; parameters that are missing or of another shape.
    pub fn new(
        params: &Params,
        config: &Unet2dConfig,
        prediction_type: PredictionType,
        mode: ComputeMode,
    ) -> Result<Self> {
        config.check_trainable().map_err(candle_core::Error::wrap)?;
        let (params, vars) = params.trainable()?;
        let unet = Unet2d::load(&params, config)?
            .with_prediction_type(prediction_type)
            .with_compute_dtype(mode.dtype);
        let unet = match mode.recompute {
            true => unet.recomputed(),
            false => unet,
        };
        Ok(Self { unet, vars, mode })
    }

    /// The network.
    pub fn unet(&self) -> &Unet2d {
        &self.unet
    }
}

impl Trainable for TrainableUnet2d {
    fn vars(&self) -> Vec<(String, Var)> {
        self.vars.clone()
    }

    fn predict(&self, xt: &Tensor, t: &[f32], condition: &Condition<'_>) -> Result<Prediction> {
        self.unet.predict_with(xt, t, condition)
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        self.unet.config().metadata()
    }

    fn compute_mode(&self) -> ComputeMode {
        self.mode
    }

    /// Constants that the next operation removes: what is added to all keys of an attention, or to a channel that is normalised alone.
    fn has_zero_gradient(&self, name: &str) -> bool {
        let config = self.unet.config();
        let is_added = name.ends_with(".conv1.bias")
            || name.contains(".time_emb_proj.")
                && config.resnet_time_scale_shift == TimeScaleShift::Default;
        let is_alone = |(known, var): &(String, Var)| {
            known == name && var.dims().first() == Some(&config.norm_num_groups)
        };
        name.ends_with(".to_k.bias") || is_added && self.vars.iter().any(is_alone)
    }
}
