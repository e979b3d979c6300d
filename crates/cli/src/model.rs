//! Finds the file of a model.

use crate::console;
use anyhow::Result;
use sdft_jobs::ModelFile;
use std::path::{Path, PathBuf};

/// The file of a model; see [`ModelFile::find`]. Prints which files were skipped.
pub(crate) fn model_file(name: &str) -> Result<String> {
    noted(ModelFile::find(name)?)
}

/// [`model_file`] of a path.
pub(crate) fn model_path(path: &Path) -> Result<PathBuf> {
    match path.to_str() {
        Some(name) => model_file(name).map(PathBuf::from),
        None => Ok(path.to_owned()),
    }
}

/// [`model_file`] for commands that look for the model again and report its errors.
pub(crate) fn peek_model_file(name: &str) -> Option<String> {
    ModelFile::find(name).ok().map(|file| file.path)
}

fn noted(file: ModelFile) -> Result<String> {
    file.notes.iter().for_each(console::note);
    Ok(file.path)
}
