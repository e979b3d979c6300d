//! Finds the images of a folder.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use sdft_imaging::{ImagingError, Kind, START, is_named_like_a_picture, kind_of_bytes};

use crate::{DataError, Result, Unreadable};

/// Files: paths relative to the folder, and full paths.
type Files = Vec<(String, PathBuf)>;

/// The content of a folder and its subfolders. Every entry is in one of the lists, with its path relative to the folder, sorted by bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Files that are images by content, regardless of their names.
    pub images: Vec<(String, PathBuf)>,
    /// Image candidates that cannot be read: formats such as HEIC and videos, files with the name but not the content of an image, pipes, broken
    /// links, folders that cannot be opened.
    pub unreadable: Vec<Unreadable>,
    /// Files that are not images.
    pub others: Vec<(String, PathBuf)>,
    /// Hidden files and folders, whose names begin with a dot. They are not opened.
    pub hidden: Vec<String>,
}

/// Lists a folder and its subfolders, which need not contain images. Links are followed, and a loop of links is visited once.
///
/// Files are recognised by their first bytes.
///
/// # Errors
/// Fails if the folder does not exist, is not a folder or cannot be listed.
pub fn list_all(folder: &Path) -> Result<Listing> {
    let fail = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => DataError::Missing {
            path: folder.to_owned(),
        },
        _ => DataError::Unlistable {
            path: folder.to_owned(),
            source,
        },
    };
    let found = fs::metadata(folder).map_err(fail)?;
    if !found.is_dir() {
        return Err(DataError::NotAFolder {
            path: folder.to_owned(),
            found: sdft_files::kind_of(found.file_type()),
        });
    }
    let mut walk = Walk::default();
    walk.folder(folder, "").map_err(fail)?;
    let starts: Vec<_> = walk.files.par_iter().map(|(_, path)| start(path)).collect();
    let mut listing = walk.listing;
    for (file, start) in walk.files.into_iter().zip(starts) {
        match start {
            Ok(bytes) => match kind_of_bytes(&bytes) {
                Kind::Picture(_) => listing.images.push(file),
                Kind::Other if !is_named_like_a_picture(&file.1) => listing.others.push(file),
                Kind::Unread(_) | Kind::Other => {
                    let error = ImagingError::unknown(&file.0, &bytes);
                    listing.leave_out(file.0, error.reason());
                }
            },
            Err(error) => listing.leave_out(file.0, format!("cannot be opened: {error}")),
        }
    }
    for files in [&mut listing.images, &mut listing.others] {
        files.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    }
    listing.unreadable.sort_by(|a, b| a.file.cmp(&b.file));
    listing.hidden.sort();
    Ok(listing)
}

/// Like [`list_all`], for folders that should contain images.
///
/// # Errors
/// Fails for the same reasons as [`list_all`], or if the folder contains nothing that may be an image.
pub fn scan_images(folder: &Path) -> Result<Listing> {
    let listing = list_all(folder)?;
    if listing.images.is_empty() && listing.unreadable.is_empty() {
        let path = folder.to_owned();
        return Err(match listing.describe_skipped() {
            None => DataError::Empty { path },
            Some(found) => DataError::NoImages { path, found },
        });
    }
    Ok(listing)
}

/// The images of a folder and its subfolders, all of which must be readable.
///
/// # Errors
/// Fails for the same reasons as [`scan_images`], or if an image candidate cannot be read; the error lists all of them.
pub fn list_images(folder: &Path) -> Result<Files> {
    scan_images(folder)?.all_readable(folder)
}

impl Listing {
    /// The images, if no image candidate is left out.
    ///
    /// # Errors
    /// Fails if an image candidate cannot be read; the error lists all of them.
    pub fn all_readable(self, folder: &Path) -> Result<Files> {
        if self.unreadable.is_empty() {
            return Ok(self.images);
        }
        Err(DataError::Unread {
            path: folder.to_owned(),
            unreadable: self.unreadable,
        })
    }

    /// The files besides images in one line: `3 files that are not images (2 x .txt, 1 x .jsonl), 1 hidden (.DS_Store)`.
    #[must_use]
    pub fn describe_skipped(&self) -> Option<String> {
        let others = self.others.iter().map(|(id, _)| id.as_str());
        describe_skipped(others, self.hidden.iter().map(String::as_str))
    }

    fn leave_out(&mut self, file: String, reason: String) {
        self.unreadable.push(Unreadable { file, reason });
    }
}

/// The line of [`Listing::describe_skipped`] for these files; `None` if there are none.
pub fn describe_skipped<'a>(
    others: impl Iterator<Item = &'a str>,
    hidden: impl Iterator<Item = &'a str>,
) -> Option<String> {
    const SHOWN: usize = 5;
    let listed = |all: &[String]| {
        let more = if all.len() > SHOWN { ", .." } else { "" };
        format!("{}{more}", all[..all.len().min(SHOWN)].join(", "))
    };
    let mut parts = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for id in others {
        let ending = Path::new(id).extension().unwrap_or_default();
        let ending = ending.to_string_lossy().to_ascii_lowercase();
        *counts.entry(ending).or_default() += 1;
    }
    if !counts.is_empty() {
        let total: usize = counts.values().sum();
        let mut kinds: Vec<_> = counts.into_iter().collect();
        kinds.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
        let kinds: Vec<String> = kinds
            .into_iter()
            .map(|(ending, n)| match ending.as_str() {
                "" => format!("{n} without an extension"),
                ending => format!("{n} x .{ending}"),
            })
            .collect();
        let files = if total == 1 {
            "file that is not an image"
        } else {
            "files that are not images"
        };
        parts.push(format!("{total} {files} ({})", listed(&kinds)));
    }
    let hidden: Vec<String> = hidden.map(str::to_owned).collect();
    if !hidden.is_empty() {
        parts.push(format!("{} hidden ({})", hidden.len(), listed(&hidden)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The first bytes of a file, enough to recognise it.
fn start(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(START);
    sdft_files::open_regular(path)?
        .take(START as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A listing in progress.
#[derive(Default)]
struct Walk {
    listing: Listing,
    /// Regular files that are not hidden.
    files: Files,
    /// Folders by canonical path, so that a loop of links is visited once.
    visited: HashSet<PathBuf>,
}

impl Walk {
    /// Adds the content of `folder`, whose path relative to the scanned folder is `prefix`.
    fn folder(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        if !self.visited.insert(fs::canonicalize(folder)?) {
            return Ok(());
        }
        let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
        // Sort, because the operating system's order is arbitrary and decides under which name a folder with two names is listed.
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = format!("{prefix}{name}");
            if name.starts_with('.') {
                self.listing.hidden.push(id);
                continue;
            }
            let path = entry.path();
            match fs::metadata(&path) {
                Ok(found) if found.is_dir() => {
                    if let Err(error) = self.folder(&path, &format!("{id}/")) {
                        self.listing
                            .leave_out(id, format!("cannot be opened: {error}"));
                    }
                }
                Ok(found) if found.is_file() => self.files.push((id, path)),
                Ok(found) => {
                    let kind = sdft_files::kind_of(found.file_type());
                    let reason = format!("expected a regular file, found {kind}");
                    self.listing.leave_out(id, reason);
                }
                Err(error) if entry.file_type().is_ok_and(|t| t.is_symlink()) => {
                    let reason = format!("broken link: {error}");
                    self.listing.leave_out(id, reason);
                }
                Err(error) => self
                    .listing
                    .leave_out(id, format!("cannot be opened: {error}")),
            }
        }
        Ok(())
    }
}
