//! ADM: the U-Net of guided-diffusion in all its public forms, and the time-dependent classifier on its encoder.
//!
//! Parameters have the official names, so checkpoints are exchanged without renaming; [`infer`] recovers the configuration of a network
//! from the names and shapes in its file. [`Unet`] is a [`sdft_diffusion::Denoiser`], and both networks are
//! [`sdft_diffusion::FeatureNet`]s.
//!
//! # Example: the light FFHQ-256 network
//! ```
//! use sdft_adm::{AdmConfig, Unet, infer};
//!
//! let specs = Unet::specs(&AdmConfig::default())?;
//! let n: usize = specs.iter().map(|spec| spec.shape.iter().product::<usize>()).sum();
//! assert_eq!((specs.len(), n), (362, 93_563_910));
//! let shapes = specs.into_iter().map(|spec| (spec.name, spec.shape)).collect();
//! assert_eq!(infer(&shapes, Some(256))?.config, AdmConfig::default());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** has no losses, no samplers and no files; every parameter has the official name.

pub use crate::{
    config::AdmConfig,
    encoder::{Encoder, EncoderConfig, Pool},
    error::{ConfigError, NotAdm},
    infer::{Inferred, Origin, infer},
    trainable::{is_removed_by_norm, trainable_unet},
    unet::{Unet, UnetCall},
};
pub use sdft_nn::Cost;

mod config;
mod cost;
mod encoder;
mod error;
mod infer;
mod trainable;
mod trunk;
mod unet;
