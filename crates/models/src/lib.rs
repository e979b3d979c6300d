//! A diffusion network and its file: configuration, strict loading, provenance.
//!
//! The architecture comes from, in this order: the file's own metadata or the `config.json` next to it, settings given by the user, a table
//! of known public files, names and shapes, and ADM's defaults for fields that no shape determines. Notes list the assumed fields; a field
//! is required where public models differ. Loading is strict: missing, unexpected and mis-shaped tensors are listed with the likely cause.
//!
//! # Example: save a network and load it
//! ```
//! use candle_core::Device;
//! use sdft_adm::{AdmConfig, Unet};
//! use sdft_diffusion::Process;
//! use sdft_models::{LoadOptions, load_unet, save_unet};
//! use sdft_nn::Params;
//!
//! let config = AdmConfig { image_size: 8, model_channels: 8, channel_mult: vec![1.0], attention_resolutions: vec![],
//!     num_head_channels: 8, norm_groups: 4, ..AdmConfig::default() };
//! let params = Params::init(&Unet::specs(&config)?, 0, &Device::Cpu)?;
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("tiny.safetensors");
//! save_unet(&path, &config, &Process::default(), &params, &Default::default(), None)?;
//! assert_eq!(load_unet(&path, &LoadOptions::default())?.architecture, config.into());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** the only crate that joins an architecture with a file; a file that does not fit completely is not loaded.

pub use crate::{
    architecture::{Architecture, ArchitectureError},
    convert::convert_file,
    error::ModelError,
    inspect::{Inspected, inspect_file, scan_file},
    load::{
        LoadOptions, LoadedEncoder, LoadedModel, load_encoder, load_unet, load_unet_bytes,
        read_params_bytes,
    },
    resolve::Resolved,
    save::{encoder_metadata, save_unet, unet_metadata},
    scheduler::{scheduler_config, scheduler_process},
    siblings::folder_weights,
};

mod architecture;
mod convert;
mod diffusers;
mod error;
mod inspect;
mod known;
mod load;
mod notes;
mod official;
mod resolve;
mod save;
mod scheduler;
mod siblings;
mod unet2d;
