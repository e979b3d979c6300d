//! DiT, the diffusion transformer, configured by diffusers' `config.json`.
//!
//! Parameters have the names of diffusers' `DiTTransformer2DModel`. [`OfficialNames`] turns those of facebookresearch/DiT and
//! willisma/SiT into them. Three things differ between the two sources, and are fields of [`DitConfig`]: diffusers has an embedder of
//! time and class in every block, the official code one for all (`shared_embedder`); the frequencies of the timestep (`freq_shift`); and
//! the second norm's epsilon (`norm_eps`). [`DitConfig::from_json`] computes every field of a `config.json` as diffusers does, or refuses
//! it by name.
//! [`Dit`] is a [`sdft_diffusion::Network`]; [`trainable_dit`] makes one that is trained.
//!
//! # Example: DiT-XL/2 as diffusers has it
//! ```
//! use sdft_dit::{Dit, DitConfig};
//!
//! let json = serde_json::json!({"_class_name": "DiTTransformer2DModel", "out_channels": 8});
//! let config = DitConfig::from_json(json.as_object().ok_or("an object")?)?;
//! let n = |config| -> Result<usize, Box<dyn std::error::Error>> {
//!     Ok(Dit::specs(config)?.iter().map(|spec| spec.shape.iter().product::<usize>()).sum())
//! };
//! assert_eq!(n(&config)?, 749_826_464);
//! // The official network has one embedder for all blocks.
//! assert_eq!(n(&DitConfig { shared_embedder: true, ..config })?, 674_834_720);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** has no losses, no samplers and no files; a configuration that it accepts is computed as its source computes it.

pub use crate::{
    config::DitConfig,
    dit::{Conditioning, Dit},
    infer::{Inferred, infer},
    names::{OfficialNames, POSITIONS},
    positions::positions,
    trainable::trainable_dit,
};
pub use sdft_fields::ConfigError;
pub use sdft_nn::Cost;

mod block;
mod check;
mod config;
mod cost;
mod dit;
mod embedding;
mod infer;
mod names;
mod positions;
mod read;
mod trainable;
