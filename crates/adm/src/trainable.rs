//! The U-Net in training, and the metadata of its file.

use crate::{AdmConfig, ConfigError, Unet};
use candle_core::{Result, Var};
use sdft_diffusion::{ComputeMode, PredictionType, TrainableNetwork, Trained, config_metadata};
use sdft_nn::Params;
use std::collections::BTreeMap;

impl AdmConfig {
    /// The metadata of a file of such a network: its kind (`unet` or `classifier`) and its configuration as JSON.
    pub fn metadata(&self, kind: &str) -> BTreeMap<String, String> {
        config_metadata(kind, self)
    }

    /// Fails unless the U-Net can be built and trained.
    ///
    /// # Errors
    /// The field, what was expected and what was found.
    pub fn check_trainable(&self) -> std::result::Result<(), ConfigError> {
        self.validate()?;
        match self.learns_variance() || self.out_channels == self.in_channels {
            true => Ok(()),
            false => Err(ConfigError {
                field: "out_channels",
                problem: format!(
                    "expected {} or {}, found {}",
                    self.in_channels,
                    2 * self.in_channels,
                    self.out_channels
                ),
            }),
        }
    }
}

/// A [`Unet`] that starts from a copy of `params`, predicts `prediction_type`, and computes in `mode`.
///
/// # Errors
/// A configuration that cannot be trained; parameters that are missing or of another shape.
pub fn trainable_unet(
    params: &Params,
    config: &AdmConfig,
    prediction_type: PredictionType,
    mode: ComputeMode,
) -> Result<Trained<Unet>> {
    config.check_trainable().map_err(candle_core::Error::wrap)?;
    let (params, vars) = params.trainable()?;
    let unet = Unet::load(&params, config)?
        .with_prediction_type(prediction_type)
        .with_compute_dtype(mode.dtype);
    let unet = match mode.recompute {
        true => unet.recomputed(),
        false => unet,
    };
    Ok(Trained::new(unet, vars, params.frozen(), mode))
}

impl TrainableNetwork for Unet {
    fn metadata(&self) -> BTreeMap<String, String> {
        self.config().metadata("unet")
    }

    fn has_zero_gradient(&self, name: &str, vars: &[(String, Var)]) -> bool {
        is_removed_by_norm(name, vars, self.config().norm_groups)
    }
}

/// Whether a residual block's norm removes all effect of this variable: a constant that is added to a channel which is normalised alone,
/// with as many groups as channels. Its gradient is zero.
pub fn is_removed_by_norm(name: &str, vars: &[(String, Var)], norm_groups: usize) -> bool {
    let mut vars = vars.iter();
    name.ends_with(".in_layers.2.bias")
        && vars.any(|(known, var)| known == name && var.elem_count() == norm_groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_cannot_be_trained_name_the_field() {
        let field = |config: AdmConfig| config.check_trainable().unwrap_err().field;
        let heads = AdmConfig {
            num_head_channels: 48,
            ..AdmConfig::default()
        };
        assert_eq!(field(heads), "num_head_channels");
        let five = AdmConfig {
            out_channels: 5,
            ..AdmConfig::default()
        };
        assert_eq!(field(five), "out_channels");
        AdmConfig::default().check_trainable().unwrap();
        let grey_with_classes = AdmConfig {
            in_channels: 1,
            out_channels: 2,
            num_classes: 10,
            ..AdmConfig::default()
        };
        grey_with_classes.check_trainable().unwrap();
    }
}
