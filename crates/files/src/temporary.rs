//! Creates, recognises and removes temporary names.

use crate::parent_of;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, process};

const PREFIX: &str = ".sdft-";
const SUFFIX: &str = ".tmp";

/// A temporary path in the folder of `path` that no other writer uses. Nothing is created.
///
/// The name has at most 60 bytes, regardless of `path`. Create the file with `create_new`, or a folder with `create_dir`, so that an
/// existing file is an error and is not replaced.
///
/// # Errors
/// `path` does not end in a name (`/`, `..`).
pub fn temporary_path(path: &Path) -> io::Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    if path.file_name().is_none() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path does not end in the name of a file",
        ));
    }
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    // Processes in different containers may have the same id, but not the same time.
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos() as u64);
    let name = format!("{PREFIX}{:x}-{n:x}-{time:x}{SUFFIX}", process::id());
    Ok(parent_of(path).join(name))
}

/// The endings of temporary names of earlier versions.
const OLD_ENDINGS: [&str; 12] = [
    ".png",
    ".safetensors",
    ".json",
    ".jsonl",
    ".toml",
    ".npz",
    ".csv",
    ".md",
    ".txt",
    ".html",
    "latest",
    "SHA256SUMS",
];

/// Whether a file name is one of [`temporary_path`], or of earlier versions (`.NAME.PID-N.tmp`).
pub fn is_temporary(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(SUFFIX) else {
        return false;
    };
    let fields = |text: &str, n: usize, radix: u32| {
        let all: Vec<&str> = text.split('-').collect();
        let is_number = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_digit(radix));
        all.len() == n && all.iter().all(is_number)
    };
    if let Some(rest) = stem.strip_prefix(PREFIX)
        && fields(rest, 3, 16)
    {
        return true;
    }
    // `.NAME.PID-N`
    match stem.rsplit_once('.') {
        Some((name, numbers)) => {
            // Process ids and counters have no leading zero, which the month of a date can have.
            let padded = |part: &str| part.len() > 1 && part.starts_with('0');
            name.starts_with('.')
                && OLD_ENDINGS.iter().any(|ending| name.ends_with(ending))
                && fields(numbers, 2, 10)
                && !numbers.split('-').any(padded)
        }
        None => false,
    }
}

/// Removes the temporary files and folders directly in `folder`, and returns how many.
///
/// Only for the process that owns the folder, for example by a lock: another writer would lose its file. Links are removed, not followed.
///
/// # Errors
/// The folder cannot be read, or an entry cannot be removed.
pub fn sweep(folder: &Path) -> io::Result<usize> {
    sweep_where(folder, |_| true)
}

/// Like [`sweep`], for a folder that several processes write to: only files that no process has written to for `age`.
///
/// # Errors
/// Those of [`sweep`].
pub fn sweep_older(folder: &Path, age: Duration) -> io::Result<usize> {
    sweep_where(folder, |entry| {
        let modified = entry.metadata().and_then(|found| found.modified());
        modified.is_ok_and(|time| time.elapsed().is_ok_and(|elapsed| elapsed >= age))
    })
}

fn sweep_where(folder: &Path, goes: impl Fn(&fs::DirEntry) -> bool) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !is_temporary(&entry.file_name().to_string_lossy()) || !goes(&entry) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
        removed += 1;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_are_short_unique_and_recognised() {
        let path = Path::new("folder").join("x".repeat(255));
        let (a, b) = (
            temporary_path(&path).unwrap(),
            temporary_path(&path).unwrap(),
        );
        assert_ne!(a, b);
        assert_eq!(a.parent(), Some(Path::new("folder")));
        let name = a.file_name().unwrap().to_str().unwrap();
        assert!(name.len() <= 60 && is_temporary(name), "{name}");
        assert!(temporary_path(Path::new("/")).is_err());
        assert!(temporary_path(Path::new("a/..")).is_err());
    }

    #[test]
    fn names_of_users_are_not_temporary() {
        for name in [
            "a.tmp",
            ".tmp",
            ".sdft-.tmp",
            ".sdft-1-2.tmp",
            ".sdft-1-2-x.tmp",
            ".hidden.tmp",
            "a.1-2.tmp",
            ".1-2.tmp",
            ".a.1-.tmp",
            ".a.b-2.tmp",
            ".notes.2024-01.tmp",
            ".notes.2024-11.tmp",
            ".plan.json.2024-01.tmp",
            ".sdft-1-2-3",
        ] {
            assert!(!is_temporary(name), "{name}");
        }
        for name in [
            ".sdft-1f-0-18a.tmp",
            "..index.partial.jsonl.1-0.tmp",
            ".a.png.77-12.tmp",
            ".latest.77-0.tmp",
        ] {
            assert!(is_temporary(name), "{name}");
        }
    }

    #[test]
    fn sweeping_removes_temporary_files_and_folders_only() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("kept.tmp"), b"x").unwrap();
        fs::write(at(".sdft-1-2-3.tmp"), b"x").unwrap();
        fs::create_dir(at(".sdft-1-2-4.tmp")).unwrap();
        fs::write(at(".sdft-1-2-4.tmp/inside"), b"x").unwrap();
        assert_eq!(sweep(folder.path()).unwrap(), 2);
        assert!(at("kept.tmp").exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn in_a_shared_folder_files_being_written_stay() {
        let folder = tempfile::tempdir().unwrap();
        let hour = Duration::from_secs(3600);
        let file = |name: &str| fs::File::create(folder.path().join(name)).unwrap();
        file(".sdft-1-2-3.tmp");
        let old = file(".sdft-1-2-4.tmp");
        old.set_modified(SystemTime::now() - 2 * hour).unwrap();
        assert_eq!(sweep_older(folder.path(), hour).unwrap(), 1);
        assert!(folder.path().join(".sdft-1-2-3.tmp").exists());
    }

    #[cfg(unix)]
    #[test]
    fn sweeping_removes_a_link_and_not_what_it_leads_to() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(elsewhere.path().join("precious"), b"x").unwrap();
        let link = folder.path().join(".sdft-1-2-3.tmp");
        std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
        assert_eq!(sweep(folder.path()).unwrap(), 1);
        assert!(elsewhere.path().join("precious").exists());
    }
}
