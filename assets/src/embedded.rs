//! Files that are part of every program, so that it works from any folder.

/// A PNG picture of all handwritten digits, 8x8 pixels each.
pub const DIGITS_PNG: &[u8] = include_bytes!("../digits/digits-8x8.png");

/// The classes of the digits in [`DIGITS_PNG`], in its order.
pub const DIGITS_LABELS: &[u8] = include_bytes!("../digits/labels.txt");

/// A PNG picture of all emoji in Google's style, in cells of 32x32 pixels, row by row.
pub const EMOJI_NOTO_PNG: &[u8] = include_bytes!("../emoji/noto.png");

/// A PNG picture of all emoji in Microsoft's style, in the same cells; white where an emoji is missing.
pub const EMOJI_FLUENT_PNG: &[u8] = include_bytes!("../emoji/fluent.png");

/// What each emoji shows: a line of names and one for each cell, with tabs.
pub const EMOJI_INDEX: &str = include_str!("../emoji/index.tsv");

/// A diffusion model trained on the digits, as `.safetensors`.
pub const DIGITS_SOURCE_WEIGHTS: &[u8] = include_bytes!("../weights/digits-source.safetensors");

/// An autoencoder trained on the digits in both styles, as `.safetensors`.
pub const DIGITS_AUTOENCODER_WEIGHTS: &[u8] =
    include_bytes!("../weights/digits-autoencoder.safetensors");

/// A DiT trained on the latents of that autoencoder, as `.safetensors`.
pub const DIGITS_DIT_SOURCE_WEIGHTS: &[u8] =
    include_bytes!("../weights/digits-dit-source.safetensors");

pub use sdft_emoji_source::EMOJI_SOURCE_WEIGHTS;

/// A classifier of the digits that judges samples, as `.safetensors`.
pub const DIGITS_JUDGE_WEIGHTS: &[u8] = include_bytes!("../weights/digits-judge.safetensors");

/// A classifier of the style and the attributes of emoji, as `.safetensors`. It guides and measures.
pub const EMOJI_JUDGE_WEIGHTS: &[u8] = include_bytes!("../weights/emoji-judge.safetensors");

/// The same from another seed, for images that were optimised against the first.
pub const EMOJI_JUDGE_2_WEIGHTS: &[u8] = include_bytes!("../weights/emoji-judge-2.safetensors");
