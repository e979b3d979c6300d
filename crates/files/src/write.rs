//! Writing under a temporary name, flushing and renaming.

use crate::temporary_path;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// When a written file is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Before the write returns: a power cut afterwards loses nothing.
    ToDisk,
    /// When the system writes it. For many small files of which a lost one is detected and written again.
    ToSystem,
}

/// Writes `bytes` to `path`, replacing a file or link there.
///
/// # Errors
/// The folder is missing or not writable, the disk is full, or `path` is neither a regular file nor a link. Then the old file stays, and
/// no temporary file is left.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomic_with(path, Flush::ToDisk, |out| out.write_all(bytes))
}

/// Like [`write_atomic`], with the contents written by `fill`.
///
/// # Errors
/// Those of [`write_atomic`] and of `fill`.
pub fn write_atomic_with<E: From<io::Error>>(
    path: &Path,
    flush: Flush,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<(), E> {
    // A rename would replace a device or a pipe with a file.
    if fs::symlink_metadata(path).is_ok_and(|old| !old.is_file() && !old.is_symlink()) {
        return Err(io::Error::other("it exists and is not a regular file").into());
    }
    replace(path, parent_of(path), |temporary| {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(temporary)?;
        let mut out = BufWriter::with_capacity(1 << 18, file);
        fill(&mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        if flush == Flush::ToDisk {
            file.sync_all()?;
        }
        Ok::<(), E>(())
    })?;
    if flush == Flush::ToDisk {
        sync_dir(parent_of(path))?;
    }
    Ok(())
}

/// Calls `make` with a temporary path in `folder`, and renames what it made there to `path`. If either fails, the temporary file is
/// removed, and `path` stays as it was.
///
/// `folder` is the folder of `path`, or another one on the same file system that is swept.
///
/// # Errors
/// `make` or the system fails.
pub fn replace<E: From<io::Error>>(
    path: &Path,
    folder: &Path,
    make: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let temporary = temporary_path(&folder.join("file"))?;
    let done = make(&temporary).and_then(|()| Ok(fs::rename(&temporary, path)?));
    if done.is_err() {
        // The first error matters.
        let _ = fs::remove_file(&temporary);
    }
    done
}

/// Renames a file or folder in its folder, and flushes the list of names, so that the new name survives a power cut.
///
/// # Errors
/// The system fails.
pub fn rename_synced(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_dir(parent_of(to))
}

/// Flushes a folder's list of names; otherwise a power cut may undo a rename. Does nothing where folders cannot be opened (Windows) or
/// the file system cannot flush them.
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

/// Opens a regular file for appending by one process. It is created if it is missing. It can be locked and truncated; after a truncation
/// the caller seeks to the end.
///
/// # Errors
/// `path` is a link or not a regular file, or the system fails.
pub fn open_append(path: &Path) -> io::Result<File> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::other(
            "it is a link or not a regular file; expected a regular file",
        ));
    }
    appending(path)
}

#[cfg(not(windows))]
fn appending(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Windows neither locks nor truncates a file that is open for appending alone.
#[cfg(windows)]
fn appending(path: &Path) -> io::Result<File> {
    use std::io::Seek as _;
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .clone();
    let mut file = options.open(path)?;
    file.seek(io::SeekFrom::End(0))?;
    Ok(file)
}

/// The folder of `path`; `.` for a bare name.
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
    fn a_file_with_the_longest_name_is_replaced_and_no_temporary_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n".repeat(255));
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_while_writing_keeps_the_old_file() {
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
    fn a_temporary_file_may_be_in_another_folder_and_is_removed_after_an_error() {
        let root = tempfile::tempdir().unwrap();
        let (folder, path) = (root.path().join("swept"), root.path().join("a"));
        fs::create_dir(&folder).unwrap();
        let make = |text: &'static str| move |temporary: &Path| fs::write(temporary, text);
        replace(&path, &folder, make("new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let failed = replace(&path, &folder, |temporary| {
            fs::write(temporary, "half")?;
            Err(io::Error::other("no more"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_at_the_path_is_an_error() {
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
    fn a_folder_that_is_not_writable_is_an_error() {
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
