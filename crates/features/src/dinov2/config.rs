//! The configuration of a DINOv2, from its `config.json` or from the shapes of its tensors.

use crate::Error;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Channels of a head in every published DINOv2.
const HEAD_CHANNELS: usize = 64;

/// Fields of `config.json` that change nothing at inference.
const INERT: [&str; 20] = [
    "apply_layernorm",
    "architectures",
    "attention_probs_dropout_prob",
    "attn_implementation",
    "drop_path_rate",
    "dtype",
    "hidden_dropout_prob",
    "id2label",
    "initializer_range",
    "label2id",
    "layerscale_value",
    "model_type",
    "num_labels",
    "out_features",
    "out_indices",
    "problem_type",
    "reshape_hidden_states",
    "stage_names",
    "torch_dtype",
    "transformers_version",
];

/// The activation of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    /// `x Phi(x)`.
    Gelu,
    /// GELU with its approximation by tanh.
    #[serde(alias = "gelu_pytorch_tanh")]
    GeluNew,
    /// `max(x, 0)`.
    Relu,
    /// `x sigmoid(x)`.
    #[serde(alias = "swish")]
    Silu,
}

/// Sizes of a DINOv2. The fields, but for the last, have the names and defaults of transformers' `Dinov2Config`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dinov2Config {
    /// Channels of a token.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Heads of each attention; they divide the channels.
    pub num_attention_heads: usize,
    /// Channels inside a feed-forward block, divided by those of a token.
    pub mlp_ratio: f64,
    /// The activation of the feed-forward blocks without gates.
    pub hidden_act: HiddenAct,
    /// Whether feed-forward blocks are gated (SwiGLU), as in the giant.
    pub use_swiglu_ffn: bool,
    /// Added to the variance of a token.
    pub layer_norm_eps: f64,
    /// Side of the images for which there are positions.
    pub image_size: usize,
    /// Side of a patch.
    pub patch_size: usize,
    /// Channels of the images.
    pub num_channels: usize,
    /// Whether the projections of queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the file has a token for masked patches, which only training uses.
    pub use_mask_token: bool,
    /// Added to the number of patches in the scale of interpolated positions. 0 in transformers; 0.1 in Meta's own program, which dgm-eval
    /// runs.
    #[serde(skip)]
    pub interpolate_offset: f64,
}

impl Default for Dinov2Config {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            mlp_ratio: 4.0,
            hidden_act: HiddenAct::Gelu,
            use_swiglu_ffn: false,
            layer_norm_eps: 1e-6,
            image_size: 224,
            patch_size: 14,
            num_channels: 3,
            qkv_bias: true,
            use_mask_token: true,
            interpolate_offset: 0.0,
        }
    }
}

impl Dinov2Config {
    /// ViT-L/14, whose features FD-DINOv2 compares.
    pub fn large() -> Self {
        Self {
            hidden_size: 1024,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            image_size: 518,
            interpolate_offset: 0.1,
            ..Self::default()
        }
    }

    /// The configuration that a `config.json` states. Missing fields have transformers' defaults.
    ///
    /// # Errors
    /// A field that is unknown or has a value that is not supported, or sizes that do not fit together.
    pub fn from_json(config: &Map<String, Value>) -> Result<Self, Error> {
        let mut fields = config.clone();
        fields.retain(|name, _| !name.starts_with('_') && !INERT.contains(&name.as_str()));
        for name in ["image_size", "patch_size"] {
            // Both may be height and width.
            if let Some(Value::Array(sides)) = fields.get(name)
                && let [height, width] = &sides[..]
                && height == width
            {
                let side = height.clone();
                fields.insert(name.to_owned(), side);
            }
        }
        let config: Self = serde_json::from_value(Value::Object(fields))
            .map_err(|error| Error::Config(format!("config.json of DINOv2: {error}")))?;
        config.check()?;
        Ok(config)
    }

    /// The configuration of a network whose tensors have these shapes, interpolating positions as Meta's own program does. Heads have 64
    /// channels, as in every published DINOv2.
    ///
    /// # Errors
    /// Tensors that are missing, or sizes that do not fit together.
    pub fn of_shapes<'a>(shape: impl Fn(&str) -> Option<&'a [usize]>) -> Result<Self, Error> {
        let find = |name: &str| {
            shape(name).ok_or_else(|| Error::Config(format!("no tensor {name} of a DINOv2")))
        };
        let projection = "embeddings.patch_embeddings.projection.weight";
        let [hidden_size, num_channels, patch_size, _] = *find(projection)? else {
            return Err(Error::Config(format!("{projection} has no 4 dimensions")));
        };
        let [_, positions, _] = *find("embeddings.position_embeddings")? else {
            return Err(Error::Config(
                "embeddings.position_embeddings has no 3 dimensions".into(),
            ));
        };
        let layer = |i: usize, name: &str| shape(&format!("encoder.layer.{i}.{name}"));
        let num_hidden_layers = (0..)
            .take_while(|&i| layer(i, "norm1.weight").is_some())
            .count();
        let gated = layer(0, "mlp.weights_out.weight");
        // A gated block has two thirds of the channels that the ratio says.
        let inner = match gated.or_else(|| layer(0, "mlp.fc2.weight")) {
            Some(&[_, inner]) => inner * if gated.is_some() { 3 } else { 2 } / 2,
            _ => 4 * hidden_size,
        };
        let config = Self {
            hidden_size,
            num_hidden_layers,
            num_attention_heads: hidden_size / HEAD_CHANNELS,
            mlp_ratio: inner as f64 / hidden_size.max(1) as f64,
            use_swiglu_ffn: gated.is_some(),
            image_size: positions.saturating_sub(1).isqrt() * patch_size,
            patch_size,
            num_channels,
            qkv_bias: layer(0, "attention.q_proj.bias").is_some(),
            use_mask_token: shape("embeddings.mask_token").is_some(),
            interpolate_offset: 0.1,
            ..Self::default()
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Error> {
        let wrong = |problem: String| Err(Error::Config(format!("DINOv2: {problem}")));
        let (c, heads) = (self.hidden_size, self.num_attention_heads);
        if c == 0 || heads == 0 || !c.is_multiple_of(heads) {
            return wrong(format!(
                "expected a number of heads that divides the {c} channels, found {heads}"
            ));
        }
        if self.num_hidden_layers == 0 || self.num_channels == 0 {
            return wrong("expected at least one layer and one channel".into());
        }
        if self.patch_size == 0 || self.patch_size > self.image_size {
            return wrong(format!(
                "expected patches that fit into images of {} pixels, found {} pixels",
                self.image_size, self.patch_size
            ));
        }
        let sound = |value: f64| value.is_finite() && value > 0.0;
        if !sound(self.mlp_ratio) || !sound(self.layer_norm_eps) || self.inner() == 0 {
            return wrong(format!(
                "expected a positive mlp_ratio and layer_norm_eps, found {} and {}",
                self.mlp_ratio, self.layer_norm_eps
            ));
        }
        Ok(())
    }

    /// Patches along a side of the images for which there are positions.
    pub(super) fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Channels inside a feed-forward block.
    pub(super) fn inner(&self) -> usize {
        let inner = (self.hidden_size as f64 * self.mlp_ratio) as usize;
        match self.use_swiglu_ffn {
            true => (inner * 2 / 3).next_multiple_of(8),
            false => inner,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dinov2;
    use serde_json::json;

    fn read(fields: Value) -> Result<Dinov2Config, Error> {
        Dinov2Config::from_json(fields.as_object().unwrap())
    }

    #[test]
    fn a_config_has_its_own_fields_and_defaults_and_nothing_is_ignored_in_silence() {
        let config = read(json!({
            "_name_or_path": "x", "architectures": ["Dinov2Model"], "hidden_dropout_prob": 0.1, "hidden_size": 1024,
            "image_size": [518, 518], "layer_norm_eps": 1e-6, "mlp_ratio": 4, "num_attention_heads": 16,
            "num_hidden_layers": 24, "patch_size": 14, "hidden_act": "gelu", "torch_dtype": "float32"
        }))
        .unwrap();
        let large = Dinov2Config {
            interpolate_offset: 0.0,
            ..Dinov2Config::large()
        };
        assert_eq!((config, large.inner()), (large, 4096));
        assert_eq!(read(json!({})).unwrap(), Dinov2Config::default());
        for (fields, named) in [
            (json!({"num_register_tokens": 4}), "num_register_tokens"),
            (json!({"hidden_act": "mish"}), "mish"),
            (json!({"patch_size": [14, 16]}), "invalid type"),
            (
                json!({"num_attention_heads": 7}),
                "divides the 768 channels",
            ),
            (json!({"patch_size": 0}), "0 pixels"),
            (json!({"mlp_ratio": -1}), "-1"),
        ] {
            let error = read(fields).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn shapes_state_the_configuration_of_every_published_size() {
        let sizes = [
            (384, 12, false),
            (768, 12, false),
            (1024, 24, false),
            (1536, 40, true),
        ];
        for (hidden_size, num_hidden_layers, use_swiglu_ffn) in sizes {
            let config = Dinov2Config {
                hidden_size,
                num_hidden_layers,
                num_attention_heads: hidden_size / 64,
                use_swiglu_ffn,
                ..Dinov2Config::large()
            };
            let specs = Dinov2::specs(&config).unwrap();
            let shape = |name: &str| {
                let spec = specs.iter().find(|spec| spec.name == name);
                spec.map(|spec| spec.shape.as_slice())
            };
            assert_eq!(Dinov2Config::of_shapes(shape).unwrap(), config);
        }
        let error = Dinov2Config::of_shapes(|_| None).unwrap_err().to_string();
        assert!(error.contains("patch_embeddings.projection"), "{error}");
    }
}
