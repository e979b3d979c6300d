//! A diffusion network and its file: configuration, strict loading, provenance.
//!
//! The architecture comes from, in this order: the file's own metadata, settings given by the user, a table of known public files,
//! names and shapes, and ADM's defaults for what no shape shows. Loading is strict: missing, unexpected and mis-shaped tensors are
//! listed together with the likely cause.
//!
//! # Example: save a network and get it back
//! ```
//! use candle_core::Device;
//! use sdft_adm::{AdmConfig, Unet};
//! use sdft_models::{LoadOptions, Process, load_unet, save_unet};
//! use sdft_nn::Params;
//!
//! let config = AdmConfig { image_size: 8, model_channels: 8, channel_mult: vec![1.0], attention_resolutions: vec![],
//!     num_head_channels: 8, norm_groups: 4, ..AdmConfig::default() };
//! let params = Params::init(&Unet::specs(&config)?, 0, &Device::Cpu)?;
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("tiny.safetensors");
//! save_unet(&path, &config, &Process::default(), &params, &Default::default(), None)?;
//! assert_eq!(load_unet(&path, &LoadOptions::default())?.config, config);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** the only place that joins an architecture with a file; nothing is loaded that does not fit completely.

pub use crate::{
    error::ModelError,
    file::{
        Inspected, LoadOptions, LoadedEncoder, LoadedModel, convert_file, encoder_metadata,
        inspect_file, load_encoder, load_unet, load_unet_bytes, read_params_bytes, save_unet,
        unet_metadata,
    },
    process::Process,
    resolve::Resolved,
};

mod diffusers;
mod error;
mod file;
mod known;
mod process;
mod resolve;
