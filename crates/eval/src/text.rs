//! Texts in CLIP's feature space.

use crate::error::{EvalError, Result, of};
use crate::extractor::read_on;
use candle_core::Device;
use sdft_features::{Clip, ClipConfig, ClipTokenizer, Network, clip_prompts};
use sdft_metrics::{Features, text_direction};
use std::path::{Path, PathBuf};

/// The direction from one text to another in CLIP's feature space, averaged over 79 templates.
///
/// `files` are the weights, `tokenizer` the model's `tokenizer.json`.
///
/// # Errors
/// Fails if a file cannot be read or does not match, a text is too long, or the texts have the same features.
pub fn direction_of_texts(
    patch: usize,
    files: &[PathBuf],
    tokenizer: &Path,
    [from, to]: [&str; 2],
    device: &Device,
) -> Result<Vec<f64>> {
    let clip = read_clip(patch, files, device)?;
    let [source, target] = texts_through_templates(&clip, patch, tokenizer, [from, to])?;
    let what = format!("from {from:?} to {to:?}");
    of(&what, text_direction(&source, &target))
}

/// The feature vectors of two texts in 79 templates each, one row for each template.
///
/// # Errors
/// Fails if the tokenizer cannot be read, or a text is too long or has an unknown token.
pub fn texts_through_templates(
    clip: &Clip,
    patch: usize,
    tokenizer: &Path,
    [from, to]: [&str; 2],
) -> Result<[Features; 2]> {
    let texts = Texts::open(clip, patch, tokenizer)?;
    let features = |text: &str| texts.features(text, clip_prompts(text));
    Ok([features(from)?, features(to)?])
}

/// The feature vector of a text without templates; its length is not normalised.
///
/// # Errors
/// Fails for the same reasons as [`texts_through_templates`].
pub fn text_as_it_stands(
    clip: &Clip,
    patch: usize,
    tokenizer: &Path,
    text: &str,
) -> Result<Vec<f32>> {
    let texts = Texts::open(clip, patch, tokenizer)?;
    let features = texts.features(text, [text.to_owned()])?;
    Ok(features.row(0).unwrap_or_default().to_vec())
}

/// Reads CLIP with both encoders. It computes in f32 on `device`.
///
/// # Errors
/// Fails if a file cannot be read or does not match.
pub fn read_clip(patch: usize, files: &[PathBuf], device: &Device) -> Result<Clip> {
    let params = read_on(Network::Clip(patch), files, device)?;
    Ok(Clip::load(ClipConfig::vit_b(patch), &params)?)
}

/// The feature vector of a text without templates; its length is not normalised.
///
/// # Errors
/// Fails if a file cannot be read or does not match, or if the text is too long.
pub fn features_of_text(
    patch: usize,
    files: &[PathBuf],
    tokenizer: &Path,
    text: &str,
    device: &Device,
) -> Result<Vec<f32>> {
    text_as_it_stands(&read_clip(patch, files, device)?, patch, tokenizer, text)
}

/// Reads CLIP's text encoder.
struct Texts<'a> {
    clip: &'a Clip,
    tokenizer: ClipTokenizer,
    dim: usize,
}

impl<'a> Texts<'a> {
    fn open(clip: &'a Clip, patch: usize, tokenizer: &Path) -> Result<Self> {
        let config = ClipConfig::vit_b(patch);
        Ok(Self {
            clip,
            tokenizer: ClipTokenizer::open(tokenizer, config.context)
                .map_err(|e| EvalError::Text(e.to_string()))?,
            dim: config.features,
        })
    }

    /// One row for each prompt; `text` names them in errors.
    fn features(&self, text: &str, prompts: impl IntoIterator<Item = String>) -> Result<Features> {
        let mut rows = Vec::new();
        for prompt in prompts {
            let tokens = self
                .tokenizer
                .encode(&prompt)
                .map_err(|e| EvalError::Text(e.to_string()))?;
            let vector = self.clip.text_features(&tokens)?.flatten_all()?;
            rows.extend(vector.to_vec1::<f32>()?);
        }
        of(text, Features::new(rows, self.dim))
    }
}
