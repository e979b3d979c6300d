//! The configurations of `AutoencoderKL` and `VQModel`.

use crate::ConfigError;
use sdft_diffusion::{KIND_KEY, MODEL_KEY};
use sdft_fields::{CLASS, COUNT, FLAG, NUMBER, brief, check_known, field};
use sdft_imaging::ImageSpec;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The size of the images that an autoencoder was trained on. It changes no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SampleSize {
    /// Side of square images, in pixels.
    Side(usize),
    /// Height and width, in pixels.
    Sides([usize; 2]),
}

/// A level of the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlock {
    /// Residual blocks and a strided convolution.
    #[serde(rename = "DownEncoderBlock2D")]
    Plain,
    /// Residual blocks, each followed by attention, and a strided convolution.
    #[serde(rename = "AttnDownEncoderBlock2D")]
    Attention,
}

/// A level of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlock {
    /// Residual blocks, then nearest-neighbour upsampling and a convolution.
    #[serde(rename = "UpDecoderBlock2D")]
    Plain,
    /// Residual blocks, each followed by attention, then upsampling and a convolution.
    #[serde(rename = "AttnUpDecoderBlock2D")]
    Attention,
}

/// The nonlinearity of the residual blocks; its name in a file may have any case. The last norm is always followed by SiLU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "String")]
pub enum ActFn {
    /// `x * sigmoid(x)`, in files also `swish`.
    Silu,
    /// `max(x, 0)`.
    Relu,
}

impl TryFrom<String> for ActFn {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match name.to_lowercase().as_str() {
            "silu" | "swish" => Ok(Self::Silu),
            "relu" => Ok(Self::Relu),
            _ => Err("expected silu, swish or relu"),
        }
    }
}

/// The norms of a `VQModel`'s decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormType {
    /// Group norms.
    Group,
}

/// One list of fields gives the struct, diffusers' defaults and the reader.
macro_rules! config {
    (
        $(#[$meta:meta])* $name:ident, $class:literal;
        $($(#[$doc:meta])* $field:ident: $type:ty = $default:expr, $expected:expr;)+
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize)]
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)+
        }

        impl Default for $name {
            /// diffusers' defaults.
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $name {
            /// The name of diffusers' class.
            pub const CLASS: &'static str = $class;

            fn read(json: &Map<String, Value>) -> Result<Self, ConfigError> {
                check_known(json, $class, &[$(stringify!($field),)+])?;
                Ok(Self {
                    $($field: field(json, stringify!($field), $expected, $default)?,)+
                })
            }
        }
    };
}

const DOWN: &str = "a list of DownEncoderBlock2D, AttnDownEncoderBlock2D";
const UP: &str = "a list of UpDecoderBlock2D, AttnUpDecoderBlock2D";
const WIDTHS: &str = "a list of whole numbers";
const ACT: &str = "silu, swish or relu";
const SIZE: &str = "a side or [height, width]";

config! {
    /// The architecture of an `AutoencoderKL`, with diffusers' field names and defaults.
    AutoencoderKlConfig, "AutoencoderKL";
    /// Channels of the images.
    in_channels: usize = 3, COUNT;
    /// Channels of the decoded images.
    out_channels: usize = 3, COUNT;
    /// The levels of the encoder.
    down_block_types: Vec<DownBlock> = vec![DownBlock::Plain], DOWN;
    /// The levels of the decoder, lowest resolution first.
    up_block_types: Vec<UpBlock> = vec![UpBlock::Plain], UP;
    /// Width of each level.
    block_out_channels: Vec<usize> = vec![64], WIDTHS;
    /// Residual blocks per level of the encoder (the decoder has one more).
    layers_per_block: usize = 1, COUNT;
    /// The nonlinearity of the residual blocks.
    act_fn: ActFn = ActFn::Silu, ACT;
    /// Channels of the latents.
    latent_channels: usize = 4, COUNT;
    /// Groups of the norms.
    norm_num_groups: usize = 32, COUNT;
    /// Size of the training images.
    sample_size: SampleSize = SampleSize::Side(32), SIZE;
    /// The diffusion model sees `(z - shift_factor) * scaling_factor`.
    scaling_factor: f64 = 0.18215, NUMBER;
    /// See `scaling_factor`; null is 0.
    shift_factor: Option<f64> = None, "a number or null";
    /// A mean of each latent channel: null only.
    latents_mean: Option<()> = None, "null (per-channel statistics are not supported)";
    /// A standard deviation of each latent channel: null only.
    latents_std: Option<()> = None, "null (per-channel statistics are not supported)";
    /// The network overflows in f16, so f32 takes its place.
    force_upcast: bool = true, FLAG;
    /// The encoder ends in a 1x1 convolution.
    use_quant_conv: bool = true, FLAG;
    /// The decoder starts with a 1x1 convolution.
    use_post_quant_conv: bool = true, FLAG;
    /// The middles have attention.
    mid_block_add_attention: bool = true, FLAG;
}

config! {
    /// The architecture of a `VQModel`, with diffusers' field names and defaults.
    VqModelConfig, "VQModel";
    /// Channels of the images.
    in_channels: usize = 3, COUNT;
    /// Channels of the decoded images.
    out_channels: usize = 3, COUNT;
    /// The levels of the encoder.
    down_block_types: Vec<DownBlock> = vec![DownBlock::Plain], DOWN;
    /// The levels of the decoder, lowest resolution first.
    up_block_types: Vec<UpBlock> = vec![UpBlock::Plain], UP;
    /// Width of each level.
    block_out_channels: Vec<usize> = vec![64], WIDTHS;
    /// Residual blocks per level of the encoder (the decoder has one more).
    layers_per_block: usize = 1, COUNT;
    /// The nonlinearity of the residual blocks.
    act_fn: ActFn = ActFn::Silu, ACT;
    /// Channels between encoder and codebook.
    latent_channels: usize = 3, COUNT;
    /// Size of the training images.
    sample_size: SampleSize = SampleSize::Side(32), SIZE;
    /// Number of codes.
    num_vq_embeddings: usize = 256, COUNT;
    /// Groups of the norms.
    norm_num_groups: usize = 32, COUNT;
    /// Channels of a code and of the latents; null is `latent_channels`.
    vq_embed_dim: Option<usize> = None, "a whole number or null";
    /// The diffusion model sees `z * scaling_factor`.
    scaling_factor: f64 = 0.18215, NUMBER;
    /// The norms of the decoder.
    norm_type: NormType = NormType::Group, "group (norms that depend on the latents are not supported)";
    /// The middles have attention.
    mid_block_add_attention: bool = true, FLAG;
    /// diffusers' decoder takes indices of codes where it does not quantise, so [`crate::Autoencoder::decode_unquantized`] is refused.
    lookup_from_codebook: bool = false, FLAG;
    /// The network overflows in f16, so f32 takes its place.
    force_upcast: bool = false, FLAG;
}

impl VqModelConfig {
    /// Channels of a code and of the latents.
    pub fn code_channels(&self) -> usize {
        self.vq_embed_dim.unwrap_or(self.latent_channels)
    }
}

/// The architecture of a first stage. As JSON it is diffusers' `config.json`, whose `_class_name` is the tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "_class_name", try_from = "Map<String, Value>")]
pub enum AutoencoderConfig {
    /// `AutoencoderKL`: the latents of an image are a normal distribution.
    #[serde(rename = "AutoencoderKL")]
    Kl(AutoencoderKlConfig),
    /// `VQModel`: decoding replaces each latent vector by the nearest code.
    #[serde(rename = "VQModel")]
    Vq(VqModelConfig),
}

impl From<AutoencoderKlConfig> for AutoencoderConfig {
    fn from(config: AutoencoderKlConfig) -> Self {
        Self::Kl(config)
    }
}

impl From<VqModelConfig> for AutoencoderConfig {
    fn from(config: VqModelConfig) -> Self {
        Self::Vq(config)
    }
}

impl TryFrom<Map<String, Value>> for AutoencoderConfig {
    type Error = ConfigError;

    fn try_from(json: Map<String, Value>) -> Result<Self, ConfigError> {
        Self::from_fields(&json)
    }
}

/// The fields that both classes have.
pub(crate) struct Net<'a> {
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) down: &'a [DownBlock],
    pub(crate) up: &'a [UpBlock],
    pub(crate) widths: &'a [usize],
    pub(crate) layers: usize,
    pub(crate) act: ActFn,
    /// Channels of the decoder's input.
    pub(crate) z_channels: usize,
    /// Channels of the encoder's output.
    pub(crate) encoded_channels: usize,
    pub(crate) groups: usize,
    pub(crate) middle_attention: bool,
}

impl Net<'_> {
    /// Width of the lowest resolution.
    pub(crate) fn deepest(&self) -> usize {
        self.widths.last().copied().unwrap_or(0)
    }
}

/// A field that both classes have.
macro_rules! shared {
    ($config:expr, $field:ident) => {
        match $config {
            AutoencoderConfig::Kl(config) => &config.$field,
            AutoencoderConfig::Vq(config) => &config.$field,
        }
    };
}

impl AutoencoderConfig {
    /// The configuration of a `config.json`, with diffusers' defaults for absent fields. Other fields that start with `_` than
    /// `_class_name` are ignored.
    ///
    /// Source: diffusers 0.42 `AutoencoderKL`, `VQModel`.
    ///
    /// # Errors
    /// The first field that is unknown, not supported or invalid.
    pub fn from_fields(json: &Map<String, Value>) -> Result<Self, ConfigError> {
        let config = match json.get(CLASS).and_then(Value::as_str) {
            Some(AutoencoderKlConfig::CLASS) => Self::Kl(AutoencoderKlConfig::read(json)?),
            Some(VqModelConfig::CLASS) => Self::Vq(VqModelConfig::read(json)?),
            _ => {
                let found = json.get(CLASS).map_or("nothing".to_owned(), brief);
                return Err(ConfigError::new(CLASS, "AutoencoderKL or VQModel", found));
            }
        };
        config.check()?;
        Ok(config)
    }

    /// The fields of a `config.json`, with `_class_name`.
    pub fn fields(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields,
            // A struct of numbers, texts and lists always is an object.
            _ => Map::new(),
        }
    }

    /// The metadata of a file: its kind `autoencoder`, and [`Self::fields`] as JSON.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (KIND_KEY.to_owned(), Self::KIND.to_owned()),
            (
                MODEL_KEY.to_owned(),
                Value::Object(self.fields()).to_string(),
            ),
        ])
    }

    /// The kind of this project's files of autoencoders.
    pub const KIND: &'static str = "autoencoder";

    /// The name of diffusers' class.
    pub fn class_name(&self) -> &'static str {
        match self {
            Self::Kl(_) => AutoencoderKlConfig::CLASS,
            Self::Vq(_) => VqModelConfig::CLASS,
        }
    }

    /// Channels of the images that are encoded.
    pub fn image_channels(&self) -> usize {
        *shared!(self, in_channels)
    }

    /// Channels of the images that are decoded.
    pub fn decoded_channels(&self) -> usize {
        *shared!(self, out_channels)
    }

    /// Channels of the latents.
    pub fn latent_channels(&self) -> usize {
        match self {
            Self::Kl(config) => config.latent_channels,
            Self::Vq(config) => config.code_channels(),
        }
    }

    /// How many pixels of a side become one latent value.
    pub fn factor(&self) -> usize {
        1 << shared!(self, block_out_channels).len().saturating_sub(1)
    }

    /// The shape of the latents of images of this form, `[C, H, W]`.
    pub fn latent_shape(&self, image: &ImageSpec) -> [usize; 3] {
        let factor = self.factor();
        let channels = self.latent_channels();
        [channels, image.height / factor, image.width / factor]
    }

    /// The diffusion model sees `(z - shift_factor) * scaling_factor`.
    pub fn scaling_factor(&self) -> f64 {
        *shared!(self, scaling_factor)
    }

    /// The same configuration with another scaling factor.
    #[must_use]
    pub fn with_scaling_factor(mut self, factor: f64) -> Self {
        match &mut self {
            Self::Kl(config) => config.scaling_factor = factor,
            Self::Vq(config) => config.scaling_factor = factor,
        }
        self
    }

    /// See [`Self::scaling_factor`].
    pub fn shift_factor(&self) -> f64 {
        match self {
            Self::Kl(config) => config.shift_factor.unwrap_or(0.0),
            Self::Vq(_) => 0.0,
        }
    }

    /// Whether f32 takes the place of f16.
    pub fn force_upcast(&self) -> bool {
        *shared!(self, force_upcast)
    }

    pub(crate) fn net(&self) -> Net<'_> {
        let z = *shared!(self, latent_channels);
        Net {
            in_channels: self.image_channels(),
            out_channels: self.decoded_channels(),
            down: shared!(self, down_block_types),
            up: shared!(self, up_block_types),
            widths: shared!(self, block_out_channels),
            layers: *shared!(self, layers_per_block),
            act: *shared!(self, act_fn),
            z_channels: z,
            encoded_channels: match self {
                Self::Kl(_) => 2 * z,
                Self::Vq(_) => z,
            },
            groups: *shared!(self, norm_num_groups),
            middle_attention: *shared!(self, mid_block_add_attention),
        }
    }
}
