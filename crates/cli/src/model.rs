//! Finds the file of a model.

use crate::console;
use anyhow::{Context, Result};
use sdft_jobs::{ModelFile, autoencoder_of_embedded, embedded_autoencoder, embedded_model};
use sdft_models::LoadedAutoencoder;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// The file of a model; see [`ModelFile::find`]. Prints which files were skipped.
pub(crate) fn model_file(name: &str) -> Result<String> {
    noted(ModelFile::find(name)?)
}

/// The file of a model for commands that read files only.
pub(crate) struct Located {
    pub(crate) file: PathBuf,
    /// The autoencoder of an embedded model on latents.
    pub(crate) autoencoder: Option<Arc<LoadedAutoencoder>>,
    /// The folder of an embedded model's file, as long as it is needed.
    kept: Option<TempDir>,
}

impl Located {
    /// The name of an embedded model, or the path of a file.
    pub(crate) fn shown<'a>(&'a self, given: &'a Path) -> &'a Path {
        match self.kept {
            Some(_) => given,
            None => &self.file,
        }
    }
}

/// [`model_file`] of a path. An embedded model is written to a temporary file.
pub(crate) fn model_path(path: &Path) -> Result<Located> {
    let (file, autoencoder, kept) = match path.to_str() {
        None => (path.to_owned(), None, None),
        Some(name) => match embedded_model(name).or_else(|| embedded_autoencoder(name)) {
            None => (model_file(name)?.into(), None, None),
            Some(bytes) => {
                let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
                let file = folder.path().join(format!("{name}.safetensors"));
                std::fs::write(&file, bytes)
                    .with_context(|| format!("cannot write {}", file.display()))?;
                (file, autoencoder_of_embedded(name)?, Some(folder))
            }
        },
    };
    Ok(Located {
        file,
        autoencoder,
        kept,
    })
}

/// [`model_file`] for commands that look for the model again and report its errors.
pub(crate) fn peek_model_file(name: &str) -> Option<String> {
    ModelFile::find(name).ok().map(|file| file.path)
}

fn noted(file: ModelFile) -> Result<String> {
    file.notes.iter().for_each(console::note);
    Ok(file.path)
}
