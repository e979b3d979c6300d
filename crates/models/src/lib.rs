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
//! use sdft_models::{Architecture, LoadOptions, NetworkFile, load_network, save_network};
//! use sdft_nn::Params;
//!
//! let config = AdmConfig { image_size: 8, model_channels: 8, channel_mult: vec![1.0], attention_resolutions: vec![],
//!     num_head_channels: 8, norm_groups: 4, ..AdmConfig::default() };
//! let params = Params::init(&Unet::specs(&config)?, 0, &Device::Cpu)?;
//! let dir = tempfile::tempdir()?;
//! let path = dir.path().join("tiny.safetensors");
//! let architecture = Architecture::from(config);
//! save_network(&path, &NetworkFile::new(&architecture, &Process::default()), &params, None)?;
//! assert_eq!(load_network(&path, &LoadOptions::default())?.architecture, architecture);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** the only crate that joins an architecture with a file; a file that does not fit completely is not loaded.

pub use crate::{
    adapt::{Adapted, Frozen, Target, adapt},
    architecture::{Architecture, ArchitectureError},
    autoencoder::{
        AutoencoderOptions, LoadedAutoencoder, autoencoder_metadata, load_autoencoder,
        load_autoencoder_bytes, save_autoencoder,
    },
    classes::Classes,
    convert::{convert_file, convert_to_diffusers},
    error::ModelError,
    export::{check_diffusers, write_diffusers},
    folder::folder_weights,
    inspect::{Inspected, inspect_file, scan_file},
    load::{
        LoadOptions, LoadedEncoder, LoadedModel, load_encoder, load_network, load_network_bytes,
        network_sha256, read_params_bytes, state_shape,
    },
    resolve::Resolved,
    save::{NetworkFile, encoder_metadata, form_metadata, network_metadata, save_network},
    scheduler::{scheduler_config, scheduler_process},
};

mod adapt;
mod architecture;
mod autoencoder;
mod classes;
mod convert;
mod error;
mod export;
mod folder;
mod form;
mod fresh;
mod inspect;
mod known;
mod layout;
mod load;
mod notes;
mod opened;
mod resolve;
mod save;
mod scheduler;
mod section;
mod stage;
