//! The configuration of a `UNet2DModel`.

use crate::ConfigError;
use crate::read::Fields;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The size of the images that a network was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SampleSize {
    /// Side of square images, in pixels.
    Side(usize),
    /// Height and width, in pixels.
    Sides([usize; 2]),
}

/// How a timestep becomes a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeEmbedding {
    /// Sines and cosines.
    Positional,
    /// A table with one row for each of `num_train_timesteps`.
    Learned,
}

/// A level of the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlock {
    /// Residual blocks and a strided convolution.
    #[serde(rename = "DownBlock2D", alias = "UNetResDownBlock2D")]
    Plain,
    /// Residual blocks, each followed by attention; `downsample_type` decides how the resolution is halved.
    #[serde(rename = "AttnDownBlock2D", alias = "UNetResAttnDownBlock2D")]
    Attention,
    /// Residual blocks, the last of which halves the resolution.
    #[serde(
        rename = "ResnetDownsampleBlock2D",
        alias = "UNetResResnetDownsampleBlock2D"
    )]
    Resnet,
}

/// A level of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlock {
    /// Residual blocks, then nearest-neighbour upsampling and a convolution.
    #[serde(rename = "UpBlock2D", alias = "UNetResUpBlock2D")]
    Plain,
    /// Residual blocks, each followed by attention; `upsample_type` decides how the resolution is doubled.
    #[serde(rename = "AttnUpBlock2D", alias = "UNetResAttnUpBlock2D")]
    Attention,
    /// Residual blocks, the last of which doubles the resolution.
    #[serde(
        rename = "ResnetUpsampleBlock2D",
        alias = "UNetResResnetUpsampleBlock2D"
    )]
    Resnet,
}

/// The middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MidBlock {
    /// Two residual blocks with attention between them.
    #[serde(rename = "UNetMidBlock2D")]
    Attention,
}

/// How the levels with attention change the resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResampleType {
    /// By a convolution.
    Conv,
    /// Inside a residual block.
    Resnet,
}

/// The nonlinearity of the residual blocks; its name in a file may have any case.
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

/// How the embedding acts on a residual block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeScaleShift {
    /// It is added before the second norm.
    Default,
    /// It scales and shifts after the second norm.
    ScaleShift,
}

/// How a class becomes a vector, where there is no table of `num_class_embeds` rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassEmbed {
    /// The class is a number, embedded like a timestep.
    Timestep,
    /// The class is given as a vector.
    Identity,
}

/// The architecture of a `UNet2DModel`, with diffusers' field names and defaults.
///
/// It is read from JSON by [`Self::from_json`] only, also through serde, so no field is ignored in silence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct Unet2dConfig {
    /// Size of the images.
    pub sample_size: Option<SampleSize>,
    /// Channels of the images.
    pub in_channels: usize,
    /// Channels of the output: `in_channels`, or twice as many if the variance is learned.
    pub out_channels: usize,
    /// The network computes on `2 x - 1`.
    pub center_input_sample: bool,
    /// How a timestep becomes a vector.
    pub time_embedding_type: TimeEmbedding,
    /// Width of the time embedding; four times the first of `block_out_channels` if it is null.
    pub time_embedding_dim: Option<usize>,
    /// Subtracted from the number of frequencies of the time embedding.
    pub freq_shift: f64,
    /// Cosines before sines.
    pub flip_sin_to_cos: bool,
    /// The levels of the encoder.
    pub down_block_types: Vec<DownBlock>,
    /// The middle; null for none.
    pub mid_block_type: Option<MidBlock>,
    /// The levels of the decoder, lowest resolution first.
    pub up_block_types: Vec<UpBlock>,
    /// Width of each level.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per level of the encoder (the decoder has one more).
    pub layers_per_block: usize,
    /// The middle divides the sums of its blocks by this.
    pub mid_block_scale_factor: f64,
    /// Zeros around the input of strided convolutions: 1, or 0 for one row at the bottom and one column at the right.
    pub downsample_padding: usize,
    /// How encoder levels with attention halve the resolution; null is `conv`.
    pub downsample_type: Option<ResampleType>,
    /// How decoder levels with attention double the resolution; null is `conv`.
    pub upsample_type: Option<ResampleType>,
    /// Probability of dropping a feature in residual blocks, in training only.
    pub dropout: f64,
    /// The nonlinearity of the residual blocks.
    pub act_fn: ActFn,
    /// Channels per attention head; null for one head.
    pub attention_head_dim: Option<usize>,
    /// Groups of the norms.
    pub norm_num_groups: usize,
    /// Groups of the norm before the middle's attention; if null, `norm_num_groups`, or no norm with `scale_shift`.
    pub attn_norm_num_groups: Option<usize>,
    /// Added to the variance by the norms.
    pub norm_eps: f64,
    /// How the embedding acts on a residual block.
    pub resnet_time_scale_shift: TimeScaleShift,
    /// The middle has attention.
    pub add_attention: bool,
    /// How a class becomes a vector.
    pub class_embed_type: Option<ClassEmbed>,
    /// Rows of the table of classes, where `class_embed_type` is null.
    pub num_class_embeds: Option<usize>,
    /// Rows of a learned time embedding.
    pub num_train_timesteps: Option<usize>,
    /// Rank of the time-aware adapter in every attention block, 0 for an eighth of its channels; `None` has no adapters, and is not written. diffusers has no such field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_adapter_rank: Option<usize>,
}

impl Default for Unet2dConfig {
    /// diffusers' defaults.
    fn default() -> Self {
        Self {
            sample_size: None,
            in_channels: 3,
            out_channels: 3,
            center_input_sample: false,
            time_embedding_type: TimeEmbedding::Positional,
            time_embedding_dim: None,
            freq_shift: 0.0,
            flip_sin_to_cos: true,
            down_block_types: vec![
                DownBlock::Plain,
                DownBlock::Attention,
                DownBlock::Attention,
                DownBlock::Attention,
            ],
            mid_block_type: Some(MidBlock::Attention),
            up_block_types: vec![
                UpBlock::Attention,
                UpBlock::Attention,
                UpBlock::Attention,
                UpBlock::Plain,
            ],
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            downsample_type: Some(ResampleType::Conv),
            upsample_type: Some(ResampleType::Conv),
            dropout: 0.0,
            act_fn: ActFn::Silu,
            attention_head_dim: Some(8),
            norm_num_groups: 32,
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: TimeScaleShift::Default,
            add_attention: true,
            class_embed_type: None,
            num_class_embeds: None,
            num_train_timesteps: None,
            time_adapter_rank: None,
        }
    }
}

impl TryFrom<Map<String, Value>> for Unet2dConfig {
    type Error = ConfigError;

    fn try_from(json: Map<String, Value>) -> Result<Self, ConfigError> {
        Self::from_json(&json)
    }
}

impl Unet2dConfig {
    /// The configuration of a `config.json`, with diffusers' defaults for absent fields. Fields that start with `_` are ignored, except
    /// that `_class_name` must be `UNet2DModel` if it is present.
    ///
    /// Source: diffusers 0.42 `UNet2DModel`.
    ///
    /// # Errors
    /// The first field that is unknown, not supported or invalid.
    pub fn from_json(json: &Map<String, Value>) -> Result<Self, ConfigError> {
        let config = Fields::new(json)?.config(Self::default())?;
        config.validate()?;
        Ok(config)
    }

    /// Number of levels.
    pub fn levels(&self) -> usize {
        self.block_out_channels.len()
    }

    /// Width of the lowest resolution.
    pub(crate) fn deepest_width(&self) -> usize {
        self.block_out_channels.last().copied().unwrap_or(0)
    }

    /// Width of the time embedding.
    pub fn emb_channels(&self) -> usize {
        let first = self.block_out_channels.first().copied().unwrap_or(0);
        self.time_embedding_dim
            .filter(|&dim| dim > 0)
            .unwrap_or(4 * first)
    }

    /// Whether the network predicts the variance as well.
    pub fn learns_variance(&self) -> bool {
        self.out_channels == 2 * self.in_channels
    }

    /// Height and width of the images that the network was made for, if the file gives them.
    pub fn sides(&self) -> Option<[usize; 2]> {
        self.sample_size.map(|size| match size {
            SampleSize::Side(side) => [side; 2],
            SampleSize::Sides(sides) => sides,
        })
    }

    /// What the sides of an image must be divisible by.
    pub fn factor(&self) -> usize {
        1 << self.levels().saturating_sub(1)
    }

    /// Number of classes of a class-conditional network, 0 for none. Classes that are embedded like timesteps may be any number.
    pub fn n_classes(&self) -> usize {
        match self.class_embed_type {
            None => self.num_class_embeds.unwrap_or(0),
            Some(ClassEmbed::Timestep) => self.num_class_embeds.unwrap_or(u32::MAX as usize),
            Some(ClassEmbed::Identity) => 0,
        }
    }

    /// Heads and their channels at a width.
    pub(crate) fn heads(&self, width: usize) -> [usize; 2] {
        match self.attention_head_dim {
            Some(channels) => [width.checked_div(channels).unwrap_or(0), channels],
            None => [1, width],
        }
    }

    /// Groups of the norm before the middle's attention.
    pub(crate) fn mid_attention_groups(&self) -> Option<usize> {
        let usual = match self.resnet_time_scale_shift {
            TimeScaleShift::Default => Some(self.norm_num_groups),
            TimeScaleShift::ScaleShift => None,
        };
        self.attn_norm_num_groups.or(usual)
    }

    /// Whether level `level` of the encoder halves the resolution, and how.
    pub(crate) fn downsample(&self, level: usize) -> Option<ResampleType> {
        (level + 1 < self.levels()).then(|| match self.down_block_types[level] {
            DownBlock::Plain => ResampleType::Conv,
            DownBlock::Attention => self.downsample_type.unwrap_or(ResampleType::Conv),
            DownBlock::Resnet => ResampleType::Resnet,
        })
    }

    /// Whether block `index` of the decoder doubles the resolution, and how.
    pub(crate) fn upsample(&self, index: usize) -> Option<ResampleType> {
        (index + 1 < self.levels()).then(|| match self.up_block_types[index] {
            UpBlock::Plain => ResampleType::Conv,
            UpBlock::Attention => self.upsample_type.unwrap_or(ResampleType::Conv),
            UpBlock::Resnet => ResampleType::Resnet,
        })
    }
}
