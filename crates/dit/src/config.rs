//! The configuration of a DiT.

use crate::ConfigError;
use crate::read::Fields;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The architecture of a DiT, with the field names and defaults of diffusers' `DiTTransformer2DModel`.
///
/// It is read from JSON by [`Self::from_json`] only, also through serde, so no field is ignored in silence. Fields of `config.json` that
/// can have one value only are checked and not kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct DitConfig {
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Channels of each head; the tokens have `num_attention_heads` times as many.
    pub attention_head_dim: usize,
    /// Channels of the images.
    pub in_channels: usize,
    /// Channels of the output: `in_channels`, or twice as many if the variance is learned. Null in a file is `in_channels`.
    pub out_channels: usize,
    /// Transformer blocks.
    pub num_layers: usize,
    /// Probability of dropping a feature after attention and inside the dense layers, in training only.
    pub dropout: f64,
    /// Queries, keys and values have a bias.
    pub attention_bias: bool,
    /// Side of the images, which sets the scale of the positions. The network runs at other sizes too.
    pub sample_size: usize,
    /// Side of a patch, which becomes one token.
    pub patch_size: usize,
    /// Number of classes; the table has one more row, the null class. 0 is an unconditional network.
    pub num_embeds_ada_norm: usize,
    /// Added to the variance by the norm before the dense layers; the other norms add 1e-6. The official code adds 1e-6 everywhere.
    pub norm_eps: f64,
    /// One embedder of time and class for all blocks, as in the official code, instead of one for each. diffusers has no such field.
    #[serde(skip_serializing_if = "is_false")]
    pub shared_embedder: bool,
    /// Subtracted from the number of frequencies of the timestep: 1 in diffusers, 0 in the official code. diffusers has no such field.
    #[serde(skip_serializing_if = "is_one")]
    pub freq_shift: f64,
}

fn is_false(shared: &bool) -> bool {
    !shared
}

fn is_one(shift: &f64) -> bool {
    *shift == 1.0
}

impl Default for DitConfig {
    /// diffusers' defaults: DiT-XL/2 without a learned variance.
    fn default() -> Self {
        Self {
            num_attention_heads: 16,
            attention_head_dim: 72,
            in_channels: 4,
            out_channels: 4,
            num_layers: 28,
            dropout: 0.0,
            attention_bias: true,
            sample_size: 32,
            patch_size: 2,
            num_embeds_ada_norm: 1000,
            norm_eps: 1e-5,
            shared_embedder: false,
            freq_shift: 1.0,
        }
    }
}

impl TryFrom<Map<String, Value>> for DitConfig {
    type Error = ConfigError;

    fn try_from(json: Map<String, Value>) -> Result<Self, ConfigError> {
        Self::from_json(&json)
    }
}

impl DitConfig {
    /// The configuration of a `config.json`, with the defaults of its class for absent fields. Fields that start with `_` are ignored,
    /// except that `_class_name` must be `DiTTransformer2DModel` (the default) or `Transformer2DModel`, its older name.
    ///
    /// Source: diffusers 0.42 `DiTTransformer2DModel`.
    ///
    /// # Errors
    /// The first field that is unknown, not supported or invalid.
    pub fn from_json(json: &Map<String, Value>) -> Result<Self, ConfigError> {
        let config = Fields::new(json)?.config()?;
        config.validate()?;
        Ok(config)
    }

    /// The fields of the `config.json` of the `DiTTransformer2DModel` that equals this network.
    ///
    /// # Errors
    /// `freq_shift`, where it is not that of diffusers: no weights make up for other frequencies.
    pub fn to_diffusers(&self) -> Result<Map<String, Value>, ConfigError> {
        if !is_one(&self.freq_shift) {
            return Err(ConfigError::new(
                "freq_shift",
                "1, the frequencies of the timestep in DiTTransformer2DModel",
                format!(
                    "{} (model.freq_shift=1 writes the file all the same, as diffusers' own conversion does; its images differ)",
                    self.freq_shift
                ),
            ));
        }
        let all = json!({
            "_class_name": "DiTTransformer2DModel",
            "num_attention_heads": self.num_attention_heads,
            "attention_head_dim": self.attention_head_dim,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "num_layers": self.num_layers,
            "dropout": self.dropout,
            "norm_num_groups": 32,
            "attention_bias": self.attention_bias,
            "sample_size": self.sample_size,
            "patch_size": self.patch_size,
            "activation_fn": "gelu-approximate",
            "num_embeds_ada_norm": self.num_embeds_ada_norm,
            "upcast_attention": false,
            "norm_type": "ada_norm_zero",
            "norm_elementwise_affine": false,
            "norm_eps": self.norm_eps,
        });
        match all {
            Value::Object(fields) => Ok(fields),
            // The value above is an object.
            _ => Ok(Map::new()),
        }
    }

    /// The weights of the `DiTTransformer2DModel` that equals this network: a shared embedder is repeated in every block.
    pub fn diffusers_tensors<'a, T: Clone + 'a>(
        &self,
        tensors: impl Iterator<Item = (&'a str, &'a T)>,
    ) -> Vec<(String, T)> {
        let mut all = Vec::new();
        for (name, tensor) in tensors {
            match name.strip_prefix("emb.") {
                None => all.push((name.to_owned(), tensor.clone())),
                Some(rest) => all.extend((0..self.num_layers).map(|block| {
                    let name = format!("transformer_blocks.{block}.norm1.emb.{rest}");
                    (name, tensor.clone())
                })),
            }
        }
        all
    }

    /// Channels of a token.
    pub fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Whether the network predicts the variance as well.
    pub fn learns_variance(&self) -> bool {
        self.out_channels == 2 * self.in_channels
    }

    /// Rows of the table of classes.
    pub(crate) fn rows(&self) -> usize {
        self.num_embeds_ada_norm + 1
    }

    /// The last norms and those before attention add this to the variance.
    pub(crate) const EPS: f64 = 1e-6;
}
