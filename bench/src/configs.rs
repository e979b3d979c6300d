//! The networks that are measured.

use sdft_adm::AdmConfig;
use sdft_autoencoder::{AutoencoderConfig, AutoencoderKlConfig, DownBlock, UpBlock};
use sdft_dit::DitConfig;

/// The light FFHQ network at another image size.
pub(crate) fn light(image_size: usize) -> AdmConfig {
    AdmConfig {
        image_size,
        ..AdmConfig::default()
    }
}

/// The network of the embedded digits.
pub(crate) fn digits() -> AdmConfig {
    AdmConfig {
        image_size: 16,
        out_channels: 3,
        model_channels: 32,
        channel_mult: vec![1.0, 1.0, 2.0],
        attention_resolutions: vec![4],
        num_head_channels: 16,
        norm_groups: 8,
        ..AdmConfig::default()
    }
}

/// DiT-S/2 on latents of 256x256 images, without classes.
pub(crate) fn dit() -> DitConfig {
    DitConfig {
        num_attention_heads: 6,
        attention_head_dim: 64,
        out_channels: 8,
        num_layers: 12,
        num_embeds_ada_norm: 0,
        norm_eps: 1e-6,
        shared_embedder: true,
        freq_shift: 0.0,
        ..DitConfig::default()
    }
}

/// Stable Diffusion's autoencoder.
pub(crate) fn stable_diffusion() -> AutoencoderConfig {
    AutoencoderKlConfig {
        down_block_types: vec![DownBlock::Plain; 4],
        up_block_types: vec![UpBlock::Plain; 4],
        block_out_channels: vec![128, 256, 512, 512],
        layers_per_block: 2,
        ..AutoencoderKlConfig::default()
    }
    .into()
}
