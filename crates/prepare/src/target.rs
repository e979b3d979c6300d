//! The target folder.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use sdft_assets::INDEX;
use sdft_files::Flush;
use sdft_imaging::Fit;

use crate::{
    PrepareError, Result,
    index::{self, Header, JOURNAL, Record},
};

/// Prefix of temporary names in earlier versions.
const ASIDE: &str = ".aside-";
const LOCK: &str = ".lock";

/// A target folder, locked by this process.
pub(crate) struct Target {
    pub(crate) folder: PathBuf,
    /// Records of existing images, by their file name without the ending.
    pub(crate) known: HashMap<String, Record>,
    /// Locked while this value lives.
    _lock: File,
}

impl Target {
    /// Opens and locks the folder; creates it if necessary.
    pub(crate) fn open(folder: &Path, header: &Header) -> Result<Self> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| PrepareError::Io {
                path,
                cause: source,
            }
        };
        let foreign = |found: String| PrepareError::Foreign {
            path: folder.to_owned(),
            found,
        };
        // A folder belongs to a set if it has an index or a journal of one.
        let notes = [INDEX, JOURNAL].map(|name| folder.join(name));
        let [index, journal] = [index::read(&notes[0])?, index::read(&notes[1])?];
        if index.is_none() && notes[0].exists() {
            return Err(foreign(format!(
                "an {INDEX} that is not the index of a set"
            )));
        }
        let is_new = index.is_none() && journal.is_none();
        if let Ok(entries) = fs::read_dir(folder)
            && is_new
        {
            for entry in entries {
                let name = entry.map_err(io(folder))?.file_name();
                let name = name.to_string_lossy();
                // A process may also be killed before it has a journal.
                let is_of_a_crash = [LOCK, JOURNAL].contains(&&*name)
                    || name.starts_with(ASIDE)
                    || sdft_files::is_temporary(&name);
                if !is_of_a_crash {
                    return Err(foreign(name.into_owned()));
                }
            }
        }
        fs::create_dir_all(folder).map_err(io(folder))?;
        let path = folder.join(LOCK);
        if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(foreign(format!("a {LOCK} that is not a file")));
        }
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        let lock = options.open(&path).map_err(io(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(PrepareError::Busy {
                    path: folder.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(io(&path)(source)),
        }
        let mut known = HashMap::new();
        for (found, records) in [index, journal].into_iter().flatten() {
            let is_the_same = *header
                == Header {
                    reading: header.reading,
                    ..found.clone()
                };
            if !is_the_same {
                return Err(PrepareError::Other {
                    path: folder.to_owned(),
                    found: describe(&found),
                    expected: describe(header),
                });
            }
            if found.reading != header.reading {
                continue;
            }
            for record in records {
                // The file name of an image always follows from its source's hash, not from the record.
                if let (Some(hash), Some(stem)) = (&record.sha256, record.stem())
                    && stem.starts_with(hash)
                {
                    known.insert(stem.to_owned(), record.clone());
                }
            }
        }
        let target = Self {
            folder: folder.to_owned(),
            known,
            _lock: lock,
        };
        target.sweep()?;
        Ok(target)
    }

    /// Deletes partial files of killed processes.
    fn sweep(&self) -> Result<()> {
        let io = |source| PrepareError::Io {
            path: self.folder.clone(),
            cause: source,
        };
        sdft_files::sweep(&self.folder).map_err(io)?;
        for entry in fs::read_dir(&self.folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            let is_aside = entry.file_name().to_string_lossy().starts_with(ASIDE);
            if is_aside && !entry.path().is_dir() {
                fs::remove_file(entry.path()).map_err(io)?;
            }
        }
        Ok(())
    }

    /// Writes an image under its final name atomically. The hash in the index detects one lost by a power failure.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        write_to_system(&path, bytes).map_err(|cause| PrepareError::Io { path, cause })
    }

    /// Writes a file outside the folder. A killed process leaves only a temporary file inside the folder, which is deleted later.
    pub(crate) fn put_outside(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        sdft_files::replace(path, &self.folder, |temporary| {
            write_to_system(temporary, bytes)
        })
    }

    /// Whether an image exists as in its record.
    pub(crate) fn has(&self, record: &Record) -> bool {
        let (Some(file), Some(hash)) = (&record.file, &record.file_sha256) else {
            return false;
        };
        sdft_files::read_regular(&self.folder.join(file), u64::MAX)
            .is_ok_and(|bytes| sdft_files::sha256_bytes(&bytes) == *hash)
    }

    /// Deletes images that have our kind of name but are not in `records`, left from an earlier set or a crash. Returns how many.
    pub(crate) fn retain(&self, records: &[Record]) -> Result<usize> {
        let io = |source| PrepareError::Io {
            path: self.folder.clone(),
            cause: source,
        };
        let kept: HashSet<&str> = records
            .iter()
            .filter_map(|record| record.file.as_deref())
            .collect();
        let mut removed = 0;
        for entry in fs::read_dir(&self.folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if stem(&name).is_some() && !kept.contains(&*name) {
                fs::remove_file(entry.path()).map_err(io)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn write_to_system(path: &Path, bytes: &[u8]) -> io::Result<()> {
    sdft_files::write_atomic_with(path, Flush::ToSystem, |out| out.write_all(bytes))
}

/// Endings of images.
const ENDINGS: [&str; 3] = ["png", "tif", "npy"];

/// The file name of an image: the hash of its source, or what [`stem_of_page`] returns, and an ending.
pub(crate) fn file_name(stem: &str, ending: &str) -> String {
    format!("{stem}.{ending}")
}

/// The beginning of the file name of a page, counted from 1.
pub(crate) fn stem_of_page(sha256: &str, page: usize) -> String {
    format!("{sha256}-{page}")
}

/// The name of an image without its ending; `None` for any other file.
pub(crate) fn stem(file: &str) -> Option<&str> {
    let (stem, ending) = file.rsplit_once('.')?;
    let (hash, page) = stem.split_once('-').unwrap_or((stem, "1"));
    let is_hash = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    let is_page = !page.is_empty() && page.bytes().all(|b| b.is_ascii_digit());
    (is_hash && is_page && ENDINGS.contains(&ending)).then_some(stem)
}

fn describe(header: &Header) -> String {
    let [height, width] = header.size;
    let mut text = format!("at {height}x{width}");
    let mut add = |what: Option<String>| {
        if let Some(what) = what {
            text.push_str(&format!(", {what}"));
        }
    };
    add(header.channels.map(|n| format!("{n} channels")));
    add(header.depth.map(|depth| format!("depth {depth}")));
    let fit = match header.fit {
        Fit::Crop | Fit::RandomCrop => None,
        Fit::Pad => Some("padded"),
        Fit::Resize => Some("resized"),
    };
    add(fit.map(str::to_owned));
    add(header
        .background
        .map(|colour| format!("background {colour:?}")));
    format!("{text} from {}", header.inputs.join(", "))
}
