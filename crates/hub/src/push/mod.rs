//! Publishing a model on the Hub: its files, its card, and the upload.

mod card;
mod files;
mod metrics;
mod names;
mod origin;
mod run;
mod target;
mod upload;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use sdft_files::{human_size, plural};

pub use files::Upload;
pub use target::Target;

use crate::{HubError, Result, error::io};
use run::{CARD, Folder};

/// The files of a model as they will be published.
#[derive(Clone, Debug)]
pub struct Publication {
    target: Target,
    files: Vec<Upload>,
    left_out: Vec<String>,
    has_gaps: bool,
}

impl Publication {
    /// The files of the finished run or the model in `folder`: its card, or else a generated one, the plan without paths of this machine, the
    /// weights, the last samples, and the pictures `with`. Nothing is changed and nothing is sent.
    ///
    /// # Errors
    /// The folder has no finished model, a file is damaged or cannot be read, or a file of `with` is not one that may be published.
    pub fn of(folder: &Path, target: Target, with: &[PathBuf]) -> Result<Self> {
        let folder = Folder::open(folder)?;
        let mut files = files::files(&folder, with)?;
        let (card, text) = match folder.file(CARD) {
            Some(path) => {
                let text = sdft_files::read_text(&path).map_err(io(&path))?;
                (Upload::text(CARD, text.clone(), "that of the folder"), text)
            }
            None => {
                let text = card::card(&folder, &files, &target);
                (Upload::text(CARD, text.clone(), "generated"), text)
            }
        };
        let left_out = files::left_out(&folder, &files)?;
        files.insert(0, card);
        Ok(Self {
            target,
            files,
            left_out,
            has_gaps: text.contains(card::FILL_IN),
        })
    }

    /// The files, the card first.
    pub fn files(&self) -> &[Upload] {
        &self.files
    }

    /// Whether the card has places that the author has to fill in.
    pub fn has_gaps(&self) -> bool {
        self.has_gaps
    }

    /// The list of all files with their sizes, where they go, and what is left out.
    pub fn describe(&self) -> String {
        let revision = self.target.revision.as_deref();
        let mut out = format!("to {}", self.target.repository());
        if let Some(revision) = revision {
            let _ = write!(out, ", branch {revision}");
        }
        out.push_str(":\n");
        let width = self
            .files
            .iter()
            .map(|file| file.path.chars().count())
            .max();
        let width = width.unwrap_or(0);
        for Upload {
            path, size, remark, ..
        } in &self.files
        {
            let line = format!("  {path:<width$}  {:>10}  {remark}", human_size(*size));
            let _ = writeln!(out, "{}", line.trim_end());
        }
        let total = self.files.iter().map(|file| file.size).sum();
        let files = plural(self.files.len(), "file", "files");
        let _ = write!(out, "{files}, {}", human_size(total));
        if !self.left_out.is_empty() {
            let _ = write!(out, "\nnot published: {}", self.left_out.join(", "));
        }
        out
    }
}

/// Writes the generated card of a folder into it, as `README.md`, and returns its path.
///
/// # Errors
/// Those of [`Publication::of`]; the folder has a card already, or cannot be written.
pub fn write_card(folder: &Path, target: &Target, with: &[PathBuf]) -> Result<PathBuf> {
    let folder = Folder::open(folder)?;
    if let Some(path) = folder.file(CARD) {
        return Err(HubError::Folder {
            path,
            problem: "exists, and is published as it is; remove it to have another one generated"
                .to_owned(),
        });
    }
    let files = files::files(&folder, with)?;
    let path = folder.root.join(CARD);
    let text = card::card(&folder, &files, target);
    sdft_files::write_atomic(&path, text.as_bytes()).map_err(io(&path))?;
    Ok(path)
}
