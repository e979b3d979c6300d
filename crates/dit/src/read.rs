//! Reading `config.json`, field by field.

use crate::{ConfigError, DitConfig};
use sdft_fields::{CLASS, COUNT, FLAG, NUMBER, brief, check_known, field, whole};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

const CURRENT: &str = "DiTTransformer2DModel";
const OLDER: &str = "Transformer2DModel";

/// The fields of [`DitConfig`], and one that diffusers has and that changes nothing.
const KNOWN: [&str; 14] = [
    "num_attention_heads",
    "attention_head_dim",
    "in_channels",
    "out_channels",
    "num_layers",
    "dropout",
    "attention_bias",
    "sample_size",
    "patch_size",
    "num_embeds_ada_norm",
    "norm_eps",
    "shared_embedder",
    "freq_shift",
    "norm_num_groups",
];

/// Fields with one value that is supported, which is also the default of `DiTTransformer2DModel`.
fn fixed() -> [(&'static str, Value); 4] {
    [
        ("activation_fn", "gelu-approximate".into()),
        ("norm_type", "ada_norm_zero".into()),
        ("norm_elementwise_affine", false.into()),
        ("upcast_attention", false.into()),
    ]
}

/// Fields that only `Transformer2DModel` has, and the values with which it is a DiT.
fn older_fields() -> [(&'static str, [Value; 2]); 9] {
    let unset = || [Value::Null, false.into()];
    [
        ("cross_attention_dim", unset()),
        ("num_vector_embeds", unset()),
        ("use_linear_projection", unset()),
        ("only_cross_attention", unset()),
        ("double_self_attention", unset()),
        ("attention_type", ["default".into(), Value::Null]),
        ("caption_channels", unset()),
        ("interpolation_scale", [Value::Null, json!(1)]),
        ("use_additional_conditions", unset()),
    ]
}

/// The defaults of `Transformer2DModel` that are not those of `DiTTransformer2DModel`.
fn older_defaults() -> [(&'static str, Value); 10] {
    [
        ("attention_head_dim", json!(88)),
        ("in_channels", Value::Null),
        ("num_layers", json!(1)),
        ("attention_bias", json!(false)),
        ("sample_size", Value::Null),
        ("patch_size", Value::Null),
        ("activation_fn", json!("geglu")),
        ("num_embeds_ada_norm", Value::Null),
        ("norm_type", json!("layer_norm")),
        ("norm_elementwise_affine", json!(true)),
    ]
}

/// The fields of a file, all of which are known.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    pub(crate) fn new(json: &Map<String, Value>) -> Result<Self, ConfigError> {
        let class = json.get(CLASS).map_or(CURRENT, |class| {
            class.as_str().unwrap_or("another type of value")
        });
        let mut fields = json.clone();
        fields.retain(|name, _| !name.starts_with('_'));
        if class == OLDER {
            for (field, values) in older_fields() {
                match fields.remove(field) {
                    Some(found) if !values.contains(&whole(&found)) => {
                        let expected = format!("{}, as in a DiT", values[0]);
                        return Err(ConfigError::new(field, expected, brief(&found)));
                    }
                    _ => {}
                }
            }
            for (field, value) in older_defaults() {
                fields.entry(field).or_insert(value);
            }
        } else if class != CURRENT {
            let expected = format!("{CURRENT} or {OLDER}");
            return Err(ConfigError::new(CLASS, expected, brief(&class.into())));
        }
        for (field, value) in fixed() {
            match fields.remove(field) {
                Some(found) if found != value => {
                    return Err(ConfigError::new(field, brief(&value), brief(&found)));
                }
                _ => {}
            }
        }
        check_known(&fields, class, &KNOWN)?;
        Ok(Self(fields))
    }

    /// The value of a field; the default if it is absent.
    fn get<T: DeserializeOwned>(
        &self,
        name: &str,
        expected: &str,
        default: T,
    ) -> Result<T, ConfigError> {
        field(&self.0, name, expected, default)
    }

    pub(crate) fn config(&self) -> Result<DitConfig, ConfigError> {
        let d = DitConfig::default();
        let in_channels = self.get("in_channels", COUNT, d.in_channels)?;
        let out_channels: Option<usize> =
            self.get("out_channels", "a whole number or null", None)?;
        Ok(DitConfig {
            num_attention_heads: self.get("num_attention_heads", COUNT, d.num_attention_heads)?,
            attention_head_dim: self.get("attention_head_dim", COUNT, d.attention_head_dim)?,
            in_channels,
            out_channels: out_channels.unwrap_or(in_channels),
            num_layers: self.get("num_layers", COUNT, d.num_layers)?,
            dropout: self.get("dropout", NUMBER, d.dropout)?,
            attention_bias: self.get("attention_bias", FLAG, d.attention_bias)?,
            sample_size: self.get("sample_size", COUNT, d.sample_size)?,
            patch_size: self.get("patch_size", COUNT, d.patch_size)?,
            num_embeds_ada_norm: self.get("num_embeds_ada_norm", COUNT, d.num_embeds_ada_norm)?,
            norm_eps: self.get("norm_eps", NUMBER, d.norm_eps)?,
            shared_embedder: self.get("shared_embedder", FLAG, d.shared_embedder)?,
            freq_shift: self.get("freq_shift", NUMBER, d.freq_shift)?,
        })
    }
}
