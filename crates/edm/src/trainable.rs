//! The network as one that can be trained: its variables, its constants and frozen parameters, and the metadata of its file.

use crate::{ConfigError, EdmConfig, EdmNet};
use candle_core::{Result, Tensor, Var};
use sdft_diffusion::{ComputeMode, Condition, KIND_KEY, MODEL_KEY, Network, Prediction, Trainable};
use sdft_nn::Params;
use std::collections::BTreeMap;

/// The kind of network in a file's metadata.
const KIND: &str = "edm";

impl EdmConfig {
    /// The metadata of a file of such a network: its kind and its configuration as JSON.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        // A struct of numbers, texts and lists always has JSON.
        let config = serde_json::to_string(self).unwrap_or_default();
        BTreeMap::from([
            (KIND_KEY.to_owned(), KIND.to_owned()),
            (MODEL_KEY.to_owned(), config),
        ])
    }

    /// Fails unless the network can be built, and so trained.
    ///
    /// # Errors
    /// The field, what was expected and what was found.
    pub fn check_trainable(&self) -> std::result::Result<(), ConfigError> {
        self.validate()
    }

    /// EDM's networks predict no variance.
    pub fn learns_variance(&self) -> bool {
        false
    }
}

/// An [`EdmNet`] with the variables that it computes with.
#[derive(Clone, Debug)]
pub struct TrainableEdm {
    net: EdmNet,
    vars: Vec<(String, Var)>,
    frozen: Vec<(String, Tensor)>,
    mode: ComputeMode,
}

impl TrainableEdm {
    /// A network that starts from a copy of `params` and computes in `mode`.
    ///
    /// # Errors
    /// A configuration that cannot be trained; parameters that are missing or of another shape.
    pub fn new(params: &Params, config: &EdmConfig, mode: ComputeMode) -> Result<Self> {
        config.check_trainable().map_err(candle_core::Error::wrap)?;
        let (params, vars) = params.clone().freeze(EdmNet::is_constant).trainable()?;
        let net = EdmNet::load(&params, config)?.with_compute_dtype(mode.dtype);
        let net = match mode.recompute {
            true => net.recomputed(),
            false => net,
        };
        Ok(Self {
            net,
            vars,
            frozen: params.frozen(),
            mode,
        })
    }

    /// The network.
    pub fn net(&self) -> &EdmNet {
        &self.net
    }
}

impl Trainable for TrainableEdm {
    fn vars(&self) -> Vec<(String, Var)> {
        self.vars.clone()
    }

    fn buffers(&self) -> Vec<(String, Tensor)> {
        self.frozen.clone()
    }

    fn predict(&self, xt: &Tensor, t: &[f32], condition: &Condition<'_>) -> Result<Prediction> {
        self.net.predict_with(xt, t, condition)
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        self.net.config().metadata()
    }

    fn pulls_back(&self) -> bool {
        false
    }

    fn compute_mode(&self) -> ComputeMode {
        self.mode
    }

    fn augment_dim(&self) -> usize {
        self.net.config().model.augment_dim()
    }

    fn has_zero_gradient(&self, name: &str) -> bool {
        // Augmentation labels may be missing, and every image of a batch may have the null class.
        ["model.map_augment.weight", "model.map_label.weight"].contains(&name)
    }
}
