use crate::error::{EvalError, Result, of};
use sdft_features::{Clip, ClipConfig, ClipTokenizer, Network, clip_prompts};
use sdft_metrics::{Features, text_direction};
use std::path::{Path, PathBuf};

/// The direction from one text to another in CLIP's space, averaged over 79 templates.
///
/// `files` are the weights, `tokenizer` the model's `tokenizer.json`.
///
/// # Errors
/// Files that cannot be read or do not fit; a text that is too long; texts that mean the same.
pub fn direction_of_texts(
    patch: usize,
    files: &[PathBuf],
    tokenizer: &Path,
    [from, to]: [&str; 2],
) -> Result<Vec<f64>> {
    let texts = Texts::read(patch, files, tokenizer)?;
    let features = |text: &str| texts.features(text, clip_prompts(text));
    let what = format!("from {from:?} to {to:?}");
    of(&what, text_direction(&features(from)?, &features(to)?))
}

/// The feature vector of a text as it stands, without templates; of any length.
///
/// # Errors
/// Files that cannot be read or do not fit; a text that is too long.
pub fn features_of_text(
    patch: usize,
    files: &[PathBuf],
    tokenizer: &Path,
    text: &str,
) -> Result<Vec<f32>> {
    let texts = Texts::read(patch, files, tokenizer)?;
    let features = texts.features(text, [text.to_owned()])?;
    Ok(features.row(0).unwrap_or_default().to_vec())
}

/// CLIP's text encoder.
struct Texts {
    clip: Clip,
    tokenizer: ClipTokenizer,
    dim: usize,
}

impl Texts {
    fn read(patch: usize, files: &[PathBuf], tokenizer: &Path) -> Result<Self> {
        let config = ClipConfig::vit_b(patch);
        let params = Network::Clip(patch)
            .read(files)
            .map_err(EvalError::Weights)?;
        Ok(Self {
            clip: Clip::load(config, &params)?,
            tokenizer: ClipTokenizer::open(tokenizer, config.context).map_err(EvalError::Text)?,
            dim: config.features,
        })
    }

    /// A row for each prompt; `text` is what messages call them.
    fn features(&self, text: &str, prompts: impl IntoIterator<Item = String>) -> Result<Features> {
        let mut rows = Vec::new();
        for prompt in prompts {
            let tokens = self.tokenizer.encode(&prompt).map_err(EvalError::Text)?;
            let vector = self.clip.text_features(&tokens)?.flatten_all()?;
            rows.extend(vector.to_vec1::<f32>()?);
        }
        of(text, Features::new(rows, self.dim))
    }
}
