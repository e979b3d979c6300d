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
    let config = ClipConfig::vit_b(patch);
    let params = Network::Clip(patch)
        .read(files)
        .map_err(EvalError::Weights)?;
    let clip = Clip::load(config, &params)?;
    let tokenizer = ClipTokenizer::open(tokenizer, config.context).map_err(EvalError::Text)?;
    let features = |text: &str| -> Result<Features> {
        let mut rows = Vec::new();
        for prompt in clip_prompts(text) {
            let tokens = tokenizer.encode(&prompt).map_err(EvalError::Text)?;
            let vector = clip.text_features(&tokens)?.flatten_all()?;
            rows.extend(vector.to_vec1::<f32>()?);
        }
        of(text, Features::new(rows, config.features))
    };
    let what = format!("from {from:?} to {to:?}");
    of(&what, text_direction(&features(from)?, &features(to)?))
}
