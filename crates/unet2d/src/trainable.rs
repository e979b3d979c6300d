//! The U-Net in training, and the metadata of its file.

use crate::{TimeScaleShift, Unet2d, Unet2dConfig};
use candle_core::{Result, Var};
use sdft_diffusion::{ComputeMode, PredictionType, TrainableNetwork, Trained, config_metadata};
use sdft_nn::Params;
use std::collections::BTreeMap;

impl Unet2dConfig {
    /// The metadata of a file of such a network: its kind `unet2d`, and its configuration as JSON.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        config_metadata("unet2d", self)
    }
}

/// A [`Unet2d`] that starts from a copy of `params`, predicts `prediction_type`, and computes in `mode`.
///
/// # Errors
/// A configuration that cannot be trained; parameters that are missing or of another shape.
pub fn trainable_unet2d(
    params: &Params,
    config: &Unet2dConfig,
    prediction_type: PredictionType,
    mode: ComputeMode,
) -> Result<Trained<Unet2d>> {
    config.check_trainable().map_err(candle_core::Error::wrap)?;
    let (params, vars) = params.trainable()?;
    let unet = Unet2d::load(&params, config)?
        .with_prediction_type(prediction_type)
        .with_compute_dtype(mode.dtype);
    let unet = match mode.recompute {
        true => unet.recomputed(),
        false => unet,
    };
    Ok(Trained::new(unet, vars, params.frozen(), mode))
}

impl TrainableNetwork for Unet2d {
    fn metadata(&self) -> BTreeMap<String, String> {
        self.config().metadata()
    }

    fn has_zero_gradient(&self, name: &str, _: &[(String, Var)]) -> bool {
        is_removed(name, self.config())
    }
}

/// Whether this parameter only adds a constant that is removed: by the softmax, to all keys of an attention; by a norm, to a channel that
/// it normalises alone.
fn is_removed(name: &str, config: &Unet2dConfig) -> bool {
    let is_alone = |width: Option<&usize>| width == Some(&config.norm_num_groups);
    let widths = &config.block_out_channels;
    let (levels, layers) = (config.levels(), config.layers_per_block);
    let parts: Vec<&str> = name.split('.').collect();
    match parts.as_slice() {
        [.., "to_k", "bias"] => true,
        ["down_blocks", level, .., layer, kind] if is_before_norm(layer, kind, config) => is_alone(
            level
                .parse()
                .ok()
                .and_then(|level: usize| widths.get(level)),
        ),
        ["up_blocks", index, .., layer, kind] if is_before_norm(layer, kind, config) => {
            let level = index
                .parse()
                .ok()
                .and_then(|index: usize| levels.checked_sub(index + 1));
            is_alone(level.and_then(|level| widths.get(level)))
        }
        ["mid_block", .., layer, kind] if is_before_norm(layer, kind, config) => {
            is_alone(widths.last())
        }
        // The end of the last level is followed by the last norm.
        [
            "up_blocks",
            index,
            "resnets",
            i,
            "conv2" | "conv_shortcut",
            "bias",
        ]
        | ["up_blocks", index, "attentions", i, "to_v", "bias"]
        | ["up_blocks", index, "attentions", i, "to_out", "0", "bias"]
        | ["up_blocks", index, "attentions", i, "adapter", "up", "bias"] => {
            index.parse() == Ok(levels - 1) && i.parse() == Ok(layers) && is_alone(widths.first())
        }
        _ => false,
    }
}

/// Whether a parameter of a residual block is added before the second norm.
fn is_before_norm(layer: &str, kind: &str, config: &Unet2dConfig) -> bool {
    let is_added = config.resnet_time_scale_shift == TimeScaleShift::Default;
    (layer == "conv1" && kind == "bias") || (layer == "time_emb_proj" && is_added)
}
