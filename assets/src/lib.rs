//! Embedded presets, images and weights; which public files the project knows, and where they are on this machine.
//!
//! [`config`], [`DIGITS_PNG`], [`EMOJI_NOTO_PNG`] and others are files that are part of every program. `manifest.toml` lists public weights and data sets by
//! a short name: their [`Place`] (a repository of the Hugging Face Hub and its revision, or a folder of another server), the files, their
//! known sizes and hashes, the licence. [`assets`] gives that list, [`HubCache`] looks for the files where the official Python client keeps
//! them, and [`fetch_command`] is the command that gets them with that client. [`elsewhere`] lists files that no program can download,
//! with instructions. Any other file of the Hub is a [`HubFile`]; a data set that was made ready for
//! training is an [`ImageSet`]. [`listing`] prints the list, and a [`Need`] is a missing input of a command with the call that fetches
//! it.
//!
//! ```
//! use sdft_assets::{Error, HubCache, asset, fetch_command};
//!
//! let lpips = asset("lpips-alex").unwrap();
//! assert!(fetch_command(lpips).starts_with("hf download achiru/DiffSynth-Studio-ImageMetrics LPIPS/alexnet.safetensors"));
//!
//! let empty = tempfile::tempdir()?;
//! match HubCache::at(empty.path()).locate("lpips-alex") {
//!     Err(Error::Missing { command, .. }) => println!("get it with: {command}"),
//!     other => panic!("{other:?}"),
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! **Invariant:** opens no network connection and changes no file; a file is taken for what it should be only if its size, where it is
//! known, is right ([`HubCache::locate_verified`] compares hashes too).

mod cache;
mod configs;
mod embedded;
mod error;
mod images;
mod list;
mod manifest;
mod need;
mod offline;
mod place;
mod web;

pub use cache::{HubCache, fetch_command, is_commit, recorded_hash};
pub use configs::config;
pub use embedded::{
    DIGITS_AUTOENCODER_WEIGHTS, DIGITS_DIT_SOURCE_WEIGHTS, DIGITS_JUDGE_WEIGHTS, DIGITS_LABELS,
    DIGITS_PNG, DIGITS_SOURCE_WEIGHTS, EMOJI_FLUENT_PNG, EMOJI_INDEX, EMOJI_JUDGE_2_WEIGHTS,
    EMOJI_JUDGE_WEIGHTS, EMOJI_NOTO_PNG, EMOJI_SOURCE_WEIGHTS,
};
pub use error::{Error, Result};
pub use images::{INDEX, ImageSet};
pub use list::listing;
pub use manifest::{
    Asset, AssetFile, Confidence, Elsewhere, Place, Remote, RepoType, asset, assets, elsewhere,
    names,
};
pub use need::{Need, Needs, ways};
pub use offline::{is_offline, says_yes};
pub use place::HubFile;
pub use web::WebFile;
