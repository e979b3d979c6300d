//! diffusers' `UNet2DModel`, configured by its `config.json`.
//!
//! Parameters have diffusers' names, so files are exchanged without renaming; [`modern_name`] renames those of older files.
//! [`Unet2dConfig::from_json`] honours every field of a `config.json` or refuses it by name: `Skip*` blocks and the Fourier embedding of
//! NCSN++ are not supported, nor are activations other than SiLU and ReLU. [`Unet2d`] is a [`sdft_diffusion::Network`];
//! [`trainable_unet2d`] makes one that is trained.
//!
//! # Example: the network of google/ddpm-cifar10-32
//! ```
//! use sdft_unet2d::{Unet2d, Unet2dConfig};
//!
//! let json = serde_json::json!({
//!     "sample_size": 32,
//!     "block_out_channels": [128, 256, 256, 256],
//!     "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
//!     "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
//!     "attention_head_dim": null,
//!     "downsample_padding": 0,
//!     "flip_sin_to_cos": false,
//!     "freq_shift": 1,
//!     "norm_eps": 1e-6,
//! });
//! let config = Unet2dConfig::from_json(json.as_object().ok_or("an object")?)?;
//! let n: usize = Unet2d::specs(&config)?.iter().map(|spec| spec.shape.iter().product::<usize>()).sum();
//! assert_eq!(n, 35_746_307);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** has no losses, no samplers and no files; a configuration that it accepts is computed as diffusers computes it.

pub use crate::{
    config::{
        ActFn, ClassEmbed, DownBlock, MidBlock, ResampleType, SampleSize, TimeEmbedding,
        TimeScaleShift, Unet2dConfig, UpBlock,
    },
    embedding::Class,
    names::modern_name,
    trainable::trainable_unet2d,
    unet::Unet2d,
};
pub use sdft_fields::ConfigError;
pub use sdft_nn::Cost;

mod blocks;
mod check;
mod config;
mod cost;
mod embedding;
mod names;
mod read;
mod trainable;
mod unet;
