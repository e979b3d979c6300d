//! EDM: the networks of NVlabs/edm, DDPM++ and NCSN++ ([`SongUnetConfig`]) and ADM in its layout ([`DhariwalConfig`]), with EDM, VP and VE
//! preconditioning.
//!
//! Parameters and fields have the names of the reference, so its state dicts and constructor arguments are read without renaming;
//! [`infer`] recovers the fields that the names and shapes in a file determine. [`EdmNet`] is a [`sdft_diffusion::Network`]: called with the
//! variance-preserving state and sigma it predicts the clean image. [`EdmNet::denoise`] is D(x; sigma) itself.
//!
//! # Example: the network for FFHQ at 64 pixels (`edm-ffhq-64x64-uncond-vp`)
//! ```
//! use sdft_edm::{EdmConfig, EdmNet, ModelConfig, SongUnetConfig};
//!
//! let model = SongUnetConfig { augment_dim: 9, channel_mult: vec![1, 2, 2, 2], dropout: 0.05, ..SongUnetConfig::default() };
//! let config = EdmConfig { model: ModelConfig::SongUNet(model), ..EdmConfig::default() };
//! assert_eq!(config.cost([64; 2]).parameters, 61_805_571);
//! assert_eq!(EdmNet::specs(&config)?[0].name, "model.map_augment.weight");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** has no losses, no samplers and no files; every parameter and buffer has the reference's name.

pub use crate::{
    arguments::from_arguments,
    config::{
        DecoderType, DhariwalConfig, EdmConfig, EmbeddingType, EncoderType, ModelConfig,
        SongUnetConfig,
    },
    error::{ConfigError, NotEdm},
    infer::{Inferred, infer},
    net::EdmNet,
    trainable::trainable_edm,
    unet::EdmInputs,
};

mod arguments;
mod block;
mod config;
mod cost;
mod embedding;
mod error;
mod infer;
mod layers;
mod net;
mod parts;
mod plan;
mod trainable;
mod unet;
mod validate;
