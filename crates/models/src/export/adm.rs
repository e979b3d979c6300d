//! ADM networks as the `UNet2DModel` that equals them: other names, and queries, keys and values apart.

use crate::ArchitectureError;
use candle_core::{Result, Tensor, bail};
use sdft_adm::AdmConfig;
use sdft_nn::Params;
use sdft_unet2d::Unet2dConfig;
use serde_json::{Map, Value, json};

/// The `UNet2DModel` that computes the same.
///
/// # Errors
/// The field that has no counterpart.
pub(super) fn config(adm: &AdmConfig) -> std::result::Result<Unet2dConfig, ArchitectureError> {
    let differs = |field: &str, problem: String| {
        Err(ArchitectureError {
            field: field.to_owned(),
            problem,
        })
    };
    let widths: Vec<usize> = (0..adm.levels()).map(|level| adm.width(level)).collect();
    if widths.first() != Some(&adm.model_channels) {
        return differs(
            "channel_mult",
            format!(
                "expected 1 for the first level, whose width UNet2DModel also gives to the time embedding, found {}",
                adm.channel_mult[0]
            ),
        );
    }
    if !adm.resblock_updown && !adm.conv_resample && adm.levels() > 1 {
        return differs(
            "conv_resample",
            "expected true, as UNet2DModel has no resampling without parameters outside of residual blocks, found false".to_owned(),
        );
    }
    let head_dim = head_dim(adm)?;
    let kind = |level: usize, attention: &str, resnet: &str, plain: &str| {
        let name = match (attends(adm, level), adm.resblock_updown) {
            (true, _) => attention,
            (false, true) => resnet,
            (false, false) => plain,
        };
        Value::from(name)
    };
    let down = |level| {
        kind(
            level,
            "AttnDownBlock2D",
            "ResnetDownsampleBlock2D",
            "DownBlock2D",
        )
    };
    let up = |level| kind(level, "AttnUpBlock2D", "ResnetUpsampleBlock2D", "UpBlock2D");
    let resample = match adm.resblock_updown {
        true => "resnet",
        false => "conv",
    };
    let fields = json!({
        "sample_size": adm.image_size,
        "in_channels": adm.in_channels,
        "out_channels": adm.out_channels,
        "block_out_channels": widths,
        "layers_per_block": adm.num_res_blocks,
        "down_block_types": (0..adm.levels()).map(down).collect::<Vec<_>>(),
        "up_block_types": (0..adm.levels()).rev().map(up).collect::<Vec<_>>(),
        "downsample_type": resample,
        "upsample_type": resample,
        "downsample_padding": 1,
        "attention_head_dim": head_dim,
        "norm_num_groups": adm.norm_groups,
        "attn_norm_num_groups": adm.norm_groups,
        "norm_eps": 1e-5,
        "resnet_time_scale_shift": if adm.use_scale_shift_norm { "scale_shift" } else { "default" },
        "num_class_embeds": (adm.num_classes > 0).then_some(adm.num_classes),
        "dropout": adm.dropout,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
    });
    let fields = match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    Ok(Unet2dConfig::from_json(&fields)?)
}

fn attends(adm: &AdmConfig, level: usize) -> bool {
    adm.attention_resolutions.contains(&(1 << level))
}

/// Channels per head, for which a `UNet2DModel` has only one number; `None` for one head everywhere.
fn head_dim(adm: &AdmConfig) -> std::result::Result<Option<usize>, ArchitectureError> {
    let last = adm.levels().saturating_sub(1);
    // The middle attends in any case, with the heads of the encoder.
    let encoder = (0..adm.levels()).filter(|level| *level == last || attends(adm, *level));
    let decoder = (0..adm.levels()).filter(|level| attends(adm, *level));
    let blocks = encoder
        .map(|level| (adm.width(level), adm.heads(adm.width(level))))
        .chain(decoder.map(|level| (adm.width(level), adm.decoder_heads(adm.width(level)))));
    let blocks: Vec<(usize, usize)> = blocks.collect();
    if blocks.iter().all(|(_, heads)| *heads == 1) {
        return Ok(None);
    }
    let dims: Vec<usize> = blocks.iter().map(|(width, heads)| width / heads).collect();
    match dims.iter().all(|dim| *dim == dims[0]) {
        true => Ok(dims.first().copied()),
        false => Err(ArchitectureError {
            field: "num_heads".to_owned(),
            problem: format!(
                "expected the same number of channels per head at every level, as UNet2DModel has, found {dims:?}"
            ),
        }),
    }
}

/// All parameters under diffusers' names.
pub(super) fn tensors(adm: &AdmConfig, params: &Params) -> Result<Vec<(String, Tensor)>> {
    let mut all = Vec::new();
    for (name, tensor) in params.iter() {
        let Some((theirs, module, leaf)) = place(adm, name) else {
            bail!("{name} has no name in diffusers");
        };
        match module.as_str() {
            "qkv" => {
                let heads = match name.starts_with("output_blocks.") {
                    true => adm.decoder_heads(tensor.dim(0)? / 3),
                    false => adm.heads(tensor.dim(0)? / 3),
                };
                let heads = if adm.use_new_attention_order {
                    1
                } else {
                    heads
                };
                let parts = split(&flat(tensor)?, heads)?;
                for (part, tensor) in ["to_q", "to_k", "to_v"].into_iter().zip(parts) {
                    all.push((format!("{theirs}.{part}.{leaf}"), tensor));
                }
            }
            "proj_out" => all.push((format!("{theirs}.to_out.0.{leaf}"), flat(tensor)?)),
            "" => all.push((format!("{theirs}.{leaf}"), tensor.clone())),
            module => all.push((format!("{theirs}.{module}.{leaf}"), tensor.clone())),
        }
    }
    Ok(all)
}

/// diffusers' name of the block of a parameter, the module in it (`qkv` and `proj_out` as here), and `weight` or `bias`.
fn place(adm: &AdmConfig, name: &str) -> Option<(String, String, String)> {
    let fixed = [
        ("time_embed.0.", "time_embedding.linear_1"),
        ("time_embed.2.", "time_embedding.linear_2"),
        ("label_emb.", "class_embedding"),
        ("input_blocks.0.0.", "conv_in"),
        ("out.0.", "conv_norm_out"),
        ("out.2.", "conv_out"),
    ];
    for (ours, theirs) in fixed {
        if let Some(leaf) = name.strip_prefix(ours) {
            return Some((theirs.to_owned(), String::new(), leaf.to_owned()));
        }
    }
    let (block, rest) = name.split_once('.')?;
    let (number, rest) = numbered(rest)?;
    let step = adm.num_res_blocks + 1;
    let (theirs, rest) = match block {
        "middle_block" => match number {
            1 => ("mid_block.attentions.0".to_owned(), rest),
            _ => (format!("mid_block.resnets.{}", number / 2), rest),
        },
        "input_blocks" => {
            let (level, i) = ((number - 1) / step, (number - 1) % step);
            let (part, rest) = numbered(rest)?;
            let what = match (part, i == adm.num_res_blocks) {
                (_, true) => "downsamplers.0".to_owned(),
                (0, false) => format!("resnets.{i}"),
                (_, false) => format!("attentions.{i}"),
            };
            (format!("down_blocks.{level}.{what}"), rest)
        }
        "output_blocks" => {
            let (level, i) = (number / step, number % step);
            let (part, rest) = numbered(rest)?;
            let attends = attends(adm, adm.levels().checked_sub(level + 1)?);
            let what = match (part, attends) {
                (0, _) => format!("resnets.{i}"),
                (1, true) => format!("attentions.{i}"),
                _ => "upsamplers.0".to_owned(),
            };
            (format!("up_blocks.{level}.{what}"), rest)
        }
        _ => return None,
    };
    let (module, leaf) = rest.rsplit_once('.')?;
    let module = match module {
        "in_layers.0" => "norm1",
        "in_layers.2" => "conv1",
        "emb_layers.1" => "time_emb_proj",
        "out_layers.0" => "norm2",
        "out_layers.3" => "conv2",
        "skip_connection" => "conv_shortcut",
        "norm" => "group_norm",
        "op" => "conv",
        "conv" | "qkv" | "proj_out" => module,
        _ => return None,
    };
    Some((theirs, module.to_owned(), leaf.to_owned()))
}

/// `12.rest` as its number and the rest.
fn numbered(name: &str) -> Option<(usize, &str)> {
    let (number, rest) = name.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// A convolution over one place as a linear layer; biases stay.
fn flat(tensor: &Tensor) -> Result<Tensor> {
    match tensor.rank() {
        3 => tensor.squeeze(2),
        _ => Ok(tensor.clone()),
    }
}

/// Queries, keys and values of a tensor that has them head after head. With one head it is ADM's new order.
fn split(joined: &Tensor, heads: usize) -> Result<[Tensor; 3]> {
    let rows = joined.dim(0)?;
    if heads == 0 || !rows.is_multiple_of(3 * heads) {
        bail!("{rows} rows do not split into queries, keys and values of {heads} heads");
    }
    let width = rows / 3 / heads;
    let part = |third: usize| {
        let slices = (0..heads).map(|head| joined.narrow(0, (3 * head + third) * width, width));
        Tensor::cat(&slices.collect::<Result<Vec<_>>>()?, 0)
    };
    Ok([part(0)?, part(1)?, part(2)?])
}
