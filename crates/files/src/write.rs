//! Writing under a temporary name, flushing and renaming.

use crate::temporary_path;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Whether a file is on the disk when a write returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// It is: a power cut right after loses nothing.
    ToDisk,
    /// It is handed to the system. For many small files of which a lost one is noticed and made again.
    ToSystem,
}

/// Writes `bytes` to `path`, replacing a file or link there.
///
/// # Errors
/// The folder is missing or not writable, the disk is full, or `path` is something other than a regular file or a link. What was at
/// `path` stays, and no temporary file does.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomic_with(path, Flush::ToDisk, |out| out.write_all(bytes))
}

/// Like [`write_atomic`], with the contents written by `fill`.
///
/// # Errors
/// Those of [`write_atomic`], and whatever `fill` returns.
pub fn write_atomic_with<E: From<io::Error>>(
    path: &Path,
    flush: Flush,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    // A rename would put a file in the place of a device, pipe or folder.
    if fs::symlink_metadata(path).is_ok_and(|old| !old.is_file() && !old.is_symlink()) {
        return Err(io::Error::other("it exists and is not a regular file").into());
    }
    let aside = temporary_path(path)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&aside)?;
    let write = || {
        let mut out = BufWriter::with_capacity(1 << 18, file);
        fill(&mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        if flush == Flush::ToDisk {
            file.sync_all()?;
        }
        fs::rename(&aside, path)?;
        Ok(())
    };
    if let Err(error) = write() {
        // The first error is the one worth telling.
        let _ = fs::remove_file(&aside);
        return Err(error);
    }
    if flush == Flush::ToDisk {
        sync_dir(parent_of(path))?;
    }
    Ok(())
}

/// Flushes a folder's list of names, without which a rename may be forgotten in a power cut. Does nothing where folders cannot be
/// opened (Windows) or their file system cannot flush them.
///
/// # Errors
/// The folder cannot be opened, or the disk reports an error.
pub fn sync_dir(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder)?.sync_all() {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Opens a regular file for appending, and creates it where there is none.
///
/// # Errors
/// `path` is a link or another thing that is not a regular file, or the system refuses.
pub fn open_append(path: &Path) -> io::Result<File> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::other(
            "it is a link or not a regular file, and is not written through",
        ));
    }
    OpenOptions::new().append(true).create(true).open(path)
}

/// The folder that `path` lies in; `.` for a bare name.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_longest_name_is_replaced_and_nothing_is_left_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n".repeat(255));
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_on_the_way_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_atomic(&path, b"old").unwrap();
        let failed: io::Result<()> = write_atomic_with(&path, Flush::ToDisk, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_in_the_place_of_the_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::create_dir(&path).unwrap();
        assert!(write_atomic(&path, b"x").is_err());
        assert!(open_append(&path).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_replaced_and_never_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, b"precious").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(open_append(&link).is_err());
        write_atomic(&link, b"new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert_eq!(fs::read(&link).unwrap(), b"new");
        assert!(!fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_that_takes_no_files_is_an_error() {
        let error = write_atomic(Path::new("/proc/self/nothing"), b"x").unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
    }

    #[test]
    fn appending_creates_and_continues() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        for text in ["a", "b"] {
            open_append(&path)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"ab");
    }
}
