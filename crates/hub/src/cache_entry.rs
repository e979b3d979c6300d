//! One file in the cache: its lock, blob and link.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use sdft_assets::{HubCache, HubFile, WebFile};
use sdft_files::{parent_of, rename_synced, replace, sha256_bytes, write_atomic};

use crate::{
    digest::Hash,
    error::{Result, io},
};

/// The paths of one file in the cache.
pub(crate) struct CacheEntry {
    /// The complete file, named by its hash.
    pub(crate) blob: PathBuf,
    /// The bytes downloaded so far.
    pub(crate) part: PathBuf,
    /// The path that readers use.
    pub(crate) snapshot: PathBuf,
    lock: PathBuf,
    /// The file that records the commit of a branch, and the commit.
    note: Option<(PathBuf, String)>,
}

impl CacheEntry {
    pub(crate) fn of(cache: &HubCache, file: &HubFile, commit: &str, hash: &Hash) -> Self {
        let repository = cache.repository(file.repo_type, &file.repo);
        let blobs = repository.join("blobs");
        Self {
            blob: blobs.join(hash.hex()),
            part: blobs.join(format!("{}.incomplete", hash.hex())),
            snapshot: repository.join("snapshots").join(commit).join(&file.path),
            lock: cache.lock(file.repo_type, &file.repo, hash.hex()),
            note: (file.revision != commit).then(|| {
                let note = cache.note(file.repo_type, &file.repo, &file.revision);
                (note, commit.to_owned())
            }),
        }
    }

    /// A file of another server. Its blob has no name before its hash is known; partial files are named by address and `version`.
    pub(crate) fn of_web(cache: &HubCache, file: &WebFile, version: &str) -> Result<Self> {
        let folder = cache.web_folder(file);
        let blobs = folder.join("blobs");
        let (address, version) = (sha256_bytes(file.url.as_bytes()), version.as_bytes());
        let part = format!("{address:.32}-{:.32}.incomplete", sha256_bytes(version));
        Ok(Self {
            blob: blobs.join("unnamed"),
            part: blobs.join(part),
            snapshot: cache.path_of_web(file)?,
            lock: folder.join("locks").join(format!("{address}.lock")),
            note: None,
        })
    }

    /// This entry with the hash of its content.
    pub(crate) fn with_hash(mut self, hash: &Hash) -> Self {
        self.blob = self.blob.with_file_name(hash.hex());
        self
    }

    /// Deletes partial files of other versions of a file of another server. The caller must hold the lock.
    pub(crate) fn remove_other_versions(&self) -> Result<()> {
        let folder = parent_of(&self.part);
        let name = self.part.file_name().unwrap_or_default().to_string_lossy();
        let Some((address, _)) = name.split_once('-') else {
            return Ok(());
        };
        for entry in fs::read_dir(folder).map_err(io(folder))? {
            let path = entry.map_err(io(folder))?.path();
            let found = path.file_name().unwrap_or_default().to_string_lossy();
            let is_part = found.starts_with(address) && found.ends_with(".incomplete");
            if is_part && found != name {
                fs::remove_file(&path).map_err(io(&path))?;
            }
        }
        Ok(())
    }

    /// Locks the file against other processes; calls `waits` before waiting for one.
    pub(crate) fn lock(&self, waits: impl FnOnce()) -> Result<File> {
        make_parent(&self.lock)?;
        make_parent(&self.blob)?;
        let mut options = File::options();
        options.create(true).truncate(false).write(true).read(true);
        let lock = options.open(&self.lock).map_err(io(&self.lock))?;
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => waits(),
            Err(TryLockError::Error(source)) => return Err(io(&self.lock)(source)),
        }
        lock.lock().map_err(io(&self.lock))?;
        Ok(lock)
    }

    /// Whether the blob exists with the right hash; deletes it otherwise. The caller must hold the lock.
    pub(crate) fn has_blob(&self, hash: &Hash) -> Result<bool> {
        if !self.blob.is_file() {
            return Ok(false);
        }
        if hash.of_file(&self.blob)? == *hash {
            return Ok(true);
        }
        fs::remove_file(&self.blob).map_err(io(&self.blob))?;
        Ok(false)
    }

    /// Gives the complete, verified download its final name.
    pub(crate) fn finish(&self) -> Result<()> {
        // Windows flushes only files that are open for writing.
        let file = File::options().write(true).open(&self.part);
        let file = file.map_err(io(&self.part))?;
        file.sync_all().map_err(io(&self.part))?;
        rename_synced(&self.part, &self.blob).map_err(io(&self.blob))
    }

    /// Makes the blob available at its path in the snapshot.
    pub(crate) fn link_snapshot(&self) -> Result<()> {
        make_parent(&self.snapshot)?;
        if !is_link_to(&self.snapshot, &self.blob) {
            // A link to another blob, or a broken one, or an earlier copy.
            let folder = parent_of(&self.snapshot);
            let make = |temporary: &Path| link(&self.blob, temporary, &self.snapshot);
            replace(&self.snapshot, folder, make).map_err(io(&self.snapshot))?;
        }
        if let Some((note, commit)) = &self.note {
            make_parent(note)?;
            if fs::read_to_string(note).ok().as_deref() != Some(commit) {
                write_atomic(note, commit.as_bytes()).map_err(io(note))?;
            }
        }
        Ok(())
    }
}

fn make_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(io(parent)),
        None => Ok(()),
    }
}

fn is_link_to(link: &Path, target: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).ok();
    fs::symlink_metadata(link).is_ok_and(|m| m.is_symlink())
        && real(link).is_some_and(|found| Some(found) == real(target))
}

#[cfg(unix)]
fn is_unsupported(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{PermissionDenied, Unsupported};
    [PermissionDenied, Unsupported].contains(&error.kind())
}

/// A relative link, so that the cache can be moved; a copy if the file system does not support links.
fn link(blob: &Path, at: &Path, snapshot: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        // From snapshots/COMMIT/a/b/FILE, go up once for each folder below the repository.
        let repository = blob.parent().and_then(Path::parent).unwrap_or(blob);
        let below = snapshot.strip_prefix(repository).unwrap_or(snapshot);
        let mut target = PathBuf::new();
        for _ in 1..below.components().count() {
            target.push("..");
        }
        target.push("blobs");
        target.push(blob.file_name().unwrap_or_default());
        match std::os::unix::fs::symlink(target, at) {
            Ok(()) => return Ok(()),
            // The file system may not support links.
            Err(error) if is_unsupported(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let _ = snapshot;
    fs::copy(blob, at).map(|_| ())
}
