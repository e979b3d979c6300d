//! The weights of a diffusion model of emoji, in a package of its own, because a package registry takes 10 MiB at most.
//!
//! `assets/weights/README.md` says how they were made, and `assets/emoji/NOTICE` from which pictures.

/// A diffusion model trained on the emoji in Google's style, as `.safetensors`.
pub const EMOJI_SOURCE_WEIGHTS: &[u8] = include_bytes!("../emoji-source.safetensors");
