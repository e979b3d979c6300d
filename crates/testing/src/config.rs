//! Configurations of the reference implementations as those of this workspace.

use crate::case::Case;
use anyhow::{Result, anyhow, bail};
use sdft_adm::{AdmConfig, EncoderConfig, Pool};
use sdft_diffusion::{Diffusion, TimeUnit, Variance};
use sdft_schedule::{BetaSchedule, Respacing, Schedule, Weighting};
use serde_json::Value;

fn number(object: &Value, name: &str) -> Result<f64> {
    object
        .get(name)
        .and_then(Value::as_f64)
        .ok_or_else(|| anyhow!("{name} is missing or not a number"))
}

/// A number of a JSON object; `default` if it is missing or null.
///
/// # Errors
/// The value is not a number.
pub fn number_or(object: &Value, name: &str, default: f64) -> Result<f64> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(_) => number(object, name),
    }
}

fn count(object: &Value, name: &str) -> Result<usize> {
    let value = object
        .get(name)
        .and_then(Value::as_u64)
        .ok_or_else(|| anyhow!("{name} is missing or not a whole number"))?;
    Ok(usize::try_from(value)?)
}

/// A count; 0 where the reference has -1 or null.
fn count_or_zero(object: &Value, name: &str) -> Result<usize> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(0),
        Some(value) if value.as_i64() == Some(-1) => Ok(0),
        Some(_) => count(object, name),
    }
}

/// A boolean of a JSON object; `default` if it is missing or null.
///
/// # Errors
/// The value is not a boolean.
pub fn flag(object: &Value, name: &str, default: bool) -> Result<bool> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_bool()
            .ok_or_else(|| anyhow!("{name} must be true or false")),
    }
}

fn text<'a>(object: &'a Value, name: &str, default: &'a str) -> Result<&'a str> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_str()
            .ok_or_else(|| anyhow!("{name} must be a string, found {value}")),
    }
}

/// Refuses unknown fields, which may change the numbers, unless they are null or false.
fn only(object: &Value, what: &str, known: &[&str]) -> Result<()> {
    let fields = object
        .as_object()
        .ok_or_else(|| anyhow!("{what} must be an object, found {object}"))?;
    for (name, value) in fields {
        let off = matches!(value, Value::Null | Value::Bool(false));
        if !off && !known.contains(&name.as_str()) {
            bail!("{what}.{name} = {value} is not known");
        }
    }
    Ok(())
}

const MODEL: [&str; 18] = [
    "image_size",
    "in_channels",
    "model_channels",
    "out_channels",
    "num_res_blocks",
    "attention_resolutions",
    "dropout",
    "channel_mult",
    "conv_resample",
    "num_classes",
    "num_heads",
    "num_head_channels",
    "num_heads_upsample",
    "use_scale_shift_norm",
    "resblock_updown",
    "use_new_attention_order",
    "pool",
    // Saves memory in the reference implementation and changes no number.
    "use_checkpoint",
];

const DIFFUSION: [&str; 9] = [
    "noise_schedule",
    "diffusion_steps",
    "timestep_respacing",
    "learn_sigma",
    "sigma_small",
    "rescale_learned_sigmas",
    "rescale_timesteps",
    "p2_gamma",
    "p2_k",
];

fn list(object: &Value, name: &str) -> Result<Vec<f64>> {
    let values = object
        .get(name)
        .and_then(Value::as_array)
        .ok_or_else(|| anyhow!("{name} is missing or not a list"))?;
    values
        .iter()
        .map(|v| v.as_f64().ok_or_else(|| anyhow!("{name} holds {v}")))
        .collect()
}

/// The arguments of the reference's `UNetModel` as a configuration.
///
/// # Errors
/// A field is unknown, missing or of the wrong type.
pub fn adm_config(model: &Value) -> Result<AdmConfig> {
    only(model, "model", &MODEL)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked"
    )]
    let attention_resolutions = list(model, "attention_resolutions")?
        .into_iter()
        .map(|v| {
            if v >= 1.0 && v.fract() == 0.0 {
                Ok(v as usize)
            } else {
                bail!("attention_resolutions holds {v}")
            }
        })
        .collect::<Result<_>>()?;
    Ok(AdmConfig {
        image_size: count(model, "image_size")?,
        in_channels: count(model, "in_channels")?,
        out_channels: count(model, "out_channels")?,
        model_channels: count(model, "model_channels")?,
        channel_mult: list(model, "channel_mult")?,
        num_res_blocks: count(model, "num_res_blocks")?,
        attention_resolutions,
        num_heads: count_or_zero(model, "num_heads")?.max(1),
        num_head_channels: count_or_zero(model, "num_head_channels")?,
        num_heads_upsample: count_or_zero(model, "num_heads_upsample")?,
        use_scale_shift_norm: flag(model, "use_scale_shift_norm", false)?,
        resblock_updown: flag(model, "resblock_updown", false)?,
        conv_resample: flag(model, "conv_resample", true)?,
        use_new_attention_order: flag(model, "use_new_attention_order", false)?,
        num_classes: count_or_zero(model, "num_classes")?,
        dropout: number_or(model, "dropout", 0.0)?,
        norm_groups: 32,
        time_adapter_rank: None,
    })
}

/// The arguments of the reference's `EncoderUNetModel` as a configuration.
///
/// # Errors
/// A field is unknown, missing or of the wrong type.
pub fn encoder_config(model: &Value) -> Result<EncoderConfig> {
    let pool = match model.get("pool").and_then(Value::as_str) {
        Some("adaptive") => Pool::Adaptive,
        Some("attention") => Pool::Attention,
        Some("spatial") => Pool::Spatial,
        Some("spatial_v2") => Pool::SpatialV2,
        _ => bail!("unknown pool {}", model["pool"]),
    };
    Ok(EncoderConfig {
        net: adm_config(model)?,
        pool,
    })
}

/// The respaced schedule of a `diffusion` object.
///
/// # Errors
/// A field is missing or invalid.
pub fn schedule(object: &Value) -> Result<Schedule> {
    let kind: BetaSchedule = text(object, "noise_schedule", "linear")?.parse()?;
    let respacing: Respacing = text(object, "timestep_respacing", "")?.parse()?;
    Ok(Schedule::new(kind, count(object, "diffusion_steps")?)?.respaced(&respacing)?)
}

/// The process of a `diffusion` object.
///
/// # Errors
/// A field is unknown, missing or invalid.
pub fn diffusion(object: &Value) -> Result<Diffusion> {
    only(object, "diffusion", &DIFFUSION)?;
    let variance = match (
        flag(object, "learn_sigma", false)?,
        flag(object, "sigma_small", false)?,
    ) {
        (true, _) => Variance::LearnedRange,
        (false, true) => Variance::FixedSmall,
        (false, false) => Variance::FixedLarge,
    };
    Ok(Diffusion {
        schedule: schedule(object)?,
        variance,
        time: match flag(object, "rescale_timesteps", false)? {
            true => TimeUnit::Thousandths,
            false => TimeUnit::Steps,
        },
        continuous: None,
        unbounded: false,
        sampling: None,
    })
}

/// The weighting of a distillation loss.
///
/// # Errors
/// The name is unknown, or its parameter is missing.
pub fn weighting(object: &Value) -> Result<Weighting> {
    only(object, "weight", &["name", "gamma"])?;
    let gamma = || number(object, "gamma");
    Ok(match object.get("name").and_then(Value::as_str) {
        Some("snr") => Weighting::Snr {
            k: 1.0,
            gamma: gamma()?,
        },
        Some("constant") => Weighting::Constant,
        Some("min_snr_eps") => Weighting::MinSnrEps { cap: gamma()? },
        Some("min_snr_clamp") => Weighting::MinSnr { cap: gamma()? },
        _ => bail!("unknown weight {}", object["name"]),
    })
}

impl Case {
    /// The process of `config.diffusion`.
    ///
    /// # Errors
    /// A field is unknown, missing or invalid.
    pub fn diffusion(&self) -> Result<Diffusion> {
        diffusion(self.get("diffusion")?)
    }
}
