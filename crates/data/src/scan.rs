//! Which files of a folder are images.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{DataError, Result, Unreadable};

/// The extensions of images, small letters.
const EXTENSIONS: [&str; 6] = ["jpg", "jpeg", "png", "gif", "webp", "bmp"];

/// Image files: paths inside the folder, and paths.
type Files = Vec<(String, PathBuf)>;

/// A file that is named like an image.
pub(crate) struct Found {
    /// Its path inside the folder, with `/` between the parts.
    pub(crate) id: String,
    /// Its path.
    pub(crate) path: PathBuf,
}

/// What is in a folder and below it.
#[derive(Default)]
pub(crate) struct Scan {
    /// Images in the byte order of their paths inside the folder.
    pub(crate) images: Vec<Found>,
    /// Subfolders and links that could not be followed.
    pub(crate) unreadable: Vec<Unreadable>,
    /// Files of any other extension, in the same order.
    others: Vec<Found>,
    /// Folders by their real paths, so that a loop of links is walked once.
    visited: HashSet<PathBuf>,
}

/// The image files of a folder and its subfolders, `(path inside the folder, path)` in the byte order of the former. None is opened.
///
/// # Errors
/// - the folder is missing, not a folder, not listable, empty or without images · an entry that cannot be followed
pub fn list_images(folder: &Path) -> Result<Files> {
    let (files, unreadable) = scan_images(folder)?;
    if let Some(Unreadable { file, reason }) = unreadable.into_iter().next() {
        return Err(DataError::Unlistable {
            path: folder.join(file),
            source: io::Error::other(reason),
        });
    }
    Ok(files)
}

/// What is in a folder and its subfolders.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Image files: paths inside the folder, and paths, in the byte order of the former.
    pub images: Vec<(String, PathBuf)>,
    /// Images, subfolders and links that cannot be followed.
    pub unreadable: Vec<Unreadable>,
    /// All other files, in the same order. Hidden files and folders are nowhere here.
    pub others: Vec<(String, PathBuf)>,
}

/// Everything in a folder and its subfolders; also where there are no images.
///
/// # Errors
/// - the folder is missing, not a folder or not listable
pub fn list_all(folder: &Path) -> Result<Listing> {
    let Scan {
        images,
        unreadable,
        others,
        ..
    } = walk(folder)?;
    let pair = |Found { id, path }| (id, path);
    Ok(Listing {
        images: images.into_iter().map(pair).collect(),
        unreadable,
        others: others.into_iter().map(pair).collect(),
    })
}

/// As [`list_images`], with the entries that cannot be followed beside the others instead of an error.
///
/// # Errors
/// - the folder is missing, not a folder, not listable, empty or without images
pub fn scan_images(folder: &Path) -> Result<(Files, Vec<Unreadable>)> {
    let Scan {
        images, unreadable, ..
    } = scan(folder)?;
    let files = images.into_iter();
    Ok((
        files.map(|Found { id, path }| (id, path)).collect(),
        unreadable,
    ))
}

/// Lists a folder and its subfolders; links are followed, hidden files and folders (named with a leading dot) are passed over.
///
/// # Errors
/// - missing · not a folder · not listable · empty · without images
pub(crate) fn scan(folder: &Path) -> Result<Scan> {
    let scan = walk(folder)?;
    if scan.images.is_empty() && scan.unreadable.is_empty() {
        if scan.others.is_empty() {
            return Err(DataError::Empty {
                path: folder.to_owned(),
            });
        }
        return Err(DataError::NoImages {
            path: folder.to_owned(),
            extensions: EXTENSIONS.map(|e| format!(".{e}")).join(" "),
            found: scan.describe_others(),
        });
    }
    Ok(scan)
}

/// As [`scan`], whatever is there.
fn walk(folder: &Path) -> Result<Scan> {
    let fail = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => DataError::Missing {
            path: folder.to_owned(),
        },
        _ => DataError::Unlistable {
            path: folder.to_owned(),
            source,
        },
    };
    if !fs::metadata(folder).map_err(fail)?.is_dir() {
        return Err(DataError::NotAFolder {
            path: folder.to_owned(),
        });
    }
    let mut scan = Scan::default();
    scan.walk(folder, "").map_err(fail)?;
    for files in [&mut scan.images, &mut scan.others] {
        files.sort_by(|a, b| a.id.as_bytes().cmp(b.id.as_bytes()));
    }
    scan.unreadable.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(scan)
}

impl Scan {
    /// Adds what is in `folder`, whose path inside the scanned one is `prefix`.
    fn walk(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        if !self.visited.insert(fs::canonicalize(folder)?) {
            return Ok(());
        }
        let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
        // The operating system's order is arbitrary, and it decides under which name a folder with two names is listed.
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            let id = format!("{prefix}{name}");
            let path = entry.path();
            let is_image = is_image(&path);
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => {
                    if let Err(error) = self.walk(&path, &format!("{id}/")) {
                        self.leave_out(id, &error);
                    }
                }
                Ok(_) if is_image => self.images.push(Found { id, path }),
                Ok(_) => self.others.push(Found { id, path }),
                Err(error) if is_image => self.leave_out(id, &error),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn leave_out(&mut self, file: String, error: &io::Error) {
        let reason = format!("cannot be opened: {error}");
        self.unreadable.push(Unreadable { file, reason });
    }

    /// `3 other files (2 x .txt, 1 x .parquet)`, the most frequent first.
    fn describe_others(&self) -> String {
        const SHOWN: usize = 5;
        let total = self.others.len();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for Found { path, .. } in &self.others {
            *counts.entry(extension(path)).or_default() += 1;
        }
        let mut kinds: Vec<_> = counts.iter().collect();
        kinds.sort_by_key(|&(_, &n)| std::cmp::Reverse(n));
        let shown: Vec<String> = kinds
            .iter()
            .take(SHOWN)
            .map(|(extension, n)| match extension.as_str() {
                "" => format!("{n} without an extension"),
                extension => format!("{n} x .{extension}"),
            })
            .collect();
        let more = if kinds.len() > SHOWN { ", .." } else { "" };
        let files = if total == 1 { "file" } else { "files" };
        format!("{total} other {files} ({}{more})", shown.join(", "))
    }
}

/// Whether a file is named like an image: `.jpg`, `.jpeg`, `.png`, `.gif`, `.webp` or `.bmp`, in any case.
pub fn is_image(path: &Path) -> bool {
    EXTENSIONS.contains(&extension(path).as_str())
}

/// The extension in small letters, empty if there is none.
fn extension(path: &Path) -> String {
    path.extension().map_or_else(String::new, |e: &OsStr| {
        e.to_string_lossy().to_ascii_lowercase()
    })
}
