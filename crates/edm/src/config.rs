//! The configuration of an EDM network.

use sdft_diffusion::Precond;
use serde::{Deserialize, Serialize};

/// A network with its preconditioning; names and defaults of the fields are those of NVlabs/edm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdmConfig {
    /// How the network becomes a denoiser.
    pub precond: Precond,
    /// Side of the images, in pixels.
    pub img_resolution: usize,
    /// Channels of the images.
    pub img_channels: usize,
    /// Number of classes of a class-conditional network, 0 for none.
    pub label_dim: usize,
    /// Rank of the time-aware adapter in every attention block, 0 for an eighth of its channels; `None` has no adapters, and is not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_adapter_rank: Option<usize>,
    /// The network.
    pub model: ModelConfig,
}

impl Default for EdmConfig {
    /// DDPM++ for RGB images of 64 pixels, with EDM's preconditioning.
    fn default() -> Self {
        Self {
            precond: Precond::EDM,
            img_resolution: 64,
            img_channels: 3,
            label_dim: 0,
            time_adapter_rank: None,
            model: ModelConfig::SongUNet(SongUnetConfig::default()),
        }
    }
}

/// The class of a network (`model_type`) and its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type")]
pub enum ModelConfig {
    /// DDPM++ and NCSN++.
    SongUNet(SongUnetConfig),
    /// ADM.
    DhariwalUNet(DhariwalConfig),
}

impl ModelConfig {
    /// Dimensions of the augmentation labels, 0 for none.
    pub fn augment_dim(&self) -> usize {
        match self {
            Self::SongUNet(model) => model.augment_dim,
            Self::DhariwalUNet(model) => model.augment_dim,
        }
    }

    /// Changes the probability of dropping a feature in training.
    pub fn set_dropout(&mut self, dropout: f64) {
        match self {
            Self::SongUNet(model) => model.dropout = dropout,
            Self::DhariwalUNet(model) => model.dropout = dropout,
        }
    }
}

/// How `SongUNet` embeds the noise level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingType {
    /// Sinusoids of fixed frequencies, as in DDPM++.
    #[default]
    Positional,
    /// Sinusoids of random frequencies that are stored in the file, as in NCSN++.
    Fourier,
}

/// How the image reaches the lower levels of `SongUNet`'s encoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncoderType {
    /// Through the blocks only, as in DDPM++.
    #[default]
    Standard,
    /// Also downsampled and added at each level.
    Skip,
    /// Also by a branch of strided convolutions, as in NCSN++.
    Residual,
}

/// How `SongUNet`'s decoder makes its output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecoderType {
    /// From the highest level.
    #[default]
    Standard,
    /// As a sum of upsampled outputs of all levels.
    Skip,
}

/// The arguments of `SongUNet`; the defaults are DDPM++.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SongUnetConfig {
    /// Dimensions of the augmentation labels, 0 for none.
    pub augment_dim: usize,
    /// Width of the first convolution; `channel_mult` multiplies it.
    pub model_channels: usize,
    /// Width of each level as a multiple of `model_channels`.
    pub channel_mult: Vec<usize>,
    /// Width of the embedding as a multiple of `model_channels`.
    pub channel_mult_emb: usize,
    /// Residual blocks per level of the encoder (the decoder has one more).
    pub num_blocks: usize,
    /// Sides of the feature maps, in pixels, whose blocks have attention.
    pub attn_resolutions: Vec<usize>,
    /// Probability of dropping a feature in residual blocks, in training only.
    pub dropout: f64,
    /// Probability of dropping a label, in training only.
    pub label_dropout: f64,
    /// Embedding of the noise level.
    pub embedding_type: EmbeddingType,
    /// Sinusoids of the noise level as a multiple of `model_channels`: 1 in DDPM++, 2 in NCSN++.
    pub channel_mult_noise: usize,
    /// Branch of the encoder.
    pub encoder_type: EncoderType,
    /// Branch of the decoder.
    pub decoder_type: DecoderType,
    /// Filter of every change of resolution, along one axis and up to a factor: `[1, 1]` in DDPM++, `[1, 3, 3, 1]` in NCSN++.
    pub resample_filter: Vec<f64>,
}

impl Default for SongUnetConfig {
    fn default() -> Self {
        Self {
            augment_dim: 0,
            model_channels: 128,
            channel_mult: vec![1, 2, 2, 2],
            channel_mult_emb: 4,
            num_blocks: 4,
            attn_resolutions: vec![16],
            dropout: 0.1,
            label_dropout: 0.0,
            embedding_type: EmbeddingType::Positional,
            channel_mult_noise: 1,
            encoder_type: EncoderType::Standard,
            decoder_type: DecoderType::Standard,
            resample_filter: vec![1.0, 1.0],
        }
    }
}

/// The arguments of `DhariwalUNet`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DhariwalConfig {
    /// Dimensions of the augmentation labels, 0 for none.
    pub augment_dim: usize,
    /// Width of the sinusoids of the noise level; `channel_mult` multiplies it.
    pub model_channels: usize,
    /// Width of each level as a multiple of `model_channels`.
    pub channel_mult: Vec<usize>,
    /// Width of the embedding as a multiple of `model_channels`.
    pub channel_mult_emb: usize,
    /// Residual blocks per level of the encoder (the decoder has one more).
    pub num_blocks: usize,
    /// Sides of the feature maps, in pixels, whose blocks have attention. Levels narrower than 64 channels have none.
    pub attn_resolutions: Vec<usize>,
    /// Probability of dropping a feature in residual blocks, in training only.
    pub dropout: f64,
    /// Probability of dropping a label, in training only.
    pub label_dropout: f64,
}

impl Default for DhariwalConfig {
    fn default() -> Self {
        Self {
            augment_dim: 0,
            model_channels: 192,
            channel_mult: vec![1, 2, 3, 4],
            channel_mult_emb: 4,
            num_blocks: 3,
            attn_resolutions: vec![32, 16, 8],
            dropout: 0.1,
            label_dropout: 0.0,
        }
    }
}
