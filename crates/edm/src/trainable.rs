//! The network in training, and the metadata of its file.

use crate::{ConfigError, EdmConfig, EdmNet};
use candle_core::{Result, Var};
use sdft_diffusion::{ComputeMode, TrainableNetwork, Trained, config_metadata};
use sdft_nn::Params;
use std::collections::BTreeMap;

impl EdmConfig {
    /// The metadata of a file of such a network: its kind and its configuration as JSON.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        config_metadata("edm", self)
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

/// An [`EdmNet`] that starts from a copy of `params` and computes in `mode`.
///
/// # Errors
/// A configuration that cannot be trained; parameters that are missing or of another shape.
pub fn trainable_edm(
    params: &Params,
    config: &EdmConfig,
    mode: ComputeMode,
) -> Result<Trained<EdmNet>> {
    config.check_trainable().map_err(candle_core::Error::wrap)?;
    let (params, vars) = params.clone().freeze(EdmNet::is_constant).trainable()?;
    let net = EdmNet::load(&params, config)?.with_compute_dtype(mode.dtype);
    let net = match mode.recompute {
        true => net.recomputed(),
        false => net,
    };
    Ok(Trained::new(net, vars, params.frozen(), mode))
}

impl TrainableNetwork for EdmNet {
    fn metadata(&self) -> BTreeMap<String, String> {
        self.config().metadata()
    }

    fn augment_dim(&self) -> usize {
        self.config().model.augment_dim()
    }

    /// Augmentation labels may be missing, and every image of a batch may have the null class.
    fn has_zero_gradient(&self, name: &str, _: &[(String, Var)]) -> bool {
        ["model.map_augment.weight", "model.map_label.weight"].contains(&name)
    }
}
