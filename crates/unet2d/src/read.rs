//! Reading `config.json`, field by field.

use crate::{ConfigError, Unet2dConfig};
use sdft_fields::{CLASS, COUNT, FLAG, NUMBER, brief, check_known, field};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Every field that diffusers has, and our own.
const KNOWN: [&str; 29] = [
    "sample_size",
    "in_channels",
    "out_channels",
    "center_input_sample",
    "time_embedding_type",
    "time_embedding_dim",
    "freq_shift",
    "flip_sin_to_cos",
    "down_block_types",
    "mid_block_type",
    "up_block_types",
    "block_out_channels",
    "layers_per_block",
    "mid_block_scale_factor",
    "downsample_padding",
    "downsample_type",
    "upsample_type",
    "dropout",
    "act_fn",
    "attention_head_dim",
    "norm_num_groups",
    "attn_norm_num_groups",
    "norm_eps",
    "resnet_time_scale_shift",
    "add_attention",
    "class_embed_type",
    "num_class_embeds",
    "num_train_timesteps",
    "time_adapter_rank",
];

const COUNT_OR_NULL: &str = "a whole number or null";
const RESAMPLE: &str = "conv, resnet or null";

/// The fields of a file, all of which are known.
pub(crate) struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(crate) fn new(json: &'a Map<String, Value>) -> Result<Self, ConfigError> {
        const UNET: &str = "UNet2DModel";
        if let Some(class) = json.get(CLASS).filter(|class| *class != UNET) {
            return Err(ConfigError::new(CLASS, UNET, brief(class)));
        }
        check_known(json, UNET, &KNOWN)?;
        Ok(Self(json))
    }

    /// The value of a field; the default if it is absent.
    fn get<T: DeserializeOwned>(
        &self,
        name: &str,
        expected: &str,
        default: T,
    ) -> Result<T, ConfigError> {
        field(self.0, name, expected, default)
    }

    pub(crate) fn config(&self, d: Unet2dConfig) -> Result<Unet2dConfig, ConfigError> {
        Ok(Unet2dConfig {
            sample_size: self.get(
                "sample_size",
                "a side, [height, width] or null",
                d.sample_size,
            )?,
            in_channels: self.get("in_channels", COUNT, d.in_channels)?,
            out_channels: self.get("out_channels", COUNT, d.out_channels)?,
            center_input_sample: self.get("center_input_sample", FLAG, d.center_input_sample)?,
            time_embedding_type: self.get(
                "time_embedding_type",
                "positional or learned",
                d.time_embedding_type,
            )?,
            time_embedding_dim: self.get(
                "time_embedding_dim",
                COUNT_OR_NULL,
                d.time_embedding_dim,
            )?,
            freq_shift: self.get("freq_shift", NUMBER, d.freq_shift)?,
            flip_sin_to_cos: self.get("flip_sin_to_cos", FLAG, d.flip_sin_to_cos)?,
            down_block_types: self.get(
                "down_block_types",
                "a list of DownBlock2D, AttnDownBlock2D, ResnetDownsampleBlock2D",
                d.down_block_types,
            )?,
            mid_block_type: self.get(
                "mid_block_type",
                "UNetMidBlock2D or null",
                d.mid_block_type,
            )?,
            up_block_types: self.get(
                "up_block_types",
                "a list of UpBlock2D, AttnUpBlock2D, ResnetUpsampleBlock2D",
                d.up_block_types,
            )?,
            block_out_channels: self.get(
                "block_out_channels",
                "a list of whole numbers",
                d.block_out_channels,
            )?,
            layers_per_block: self.get("layers_per_block", COUNT, d.layers_per_block)?,
            mid_block_scale_factor: self.get(
                "mid_block_scale_factor",
                NUMBER,
                d.mid_block_scale_factor,
            )?,
            downsample_padding: self.get("downsample_padding", "0 or 1", d.downsample_padding)?,
            downsample_type: self.get("downsample_type", RESAMPLE, d.downsample_type)?,
            upsample_type: self.get("upsample_type", RESAMPLE, d.upsample_type)?,
            dropout: self.get("dropout", NUMBER, d.dropout)?,
            act_fn: self.get("act_fn", "silu, swish or relu", d.act_fn)?,
            attention_head_dim: self.get(
                "attention_head_dim",
                COUNT_OR_NULL,
                d.attention_head_dim,
            )?,
            norm_num_groups: self.get("norm_num_groups", COUNT, d.norm_num_groups)?,
            attn_norm_num_groups: self.get(
                "attn_norm_num_groups",
                COUNT_OR_NULL,
                d.attn_norm_num_groups,
            )?,
            norm_eps: self.get("norm_eps", NUMBER, d.norm_eps)?,
            resnet_time_scale_shift: self.get(
                "resnet_time_scale_shift",
                "default or scale_shift",
                d.resnet_time_scale_shift,
            )?,
            add_attention: self.get("add_attention", FLAG, d.add_attention)?,
            class_embed_type: self.get(
                "class_embed_type",
                "timestep, identity or null",
                d.class_embed_type,
            )?,
            num_class_embeds: self.get("num_class_embeds", COUNT_OR_NULL, d.num_class_embeds)?,
            num_train_timesteps: self.get(
                "num_train_timesteps",
                COUNT_OR_NULL,
                d.num_train_timesteps,
            )?,
            time_adapter_rank: self.get("time_adapter_rank", COUNT_OR_NULL, d.time_adapter_rank)?,
        })
    }
}
