//! First stages of latent diffusion: diffusers' `AutoencoderKL` and `VQModel`.
//!
//! An [`Autoencoder`] encodes images as latents and decodes latents as images, both differentiable. Parameters have diffusers' names;
//! [`current_names`] renames those of older files and of CompVis' own. [`AutoencoderConfig`] computes every field of a
//! `config.json` as diffusers does, or refuses it by name. Images of more than [`MOST_PIXELS`] are computed in overlapping tiles, so memory
//! does not grow with them.
//!
//! # Example: an image to latents and back
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use sdft_autoencoder::{Autoencoder, AutoencoderConfig, AutoencoderKlConfig, DownBlock, UpBlock};
//! use sdft_nn::Params;
//!
//! let config = AutoencoderConfig::from(AutoencoderKlConfig {
//!     block_out_channels: vec![8, 16],
//!     down_block_types: vec![DownBlock::Plain; 2],
//!     up_block_types: vec![UpBlock::Plain; 2],
//!     norm_num_groups: 4,
//!     ..AutoencoderKlConfig::default()
//! });
//! let params = Params::init(&Autoencoder::specs(&config)?, 0, &Device::Cpu)?;
//! let autoencoder = Autoencoder::load(&params, &config)?;
//! let image = Tensor::zeros((1, 3, 16, 16), DType::F32, &Device::Cpu)?;
//! let z = autoencoder.encode(&image)?.mean;
//! assert_eq!(z.dims(), [1, 4, 8, 8]);
//! assert_eq!(autoencoder.decode(&z)?.dims(), image.dims());
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! **Invariant:** has no losses and no files; a configuration that it accepts is computed as diffusers computes it.

pub use crate::{
    autoencoder::Autoencoder,
    config::{
        ActFn, AutoencoderConfig, AutoencoderKlConfig, DownBlock, NormType, SampleSize, UpBlock,
        VqModelConfig,
    },
    infer::{Inferred, infer},
    moments::Moments,
    names::{current_names, is_compvis},
    record::{AutoencoderFile, AutoencoderRecord},
    space::Space,
    tiles::MOST_PIXELS,
};
pub use sdft_fields::ConfigError;
pub use sdft_nn::Cost;

mod autoencoder;
mod blocks;
mod check;
mod codebook;
mod config;
mod cost;
mod infer;
mod moments;
mod names;
mod record;
mod space;
mod tiles;
