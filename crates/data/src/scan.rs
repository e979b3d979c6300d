//! Finds the images of a folder.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, FileType},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use sdft_imaging::{
    ImagingError, Kind, Limits, Reading, START, is_named_like_a_picture, kind_of_bytes,
    read_image_file,
};

use crate::{DataError, Result, Unreadable, paths::Paths};

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
    Ok(scan(folder)?.into_listing())
}

/// Like [`list_all`], for folders that should contain images.
///
/// # Errors
/// Fails for the same reasons as [`list_all`], or if the folder contains nothing that may be an image.
pub fn scan_images(folder: &Path) -> Result<Listing> {
    Ok(scan(folder)?.with_images(folder)?.into_listing())
}

/// A [`Listing`] that stays small for a million files.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) images: Paths,
    pub(crate) unreadable: Vec<Unreadable>,
    pub(crate) others: Paths,
    pub(crate) hidden: Vec<String>,
}

/// Lists a folder and its subfolders, see [`list_all`].
///
/// # Errors
/// Fails for the same reasons as [`list_all`].
pub(crate) fn scan(folder: &Path) -> Result<Scan> {
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
    let mut walk = Walk {
        files: Paths::new(folder),
        unreadable: Vec::new(),
        hidden: Vec::new(),
        visited: HashSet::new(),
    };
    walk.folder(folder, "").map_err(fail)?;
    let Walk {
        files,
        mut unreadable,
        mut hidden,
        ..
    } = walk;
    let sorted = files.sorted();
    let found: Vec<Found> = sorted
        .par_iter()
        .map(|&i| Found::of(&files, i as usize))
        .collect();
    let all = || sorted.iter().map(|&i| i as usize).zip(&found);
    let of = |wanted: &Found| {
        let chosen = all().filter(|&(_, found)| found == wanted);
        files.select(chosen.map(|(i, _)| i))
    };
    for (i, found) in all() {
        if let Found::Unreadable(one) = found {
            let file = files.id(i).to_owned();
            unreadable.push(Unreadable {
                file,
                ..(**one).clone()
            });
        }
    }
    unreadable.sort_by(|a, b| a.file.cmp(&b.file));
    hidden.sort();
    Ok(Scan {
        images: of(&Found::Image),
        others: of(&Found::Other),
        unreadable,
        hidden,
    })
}

/// What a file is by its first bytes.
#[derive(PartialEq)]
enum Found {
    Image,
    Other,
    /// An image candidate; its name is filled in later.
    Unreadable(Box<Unreadable>),
}

impl Found {
    fn of(files: &Paths, i: usize) -> Self {
        let (id, path) = (files.id(i), files.path(i));
        let refuse = |reason, kind: Option<&str>| {
            Self::Unreadable(Box::new(Unreadable {
                file: String::new(),
                reason,
                kind: kind.map(str::to_owned),
            }))
        };
        let bytes = match start(&path) {
            Ok(bytes) => bytes,
            Err(error) => return refuse(format!("cannot be opened: {error}"), None),
        };
        let reason = || ImagingError::unknown(id, &bytes).reason();
        match kind_of_bytes(&bytes) {
            Kind::Picture("NPZ") if !holds_images(&path, &bytes) => Self::Other,
            Kind::Picture(_) => Self::Image,
            Kind::Other if !is_named_like_a_picture(&path) => Self::Other,
            Kind::Other => refuse(reason(), None),
            Kind::Unread(name) => refuse(reason(), Some(name)),
        }
    }
}

/// Whether an archive of arrays that begins with these bytes holds images that no other file has. Statistics have several arrays, and
/// `samples_NxHxWxC.npz` is what guided-diffusion and `sample --npz` write next to the same images.
fn holds_images(path: &Path, start: &[u8]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let shape = name.strip_prefix("samples_");
    let shape = shape.and_then(|rest| rest.strip_suffix(".npz"));
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()) && !part.is_empty();
    if shape.is_some_and(|shape| shape.split('x').count() == 4 && shape.split('x').all(is_number)) {
        return false;
    }
    let first = start.get(30..).unwrap_or_default();
    first.starts_with(b"arr_0.npy")
        || read_image_file(path, &Limits::default())
            .and_then(|bytes| Reading::default().pages(&bytes, &name))
            .is_ok()
}

impl Scan {
    /// The scan, if `folder` contains something that may be an image.
    ///
    /// # Errors
    /// Fails if it does not; the error says what it contains.
    pub(crate) fn with_images(self, folder: &Path) -> Result<Self> {
        if !self.images.is_empty() || !self.unreadable.is_empty() {
            return Ok(self);
        }
        let path = folder.to_owned();
        let hidden = self.hidden.iter().map(String::as_str);
        Err(match describe_skipped(self.others.ids(), hidden) {
            None => DataError::Empty { path },
            Some(found) => DataError::NoImages { path, found },
        })
    }

    fn into_listing(self) -> Listing {
        Listing {
            images: self.images.to_vec(),
            unreadable: self.unreadable,
            others: self.others.to_vec(),
            hidden: self.hidden,
        }
    }
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

    /// The files besides images in one line: `3 files that are not images (2 x .txt, 1 x .jsonl), 1 hidden (.DS_Store)`. Those that the
    /// program itself puts next to images are left out.
    #[must_use]
    pub fn describe_skipped(&self) -> Option<String> {
        let others = self.others.iter().map(|(id, _)| id.as_str());
        let hidden = self.hidden.iter().map(String::as_str);
        let is_foreign = |id: &&str| is_foreign(id);
        describe_skipped(others.filter(is_foreign), hidden.filter(is_foreign))
    }
}

/// What the program itself puts next to images.
const OWN: [&str; 6] = [
    ".made.jsonl",
    ".made.lock",
    "dataset.json",
    "index.jsonl",
    "plan.toml",
    "report.html",
];

/// Whether a file is none that the program itself puts next to images.
pub(crate) fn is_foreign(id: &str) -> bool {
    let name = Path::new(id).file_name().unwrap_or_default();
    OWN.iter().all(|own| name != *own)
}

/// The line of [`Listing::describe_skipped`] for exactly these files; `None` if there are none.
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
struct Walk {
    /// Regular files that are not hidden.
    files: Paths,
    unreadable: Vec<Unreadable>,
    hidden: Vec<String>,
    /// Folders by canonical path, so that a loop of links is visited once.
    visited: HashSet<PathBuf>,
}

impl Walk {
    /// Adds the content of `folder`, whose path relative to the scanned folder is `prefix`.
    fn folder(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        if !self.visited.insert(fs::canonicalize(folder)?) {
            return Ok(());
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            entries.push((entry.file_name(), entry.file_type()));
        }
        // Sort, because the operating system's order is arbitrary and decides under which name a folder with two names is listed.
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (name, kind) in entries {
            if name.as_encoded_bytes().starts_with(b".") {
                self.hidden
                    .push(format!("{prefix}{}", name.to_string_lossy()));
                continue;
            }
            if kind.as_ref().is_ok_and(FileType::is_file) {
                self.files.push(prefix, folder, &name);
                continue;
            }
            let path = folder.join(&name);
            let reason = match fs::metadata(&path) {
                Ok(found) if found.is_dir() => {
                    let inside = format!("{prefix}{}/", name.to_string_lossy());
                    match self.folder(&path, &inside) {
                        Ok(()) => continue,
                        Err(error) => format!("cannot be opened: {error}"),
                    }
                }
                Ok(found) if found.is_file() => {
                    self.files.push(prefix, folder, &name);
                    continue;
                }
                Ok(found) => {
                    let kind = sdft_files::kind_of(found.file_type());
                    format!("expected a regular file, found {kind}")
                }
                Err(error) if kind.is_ok_and(|kind| kind.is_symlink()) => {
                    format!("broken link: {error}")
                }
                Err(error) => format!("cannot be opened: {error}"),
            };
            self.unreadable.push(Unreadable {
                file: format!("{prefix}{}", name.to_string_lossy()),
                reason,
                kind: None,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_program_are_not_listed_as_skipped() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["plan.toml", ".made.lock", ".made.jsonl", "report.html"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let skipped = || list_all(dir.path()).unwrap().describe_skipped();
        assert_eq!(skipped(), None);
        // They are what a folder without images contains.
        let error = list_images(dir.path()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("2 hidden"), "{error}");
        std::fs::write(dir.path().join("notes.txt"), "").unwrap();
        let expected = "1 file that is not an image (1 x .txt)";
        assert_eq!(skipped().as_deref(), Some(expected));
    }
}
